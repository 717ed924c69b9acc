"""What transformers reads: the folder of a CLIP model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from limner.core.config import Config
from limner.core.rundir import write_json
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_clip import put_trained_on
from limner.methods.trainable import Trainable
from limner.models.clip import Clip
from limner.models.preprocessing import Preprocessing
from limner.models.probe import probe_dual_encoder
from limner.models.weights import quiet

if TYPE_CHECKING:
    from limner.models.clip import ClipModel


class Transformers(Config):
    """The layout of transformers: a folder of CLIPModel with its tokenizer."""

    kind: Literal["transformers"] = "transformers"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ("full",)
    models: ClassVar[tuple[str, ...]] = ("clip",)

    def write(
        self,
        model: ClipModel,
        trainable: Trainable,
        folder: Path,
        metadata: Mapping[str, str],
        *,
        fresh_base: Callable[[], ClipModel],
    ) -> ExportResult:
        """Writes the whole model into ``folder``, reads it back with transformers, and compares embeddings.

        ``fresh_base`` loads the base model anew, in float32. With float16 the comparison is with the trained weights
        rounded to it. Raises UserError, and leaves nothing, where they differ.
        """
        import torch
        import transformers

        fresh = fresh_base()
        base = probe_dual_encoder(fresh)
        put_trained_on(fresh, model, trainable)
        fresh.network.to({"float32": torch.float32, "float16": torch.float16}[self.dtype])
        with staged(folder) as part_folder:
            with quiet():
                fresh.network.save_pretrained(part_folder)
                fresh.tokenizer.save_pretrained(part_folder)
            write_json(part_folder / "preprocessor_config.json", fresh.preprocessing.as_transformers())
            fresh.network.float()
            result = compare(
                part_folder,
                reader=f"transformers {transformers.__version__}",
                file=probe_dual_encoder(Clip(path=str(part_folder)).load()),
                trained=probe_dual_encoder(fresh),
                base=base,
            )
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def preprocessor_settings(side: int, means: Sequence[float], stds: Sequence[float]) -> dict[str, object]:
    """Returns the settings of CLIPImageProcessor that make of a picture what a model with these colours reads."""
    return Preprocessing(side, tuple(means), tuple(stds)).as_transformers()

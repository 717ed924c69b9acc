"""What transformers reads: the folder of a CLIP model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from limner.core.config import Config
from limner.core.rundir import write_json
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_clip import merge_adapters, put_trained_on
from limner.methods.trainable import Trainable
from limner.models.clip import Clip
from limner.models.clip_heads import save_network
from limner.models.preprocessing import Preprocessing
from limner.models.probe import probe_dual_encoder
from limner.models.weights import quiet

if TYPE_CHECKING:
    from limner.models.clip import ClipModel


class Transformers(Config):
    """The layout of transformers: a folder of CLIPModel with its tokenizer; a LoRA is merged into the weights.

    A model with mlp or residual heads is no CLIPModel, and its folder has no config.json that says so: it holds
    clip_heads.json, heads.safetensors and the towers in clip/, and Limner reads it by the folder's own path."""

    kind: Literal["transformers"] = "transformers"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ("towers", "heads", "lora")
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

        ``fresh_base`` loads the base model anew, in float32. What is compared with is the model as it trained, a LoRA
        beside its layers; with float16 the weights rounded to it. Raises UserError, and leaves nothing, where they
        differ.
        """
        import torch
        import transformers

        fresh = fresh_base()
        base = probe_dual_encoder(fresh)
        put_trained_on(fresh, model, trainable)
        trained = probe_dual_encoder(fresh)
        base = base if base.shape == trained.shape else torch.zeros_like(trained)  # embeddings of another dim
        merge_adapters(fresh)
        reader = f"transformers {transformers.__version__}"
        if self.dtype == "float16":
            compare(folder, reader=reader, file=probe_dual_encoder(fresh), trained=trained, base=base)
            trained = probe_dual_encoder(_rounded(fresh))
        with staged(folder) as part_folder:
            with quiet():
                place = save_network(fresh.network.half() if self.dtype == "float16" else fresh.network, part_folder)
                fresh.tokenizer.save_pretrained(place)
            write_json(place / "preprocessor_config.json", fresh.preprocessing.as_transformers())
            file = probe_dual_encoder(Clip(path=str(part_folder)).load())
            result = compare(part_folder, reader=reader, file=file, trained=trained, base=base)
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def _rounded(model: ClipModel) -> ClipModel:
    """Returns the model, its weights rounded to float16, in float32."""
    model.network.half().float()
    return model


def preprocessor_settings(side: int, means: Sequence[float], stds: Sequence[float]) -> dict[str, object]:
    """Returns the settings of CLIPImageProcessor that make of a picture what a model with these colours reads."""
    return Preprocessing(side, tuple(means), tuple(stds)).as_transformers()

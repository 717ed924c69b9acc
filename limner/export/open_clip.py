"""What open_clip reads: a folder for ``local-dir:``, or for a repository on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import limner
from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rundir import write_atomic, write_json
from limner.export.metadata import safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_clip import merge_adapters, put_trained_on
from limner.methods.trainable import Trainable
from limner.models.clip import Clip
from limner.models.clip_files import WEIGHTS
from limner.models.clip_vocabulary import is_openais
from limner.models.open_clip import Activation, from_transformers, sizes_of, to_transformers
from limner.models.open_clip_config import CONFIG, open_clip_config
from limner.models.probe import probe_dual_encoder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel

    from limner.models.clip import ClipModel

_TRANSFORMERS = "Take the export kind transformers, which holds every CLIP model."


class OpenClip(Config):
    """The layout of open_clip: its state dict as safetensors, its settings, the tokenizer."""

    kind: Literal["open_clip"] = "open_clip"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ("towers", "lora")
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
        """Writes the whole model into ``folder``, reads it back under open_clip's names, and compares embeddings.

        Reading back is Limner's own reader of these files: open_clip itself needs torchvision. Raises UserError, and
        leaves nothing, where they differ, and for a model that open_clip's settings cannot describe.
        """
        import torch

        fresh = fresh_base()
        base = probe_dual_encoder(fresh)
        put_trained_on(fresh, model, trainable)
        trained = probe_dual_encoder(fresh)
        merge_adapters(fresh)
        dtype = {"float32": torch.float32, "float16": torch.float16}[self.dtype]
        fresh.network.to(dtype).float()
        tensors = _tensors(fresh.network)
        with staged(folder) as part:
            write_json(part / CONFIG, _settings(fresh, tensors))
            stored = {name: value.to(dtype) for name, value in tensors.items()}
            write_atomic(part / WEIGHTS[0], safetensors_bytes(stored, metadata))
            fresh.tokenizer.save_pretrained(part)
            result = compare(
                part,
                reader=f"Limner {limner.__version__} by open_clip's names",
                file=probe_dual_encoder(Clip(path=str(part)).load()),
                trained=trained if self.dtype == "float32" else probe_dual_encoder(fresh),
                base=base,
            )
            write_record(part, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def _tensors(network: CLIPModel) -> dict[str, Tensor]:
    state = network.state_dict()
    tensors = from_transformers(state)
    if strange := sorted(state.keys() - to_transformers(tensors).keys()):
        raise UserError(
            f"has {strange[0]!r}, for which open_clip has no place.", where="export: open_clip", fix=_TRANSFORMERS
        )
    return tensors


def _settings(model: ClipModel, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Returns open_clip_config.json; raises UserError for what that cannot say."""
    config = model.network.config
    vision, text = config.vision_config, config.text_config
    sizes = sizes_of(
        {name: tuple(value.shape) for name, value in tensors.items()},
        where=model.source.name,
        vision_heads=vision.num_attention_heads,
        text_heads=text.num_attention_heads,
    )
    known: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
    if vision.hidden_act != text.hidden_act or text.hidden_act not in known:
        raise UserError(
            f"computes {vision.hidden_act} in one tower and {text.hidden_act} in the other; open_clip knows GELU or "
            "QuickGELU for both.",
            where="export: open_clip",
            fix=_TRANSFORMERS,
        )
    if {vision.layer_norm_eps, text.layer_norm_eps} != {1e-5}:
        raise UserError("has norms with another epsilon than 1e-5.", where="export: open_clip", fix=_TRANSFORMERS)
    settings = open_clip_config(sizes, activation=known[text.hidden_act], preprocessing=model.preprocessing)
    if not is_openais(model.tokenizer):
        # with any name here open_clip takes the tokenizer of the folder, else that of OpenAI
        settings["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "."
    return settings

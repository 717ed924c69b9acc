"""What ComfyUI and other programs for Stable Diffusion read: the text tower of a CLIP model in one file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from limner.core.config import Config
from limner.core.rundir import write_atomic
from limner.export.metadata import safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_clip import merge_adapters, put_trained_on
from limner.methods.trainable import Trainable
from limner.models.probe import PROMPTS

if TYPE_CHECKING:
    from torch import Tensor

    from limner.models.clip import ClipModel

FILE = "text_encoder.safetensors"
_PREFIX = "text_model."
_PROJECTION = "text_projection.weight"


class ClipTextEncoder(Config):
    """The text encoder alone, one safetensors file, for ComfyUI's models/text_encoders and tools for Stable Diffusion.
    Written unasked where the text tower trains."""

    kind: Literal["clip_text_encoder"] = "clip_text_encoder"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""
    projection: bool = False
    """Also write text_projection.weight, for programs that compare captions with pictures; SD 1.x does not read it."""

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
        """Writes the text tower into ``folder``, reads it back with transformers, and compares all hidden states.

        Raises UserError, and leaves nothing, where they differ.
        """
        import torch
        import transformers

        fresh = fresh_base()
        base = _answer(fresh, self.projection)
        put_trained_on(fresh, model, trainable)
        trained = _answer(fresh, self.projection)
        merge_adapters(fresh)
        dtype = {"float32": torch.float32, "float16": torch.float16}[self.dtype]
        fresh.network.to(dtype).float()
        state = {f"{_PREFIX}{name}": value for name, value in fresh.network.text_model.state_dict().items()}
        if self.projection:
            state[_PROJECTION] = fresh.network.text_projection.weight
        with staged(folder) as part:
            stored = {name: value.to(dtype) for name, value in state.items()}
            write_atomic(part / FILE, safetensors_bytes(stored, metadata))
            result = compare(
                part,
                reader=f"transformers {transformers.__version__}",
                file=_read_back(part / FILE, fresh, self.projection),
                trained=trained if self.dtype == "float32" else _answer(fresh, self.projection),
                base=base,
            )
            write_record(part, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def _read_back(file: Path, model: ClipModel, projection: bool) -> Tensor:
    """Returns the answer of the file in transformers' own class for a text encoder."""
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    cls: Any = CLIPTextModelWithProjection if projection else CLIPTextModel
    config = copy.deepcopy(model.network.config.text_config)
    config.projection_dim = model.network.text_projection.weight.shape[0]  # the tower's own settings may say another
    network, info = cls.from_pretrained(
        None,
        config=config,
        state_dict=load_file(file),
        dtype=torch.float32,
        output_loading_info=True,
    )
    gaps = sorted([*info["missing_keys"], *info["unexpected_keys"]])
    if gaps:
        raise RuntimeError(f"{gaps[0]} found no place in {cls.__name__}")
    found = network.eval()(_ids(model), output_hidden_states=True)
    return _row(found, [found.text_embeds] if projection else [])


def _answer(model: ClipModel, projection: bool) -> Tensor:
    """Returns every hidden state of two prompts, and what the projection makes of them, in one row."""
    import torch

    with torch.no_grad():
        found = model.network.text_model(_ids(model), output_hidden_states=True)
        more = [model.network.text_projection(found.pooler_output)] if projection else []
        return _row(found, more)


def _ids(model: ClipModel) -> Tensor:
    read: Any = model.tokenizer(
        list(PROMPTS), padding="max_length", max_length=model.token_limit, truncation=True, return_tensors="pt"
    )
    ids: Tensor = read.input_ids
    return ids


def _row(found: Any, more: list[Tensor]) -> Tensor:
    import torch

    return torch.cat([part.detach().flatten() for part in (*found.hidden_states, found.last_hidden_state, *more)])

"""What ComfyUI, A1111 and Forge read of an adapter: one file with kohya's names, the strength of each layer in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import limner
from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rundir import write_atomic
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_lora import network_metadata, put_on, rounded, trained_layers
from limner.export.trained_lycoris import (
    kohya_factors,
    lycoris_metadata,
    lycoris_settings,
    put_on_by_peft,
    trained_lycoris,
)
from limner.export.trained_word import prompts_of, put_word_on, read_word, trained_word, word_metadata, write_word
from limner.methods.trainable import ADAPTERS, Trainable
from limner.models.adapter_files import LowRank, Update
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.lycoris import Lycoris, adapted_layers, converted
from limner.models.probe import probe
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "kohya.safetensors"
_MARKS = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
"""How kohya's names of a network's layers begin; CLIP's ``text_model`` is in them, whatever transformers calls it."""

NO_DORA = (
    "kohya's layout cannot hold DoRA so that all programs read the same: ComfyUI and Forge divide by the norm of the "
    "base model's weights, A1111 and LyCORIS by that of the sum, as it was trained."
)


class Kohya(Config):
    """One file for ComfyUI, A1111 and Forge, kohya.safetensors: the LoRA, LoHa or LoKr of all networks. No DoRA.

    With a LoRA of pivotal tuning lies learned_embeds.safetensors, float32: it is of no use without its word."""

    kind: Literal["kohya"] = "kohya"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ADAPTERS
    models: ClassVar[tuple[str, ...]] = ("sd1",)

    def write(
        self,
        model: DiffusionModel,
        trainable: Trainable,
        folder: Path,
        metadata: Mapping[str, str],
        *,
        fresh_base: Callable[[], DiffusionModel],
    ) -> ExportResult:
        """Writes the trained weights into ``folder``, reads them back, and compares predictions.

        No library reads the whole of such a file (diffusers reads no LoHa and LoKr, and with transformers 5 no text
        encoder), so Limner does, by the equations that ComfyUI follows. The comparison is with PEFT's layers.
        ``fresh_base`` loads the base model anew, in float32. With float16 the comparison is with the trained weights
        rounded to it. Raises UserError, and leaves nothing, for DoRA and where they differ.
        """
        import torch

        dtype = {"float32": torch.float32, "float16": torch.float16}[self.dtype]
        layers, texts = _trained(model, trainable, dtype)
        tensors = {name: value for part, updates in layers.items() for name, value in _named(part, updates).items()}
        word = trained_word(trainable)
        metadata = {**metadata, **architecture_metadata(model.source.family, trainable.kind)}
        with staged(folder) as part_folder, torch.random.fork_rng(devices=[]):
            file = part_folder / FILE
            header = {**word_metadata(word, metadata), **texts}
            write_atomic(file, safetensors_bytes({name: value.to(dtype) for name, value in tensors.items()}, header))
            write_word(part_folder, word, metadata, model.source.family)
            expected = fresh_base()
            _put_on(expected, model, layers)
            put_word_on(expected, word)
            trained = probe(expected, prompts=prompts_of(word))
            del expected
            fresh = fresh_base()
            base = probe(fresh, prompts=prompts_of(word))
            load_adapters(fresh.networks, [AdapterRef(file)])
            for part, updates in layers.items():
                if adapted_layers(fresh.networks[part]) != updates.keys():
                    raise RuntimeError(f"other layers of {part} were adapted than the {len(updates)} of the file")
            read_word(fresh, part_folder / LEARNED_EMBEDS, word)
            reader = f"Limner {limner.__version__}, against PEFT's layers"
            answer = probe(fresh, prompts=prompts_of(word))
            result = compare(file, reader=reader, file=answer, trained=trained, base=base)
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def _trained(
    model: DiffusionModel, trainable: Trainable, dtype: torch.dtype
) -> tuple[dict[str, dict[str, Update]], dict[str, str]]:
    """Returns the updates by network and layer, rounded to a number format, and what kohya's readers show of them."""
    if trainable.kind in ("loha", "lokr"):
        products = {part: converted(updates, dtype) for part, updates in trained_lycoris(model, trainable).items()}
        texts = lycoris_metadata(lycoris_settings(model, next(iter(products))), trainable.kind)
        return {part: dict(updates) for part, updates in products.items()}, texts
    pairs = {
        part: {path: rounded(update, dtype) for path, update in updates.items()}
        for part, updates in trained_layers(model, trainable).items()
    }
    if any(update.magnitude is not None for updates in pairs.values() for update in updates.values()):
        raise UserError(NO_DORA, where="export", fix="Use the layouts of diffusers and PEFT, or train without dora.")
    texts = {"ss_network_module": "networks.lora", **network_metadata(pairs)}
    return {part: dict(updates) for part, updates in pairs.items()}, texts


def _put_on(fresh: DiffusionModel, trained: DiffusionModel, layers: Mapping[str, Mapping[str, Update]]) -> None:
    """Puts the updates on a fresh model as layers of PEFT's."""
    products = {
        part: {path: update for path, update in updates.items() if isinstance(update, Lycoris)}
        for part, updates in layers.items()
    }
    if any(products.values()):
        put_on_by_peft(fresh, trained, products)
    else:
        put_on(fresh, layers)


def _named(part: str, updates: Mapping[str, Update]) -> dict[str, Tensor]:
    """Returns the tensors of one network under kohya's names, as ``lora_unet_<path with _>.lora_down.weight``."""
    import torch

    tensors: dict[str, Tensor] = {}
    for path, update in updates.items():
        name = _MARKS[part] + path.removeprefix("text_model.").replace(".", "_")
        if isinstance(update, LowRank):
            factors, alpha = {"lora_down.weight": update.down, "lora_up.weight": update.up}, update.alpha
        else:
            factors, alpha = kohya_factors(update)
        tensors |= {f"{name}.{factor}": tensor for factor, tensor in factors.items()}
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors

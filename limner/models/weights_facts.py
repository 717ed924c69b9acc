"""What a weights file holds, told from its header alone: kind, parts, sizes, rank and alpha, where it came from."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.models.adapter_files import METADATA_KEY, layout_of, read_layer_strengths, split_key
from limner.models.clip_facts import clip_facts
from limner.models.embedding_files import A1111_NAMES
from limner.models.safety import TensorInfo, read_safetensors_header
from limner.models.weights import describe, recognise

Facts = dict[str, Any]
"""Labels and JSON-able values, in the order in which they are shown."""

_TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
_EMBEDDING_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
_MOST_LISTED = 12
_PART_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("text_encoder_2", ("lora_te2_", "text_encoder_2.", "conditioner.embedders.1.")),
    ("text_encoder", ("lora_te", "text_encoder.", "cond_stage_model.", "conditioner.embedders.0.", "text_encoders.")),
    ("autoencoder", ("first_stage_model.", "vae.")),
    ("unet", ("lora_unet_", "lycoris_", "unet.", "model.diffusion_model.", "diffusion_model.")),
    ("transformer", ("transformer.", "lora_transformer_")),
)
_ORIGIN = {
    "base": ("limner.base_model", "ss_sd_model_name", "modelspec.architecture", "ss_base_model_version"),
    "trigger word": ("limner.trigger_word", "modelspec.trigger_phrase"),
    "title": ("modelspec.title",),
    "step": ("limner.step", "ss_steps"),
    "text encoder": ("limner.text_encoder",),
    "text encoder blend": ("limner.text_encoder_blend",),
    "base hash": ("limner.base_model_hash", "ss_new_sd_model_hash", "ss_sd_model_hash"),
    "data hash": ("limner.data_hash",),
    "written by": ("limner.version",),
}
_TEXT_INSIDE_PEFT = re.compile(r"base_model\.model\.(text_model\.)?encoder\.layers\.")


def weights_facts(path: Path) -> tuple[str, Facts]:
    """Returns the kind of a safetensors file in words, and what its header says; raises UserError for a damaged one."""
    header = read_safetensors_header(path)
    kind = recognise(header.tensors)
    facts: Facts = origin_facts(header.metadata)
    if kind == "lora":
        words, more = _lora_facts(path, header.tensors)
    elif kind == "clip":
        words, more = clip_facts(header.tensors) or (describe(kind), {})
    else:
        words, more = describe(kind), _embedding_facts(path, header.tensors) if kind == "textual inversion" else {}
    facts |= more
    facts |= size_facts(header.tensors)
    facts["bytes"] = path.stat().st_size
    facts["parts"] = dict(Counter(part_of(name) for name in header.tensors))
    facts["metadata"] = dict(sorted(header.metadata.items()))
    return words, facts


def origin_facts(metadata: Mapping[str, str]) -> Facts:
    """Returns base model, trigger word, step and so on, from the header texts of Limner, kohya and ModelSpec."""
    facts: Facts = {}
    for label, keys in _ORIGIN.items():
        value = next((metadata[key] for key in keys if metadata.get(key)), None)
        if value is not None:
            facts[label] = f"Limner {value}" if label == "written by" else value
    return facts


def size_facts(tensors: Mapping[str, TensorInfo]) -> Facts:
    """Returns numbers of tensors and parameters, and the number formats."""
    formats = Counter(info.dtype for info in tensors.values())
    return {
        "tensors": len(tensors),
        "parameters": sum(math.prod(info.shape) for info in tensors.values()),
        "number formats": dict(formats),
    }


def part_of(name: str) -> str:
    """Returns the network that a tensor belongs to, as its name tells; "other" where it tells nothing."""
    if _TEXT_INSIDE_PEFT.match(name):
        return "text_encoder"
    if name.startswith("base_model.model."):
        return "unet"
    return next((part for part, marks in _PART_MARKS if name.startswith(marks)), "other")


# ----------------------------------------------------------------------------------------------------------- kinds
def _lora_facts(path: Path, tensors: Mapping[str, TensorInfo]) -> tuple[str, Facts]:
    try:
        strengths = read_layer_strengths(path)
        names = {split_key(key, path)[1] for key in tensors}
    except UserError as error:
        return "an adapter that Limner cannot use", {"why": error.what}
    methods = {
        "a LoHa": any(name.startswith("hada_") for name in names),
        "a LoKr": any(name.startswith("lokr_") for name in names),
        "a DoRA": "magnitude" in names,
        "a LoRA": "down" in names and "magnitude" not in names,
    }
    kind = " with ".join(method for method, present in methods.items() if present)
    facts: Facts = {
        "layers": dict(Counter(part_of(name) for name in strengths)),
        "rank": _uniform({name: "whole" if rank is None else rank for name, (rank, _) in strengths.items()}),
        "alpha": _uniform({name: alpha for name, (_, alpha) in strengths.items()}),
    }
    width = _text_width(tensors)
    if width is not None:
        facts["text states"] = f"{width} wide" + (f": {_TEXT_WIDTHS[width]}" if width in _TEXT_WIDTHS else "")
    return f"{kind} in the layout of {layout_of(tensors)}", facts


def _uniform(values: Mapping[str, float | str]) -> Any:
    """Returns the one value of all layers, or the value of each."""
    different = set(values.values())
    return different.pop() if len(different) == 1 else dict(values)


def _text_width(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Returns the width of the text states that a LoRA's cross-attention reads, which tells the base model."""
    for name, info in tensors.items():
        cross = "attn2" in name and ("to_k" in name or "to_v" in name)
        if cross and name.endswith(("lora_A.weight", "down.weight", ".hada_w1_b")) and len(info.shape) >= 2:
            return info.shape[1]
    return None


def _embedding_facts(path: Path, tensors: Mapping[str, TensorInfo]) -> Facts:
    shapes = {name: (1, *info.shape)[-2:] for name, info in tensors.items() if info.shape}
    facts: Facts = {}
    if len(shapes) == 1:
        ((name, (_, width)),) = shapes.items()
        layout, word = ("A1111", path.stem.lower()) if name in A1111_NAMES else ("diffusers", name)
        facts = {"layout": layout, "word": word}
        if width in _EMBEDDING_WIDTHS:
            facts["base"] = f"{_EMBEDDING_WIDTHS[width]}, by its width"
    return facts | {"vectors": {name: f"{count} of width {width}" for name, (count, width) in shapes.items()}}


def _listed(values: Mapping[str, Any], longest: int) -> str:
    """Returns each name with its value; of many names, each value with the number of them."""
    if len(values) <= _MOST_LISTED:
        return ", ".join(f"{_plain(key, longest)}: {_plain(inner, longest)}" for key, inner in values.items())
    counts = Counter(_plain(inner, longest) for inner in values.values()).most_common()
    told = ", ".join(f"{value} ({count} times)" for value, count in counts[:_MOST_LISTED])
    return told + (f" and {len(counts) - _MOST_LISTED} more values" if len(counts) > _MOST_LISTED else "")


def readable(facts: Mapping[str, Any], *, longest: int = 100) -> Iterable[tuple[str, str]]:
    """Yields label and text of each fact; a stranger's texts are cut, and signs that steer a terminal are taken out."""
    for label, value in facts.items():
        if isinstance(value, Mapping):
            if label == METADATA_KEY or not value:
                continue
            yield label, _listed(value, longest)
        else:
            yield label, _plain(value, longest)


def _plain(value: Any, longest: int) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join(sign if sign.isprintable() else " " for sign in cut)

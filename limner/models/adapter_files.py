"""LoRA files as other programs write them, read into one form: an update per layer, by the file's own names.

Three layouts exist, and they differ in names and in where the strength stands:
``diffusers`` (``unet.<path>.lora_A.weight``; strength in the header, as JSON), ``PEFT`` (``base_model.model.<path>.
lora_A.weight``; strength in adapter_config.json) and ``kohya`` (``lora_unet_<path with _>.lora_down.weight``; strength
in a tensor per layer). LoHa and LoKr come in the last two (LyCORIS writes kohya's). No other file is guessed at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import UserError
from limner.models.lycoris import FACTORS, Factor, Lycoris, rank_of
from limner.models.peft_config import Strength, read_peft_config, strength_from
from limner.models.safety import parse_json, read_safetensors_header

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["diffusers", "PEFT", "kohya"]
Role = Literal["down", "up", "alpha", "magnitude"] | Factor
WEIGHTS, PEFT_WEIGHTS, PEFT_CONFIG = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
)
METADATA_KEY = "lora_adapter_metadata"
PARTS = ("unet", "text_encoder", "text_encoder_2", "transformer")

_ROLES: tuple[tuple[str, Role], ...] = (
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora_magnitude_vector", "magnitude"),
    (".lora_magnitude_vector.weight", "magnitude"),
    (".dora_scale", "magnitude"),
    (".alpha", "alpha"),
    *((f".{factor}", factor) for factor in FACTORS),
)
_OLD_PROCESSOR = re.compile(r"(?P<block>.+)\.processor\.to_(?P<layer>q|k|v|out)_lora\.(?P<role>down|up)\.weight")
_OTHER_METHODS = {
    ".oft_": "OFT",
    ".boft_": "BOFT",
    ".diff": "a full difference",
    ".lora_mid.": "LoRA with a third matrix (CP decomposition)",
    ".lora_embedding_": "LoRA on embeddings",
    ".lora_B.bias": "LoRA with biases",
}


@dataclass(frozen=True)
class LowRank:
    """The update of one layer: weight + alpha / rank * up @ down (arXiv:2106.09685, section 4.1)."""

    down: Tensor
    """[rank, inputs], or [rank, inputs, height, width] of a convolution."""
    up: Tensor
    """[outputs, rank], or [outputs, rank, 1, 1]."""
    alpha: float
    magnitude: Tensor | None = None
    """DoRA's magnitude of each output (arXiv:2402.09353), as many numbers as outputs; None for plain LoRA."""

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


Update = LowRank | Lycoris


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA, LoHa or LoKr file that was read."""

    path: Path
    layout: Layout
    layers: dict[str, Update]
    """By the layer's name in the file."""
    metadata: dict[str, str]
    """The header's free text."""


def split_key(key: str, path: Path) -> tuple[str, Role]:
    """Returns the layer and the role of a tensor's name; raises UserError where the name is not LoRA's."""
    old = _OLD_PROCESSOR.fullmatch(key)
    if old is not None:
        layer = "to_out.0" if old["layer"] == "out" else f"to_{old['layer']}"
        return f"{old['block']}.{layer}", "down" if old["role"] == "down" else "up"
    for ending, role in _ROLES:
        if key.endswith(ending):
            return key.removesuffix(ending), role
    for mark, method in _OTHER_METHODS.items():
        if mark in key:
            raise UserError(
                f"holds {method} ({key!r}), and Limner reads LoRA, DoRA, LoHa and LoKr.",
                where=str(path),
                fix="Convert it to LoRA with the program that made it.",
            )
    raise UserError(
        f"the tensor {key!r} belongs to no LoRA, LoHa or LoKr.",
        where=str(path),
        fix="Name a LoRA file; `limner inspect` says what this one is.",
    )


def layout_of(names: Iterable[str]) -> Layout:
    """Returns the layout that the tensors' names speak of."""
    first = next(iter(names), "")
    if first.startswith("base_model.model."):
        return "PEFT"
    return "kohya" if first.startswith(("lora_", "lycoris_")) else "diffusers"


def read_adapter_file(path: Path) -> AdapterFile:
    """Returns the updates that one LoRA file holds. A PEFT file is read with the adapter_config.json beside it."""
    from safetensors.torch import load_file

    header = read_safetensors_header(path)
    if not header.tensors:
        raise UserError("holds no tensors.", where=str(path), fix="Name a LoRA file.")
    for key in header.tensors:
        split_key(key, path)
    layout = layout_of(header.tensors)
    strengths = _strengths(path, layout, header.metadata)
    grouped: dict[str, dict[Role, Tensor]] = {}
    for key, tensor in load_file(path).items():
        name, role = split_key(key, path)
        if role in grouped.setdefault(name, {}):
            raise UserError(f"has two tensors for {role} of {name!r}.", where=str(path), fix="Make the file again.")
        grouped[name][role] = tensor
    layers = {name: _update(name, tensors, strengths, path) for name, tensors in grouped.items()}
    return AdapterFile(path, layout, layers, header.metadata)


def read_layer_strengths(path: Path) -> dict[str, tuple[int | None, float]]:
    """Returns rank and alpha of each layer of a LoRA file; of the tensors only the alphas are read, one number each.

    The rank is None, and alpha stands for the whole factor, where a LoKr has two whole matrices.
    """
    header = read_safetensors_header(path)
    strengths = _strengths(path, layout_of(header.tensors), header.metadata)
    by_layer: dict[str, dict[Role, str]] = {}
    for key in header.tensors:
        name, role = split_key(key, path)
        by_layer.setdefault(name, {})[role] = key
    alphas = _scalars(
        path,
        {
            name: roles["alpha"]
            for name, roles in by_layer.items()
            if "alpha" in roles and header.tensors[roles["alpha"]].shape in ((), (1,))
        },
    )
    found: dict[str, tuple[int | None, float]] = {}
    for name, roles in by_layer.items():
        where = f"{path}, {name}"
        shapes = {role: header.tensors[key].shape for role, key in roles.items()}
        factors = {factor: shapes[factor] for factor in FACTORS if factor in shapes}
        if factors:
            _refuse_mixture(roles, factors, where)
            rank = rank_of(factors)
            scale = _scale(name, rank, alphas.get(name), strengths, _method(factors), where)
            found[name] = (rank, scale * (rank or 1))
        elif "down" in shapes:
            rank = shapes["down"][0] if shapes["down"] else 0
            dora = "magnitude" in shapes
            found[name] = (rank, alphas[name] if name in alphas else _alpha(name, rank, strengths, dora, where))
    return found


def _scalars(path: Path, keys: Mapping[str, str]) -> dict[str, float]:
    if not keys:
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: float(file.get_tensor(key)) for name, key in keys.items()}


def _strengths(path: Path, layout: Layout, metadata: Mapping[str, str]) -> dict[str, Strength]:
    """Returns what is known about alpha, by the first word of the layer's name; "" for every other layer."""
    if layout == "PEFT":
        return {"": read_peft_config(path.with_name(PEFT_CONFIG))}
    if layout == "kohya" or METADATA_KEY not in metadata:
        return {}
    where = f"{path}, {METADATA_KEY}"
    values = parse_json(metadata[METADATA_KEY].encode(), where=where)
    if not isinstance(values, dict):
        raise UserError("holds no keys with values.", where=where, fix="Save the LoRA again with its metadata.")
    by_part: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        part, _, field = key.partition(".")
        by_part.setdefault(part, {})[field] = value
    return {part: strength_from(fields, where=f"{where}, {part}") for part, fields in by_part.items()}


def _update(name: str, tensors: Mapping[Role, Tensor], strengths: Mapping[str, Strength], path: Path) -> Update:
    """Returns the update of one layer, of whatever method its tensors are."""
    factors: dict[Factor, Tensor] = {factor: tensors[factor] for factor in FACTORS if factor in tensors}
    if not factors:
        return _low_rank(name, tensors, strengths, path)
    where, fix = f"{path}, {name}", "The file is damaged: make or download it again."
    _refuse_mixture(tensors.keys(), factors, where)
    alpha = tensors.get("alpha")
    if alpha is not None and (alpha.numel() != 1 or not math.isfinite(float(alpha))):
        raise UserError("its alpha is no finite number.", where=where, fix=fix)
    update = Lycoris(factors, 1.0)
    try:
        update.shape()
    except ValueError as error:
        raise UserError(f"{error}.", where=where, fix=fix) from None
    given = None if alpha is None else float(alpha)
    return Lycoris(factors, _scale(name, update.rank, given, strengths, update.method, where))


def _refuse_mixture(roles: Iterable[Role], factors: Mapping[Factor, object], where: str) -> None:
    others = sorted(set(roles) - factors.keys() - {"alpha"})
    if others:
        raise UserError(
            f"has {_method(factors)} and {others[0]} for one layer, which Limner does not read.",
            where=where,
            fix="Train without weight decomposition (DoRA) on top.",
        )


def _method(factors: Mapping[Factor, object]) -> str:
    return "LoHa" if any(name.startswith("hada_") for name in factors) else "LoKr"


def _scale(
    name: str, rank: int | None, alpha: float | None, strengths: Mapping[str, Strength], method: str, where: str
) -> float:
    """Returns the factor of a LoHa's or LoKr's product, as every reader of such a file computes it."""
    strength = _strength_of(name, strengths, where)
    if strength is not None:
        if strength.method != method:
            raise UserError(
                f"the config speaks of {strength.method}, the tensors are {method}.",
                where=where,
                fix="Make the file again.",
            )
        return strength.scale(name, rank, where=where)
    return 1.0 if alpha is None or rank is None else alpha / rank


def _low_rank(name: str, tensors: Mapping[Role, Tensor], strengths: Mapping[str, Strength], path: Path) -> LowRank:
    where, fix = f"{path}, {name}", "The file is damaged: make or download it again."
    if "down" not in tensors or "up" not in tensors:
        raise UserError("one of its two matrices is missing.", where=where, fix=fix)
    down, up = tensors["down"], tensors["up"]
    if down.dim() not in (2, 4) or up.dim() != down.dim() or up.shape[1] != down.shape[0] or down.shape[0] == 0:
        raise UserError(
            f"its matrices {list(down.shape)} and {list(up.shape)} do not fit together.", where=where, fix=fix
        )
    magnitude = tensors.get("magnitude")
    if magnitude is not None:
        magnitude = _per_output(magnitude, int(up.shape[0]), where)
    if "alpha" in tensors:
        alpha = float(tensors["alpha"]) if tensors["alpha"].numel() == 1 else math.nan
    else:
        alpha = _alpha(name, int(down.shape[0]), strengths, magnitude is not None, where)
    if not math.isfinite(alpha):
        raise UserError("its alpha is no finite number.", where=where, fix=fix)
    return LowRank(down, up, alpha, magnitude)


def _alpha(name: str, rank: int, strengths: Mapping[str, Strength], dora: bool, where: str) -> float:
    """Returns the alpha of a layer for which the file has no tensor."""
    strength = _strength_of(name, strengths, where)
    if strength is None:
        return float(rank)  # every reader's convention where nothing at all is said
    if strength.method != "LoRA":
        raise UserError(
            f"the config speaks of {strength.method}, the tensors are LoRA.", where=where, fix="Make the file again."
        )
    inside = name.partition(".")[2]
    if strength.dora != dora:
        raise UserError("DoRA's magnitude and the config disagree.", where=where, fix="Make the file again.")
    return strength.alpha(name if "" in strengths else inside, rank, where=where)


def _strength_of(name: str, strengths: Mapping[str, Strength], where: str) -> Strength | None:
    """Returns what is known about the strength of a layer; None where the file says nothing at all."""
    if not strengths:
        return None
    part = name.partition(".")[0]
    strength = strengths.get("", strengths.get(part))
    if strength is None:
        raise UserError(
            f"the header tells the strength of {', '.join(sorted(strengths))}, not of {part}.",
            where=where,
            fix="Save the LoRA again with the metadata of every network.",
        )
    return strength


def _per_output(magnitude: Tensor, outputs: int, where: str) -> Tensor:
    """Returns the magnitudes flat, [outputs]; PEFT writes [outputs] or [1, outputs, 1, 1], others [outputs, 1, ...]."""
    if magnitude.numel() != outputs:
        raise UserError(
            f"its magnitude has shape {list(magnitude.shape)} for {outputs} outputs.",
            where=where,
            fix="Limner reads DoRA with one magnitude per output; make the file so.",
        )
    return magnitude.reshape(-1)

"""What a PEFT config says about the strength of a LoRA; whatever could change the result otherwise is refused.

The config is a stranger's file: it is read as plain JSON, never given to a library that would act on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.models.safety import MAX_JSON_BYTES, parse_json

_INERT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size",
    "ensure_weight_tying", "bias",
}  # fmt: skip
"""Names, training and placement: which layers there are is told by the tensors."""
_READ = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "init_lora_weights"}
_LYCORIS = {"LOHA": "LoHa", "LOKR": "LoKr"}
_LYCORIS_INERT = {
    "rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights", "use_effective_conv2d", "decompose_both",
    "decompose_factor",
}  # fmt: skip
"""Training, and shapes, which are told by the tensors."""
_LYCORIS_READ = {"r", "alpha", "rank_pattern", "alpha_pattern"}
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_PLAIN_PATTERN = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")


@dataclass(frozen=True)
class Strength:
    """How strongly the layers of one network are updated."""

    rank: int
    lora_alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool = False
    dora: bool = False
    method: str = "LoRA"
    """LoRA (also DoRA), LoHa or LoKr."""

    def scale(self, layer: str, rank: int | None, *, where: str) -> float:
        """Returns alpha / rank of a layer of LoHa or LoKr; a rank of None is that of the config."""
        rank = _by_pattern(self.rank_pattern, layer, self.rank) if rank is None else rank
        return self.alpha(layer, rank, where=where) / rank

    def alpha(self, layer: str, rank: int, *, where: str) -> float:
        """Returns the alpha of a layer whose matrices have ``rank``; raises UserError where the config has another one.

        With rank-stabilised scaling (arXiv:2312.03732) the update is alpha / sqrt(rank): returned as the plain alpha.
        """
        told = _by_pattern(self.rank_pattern, layer, self.rank)
        if told != rank:
            raise UserError(
                f"its matrices have rank {rank}, the config says {told}.", where=where, fix="The file is damaged."
            )
        alpha = float(_by_pattern(self.alpha_pattern, layer, self.lora_alpha))
        return alpha * math.sqrt(rank) if self.rslora else alpha


def _by_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Returns the value of the first pattern that ends the layer's name, as PEFT matches them.

    transformers 5 calls CLIP's layers ``encoder...``, older releases ``text_model.encoder...``: both are tried.
    """
    bare = layer.removeprefix("base_model.model.")
    names = (bare, bare.removeprefix("text_model."), f"text_model.{bare}")
    for pattern, value in patterns.items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            return value
    return default


def read_peft_config(path: Path) -> Strength:
    """Returns the strength that an adapter_config.json speaks of."""
    if not path.is_file():
        raise UserError("is missing; without it the strength is unknown.", where=str(path), fix="Copy it there.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError("is too long for a config.", where=str(path), fix="Make or download it again.")
    values = parse_json(path.read_bytes(), where=str(path))
    if not isinstance(values, dict):
        raise UserError("holds no keys with values.", where=str(path), fix="Make or download it again.")
    return strength_from(values, where=str(path))


def strength_from(fields: Mapping[str, Any], *, where: str) -> Strength:
    """Returns the strength that a PEFT config speaks of; raises UserError where it asks for anything unknown."""
    kind = fields.get("peft_type", "LORA")
    if kind in _LYCORIS:
        return _lycoris_strength(fields, _LYCORIS[kind], where)
    if kind != "LORA":
        raise UserError(
            f"is of the kind {kind!r}, and Limner reads LORA, LOHA and LOKR.", where=where, fix="Convert it to LoRA."
        )
    if fields.get("init_lora_weights") not in _HARMLESS_STARTS:
        raise UserError(
            f"started from {fields['init_lora_weights']!r}, which changes the base model's own weights.",
            where=where,
            fix="Convert it to plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion).",
        )
    if fields.get("bias", "none") != "none":
        raise UserError("trained biases too, which Limner does not read.", where=where, fix="Train without them.")
    _refuse_unknown(fields, _INERT | _READ, where)
    return Strength(
        rank=_count(fields.get("r", 8), "r", where),
        lora_alpha=_number(fields.get("lora_alpha", 8), "lora_alpha", where),
        rank_pattern={k: _count(v, k, where) for k, v in _patterns(fields, "rank_pattern", where)},
        alpha_pattern={k: _number(v, k, where) for k, v in _patterns(fields, "alpha_pattern", where)},
        rslora=_flag(fields.get("use_rslora", False), "use_rslora", where),
        dora=_flag(fields.get("use_dora", False), "use_dora", where),
    )


def _lycoris_strength(fields: Mapping[str, Any], method: str, where: str) -> Strength:
    _refuse_unknown(fields, _INERT | _LYCORIS_INERT | _LYCORIS_READ, where)
    return Strength(
        rank=_count(fields.get("r", 8), "r", where),
        lora_alpha=_number(fields.get("alpha", 8), "alpha", where),
        rank_pattern={k: _count(v, k, where) for k, v in _patterns(fields, "rank_pattern", where)},
        alpha_pattern={k: _number(v, k, where) for k, v in _patterns(fields, "alpha_pattern", where)},
        method=method,
    )


def _refuse_unknown(fields: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in sorted(set(fields) - known):
        if fields[key] not in (None, False, 0, "", [], {}, "megatron.core"):
            raise UserError(
                f"asks for {key!r} = {str(fields[key])[:60]!r}, which this version of Limner does not know.",
                where=where,
                fix="Use a plain LoRA, DoRA, LoHa or LoKr.",
            )


def _patterns(fields: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    value = fields.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong(key, value, where)
    for pattern in value:
        if not _PLAIN_PATTERN.fullmatch(pattern):  # a regular expression of a stranger's could run for ever
            raise UserError(
                f"{key} has {pattern[:60]!r}, which is no layer's name.", where=where, fix="Use plain layer names."
            )
    return list(value.items())


def _count(value: Any, key: str, where: str) -> int:
    if type(value) is not int or not 0 < value <= 1_000_000:
        raise _wrong(key, value, where)
    return value


def _number(value: Any, key: str, where: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _wrong(key, value, where)
    return float(value)


def _flag(value: Any, key: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, where)
    return value


def _wrong(key: str, value: Any, where: str) -> UserError:
    return UserError(f"{key} is {str(value)[:60]!r}.", where=where, fix="The config is damaged: make it again.")

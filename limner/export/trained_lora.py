"""What a LoRA training left in a model's networks, and the same put on a fresh copy of the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from limner.methods.adapters import ADAPTER_NAME
from limner.methods.trainable import Trainable
from limner.models.adapter_files import LowRank, Update
from limner.models.adapters import inject, lora_layers
from limner.models.lycoris import Lycoris, attach
from limner.models.protocol import Trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NEEDED = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
_NEVER = ("peft_version", "inference_mode", "auto_mapping", "base_model_name_or_path", "peft_type")


def trained_layers(model: Trained, trainable: Trainable) -> dict[str, dict[str, LowRank]]:
    """Returns the trained updates by network and layer, float32 on the CPU.

    The vectors of a new word are left out; they have a file of their own. Raises RuntimeError where anything else
    trains that is not LoRA's or DoRA's: no file would hold it.
    """
    found: dict[str, dict[str, LowRank]] = {}
    accounted = set(trainable.placeholder.vectors if trainable.placeholder is not None else ())
    for part in trainable.parts:
        for path, layer in lora_layers(model.networks[part]).items():
            prefix = f"{part}.{path}.lora_"
            magnitude = None
            if ADAPTER_NAME in layer.lora_magnitude_vector:
                magnitude = _kept(layer.lora_magnitude_vector[ADAPTER_NAME].weight)
                accounted.add(f"{prefix}magnitude_vector.{ADAPTER_NAME}.weight")
            down = _kept(layer.lora_A[ADAPTER_NAME].weight)
            up = _kept(layer.lora_B[ADAPTER_NAME].weight)
            stabiliser = math.sqrt(down.shape[0]) if layer.use_rslora[ADAPTER_NAME] else 1.0
            alpha = float(layer.lora_alpha[ADAPTER_NAME]) * stabiliser
            found.setdefault(part, {})[path] = LowRank(down, up, alpha, magnitude)
            accounted |= {f"{prefix}A.{ADAPTER_NAME}.weight", f"{prefix}B.{ADAPTER_NAME}.weight"}
    if accounted != set(trainable.params):
        odd = sorted(accounted ^ set(trainable.params))
        raise RuntimeError(f"{odd[0]} trains and is no part of a LoRA, or the other way round")
    return found


def _kept(parameter: Tensor) -> Tensor:
    return parameter.detach().float().cpu().clone()


def put_on(model: Trained, layers: Mapping[str, Mapping[str, Update]]) -> None:
    """Puts trained updates on the networks of a fresh model."""
    for part, updates in layers.items():
        network = model.networks[part]
        inject(network, ADAPTER_NAME, {path: u for path, u in updates.items() if isinstance(u, LowRank)})
        attach(network, ADAPTER_NAME, {path: u for path, u in updates.items() if isinstance(u, Lycoris)}, 1.0)


def rounded(update: LowRank, dtype: torch.dtype) -> LowRank:
    """Returns an update rounded to a number format, in float32."""
    magnitude = None if update.magnitude is None else update.magnitude.to(dtype).float()
    return LowRank(update.down.to(dtype).float(), update.up.to(dtype).float(), update.alpha, magnitude)


def lora_settings(model: Trained, part: str) -> dict[str, Any]:
    """Returns the adapter's config as PEFT's readers want it: five fields always, others where they are not default.

    An older PEFT refuses fields that it does not know, and an older diffusers wants all five.
    """
    from peft import LoraConfig

    config = model.networks[part].peft_config[ADAPTER_NAME]
    values, default = config.to_dict(), LoraConfig().to_dict()
    changed = {key: value for key, value in values.items() if value != default[key] and key not in _NEVER}
    settings = {**{key: values[key] for key in _NEEDED}, **changed}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(settings.items())}


def file_tensors(
    updates: Mapping[str, LowRank], prefix: str, *, magnitude_name: str = "lora_magnitude_vector"
) -> dict[str, Tensor]:
    """Returns the tensors of one network under PEFT's names: ``<prefix><layer>.lora_A.weight`` and so on."""
    tensors: dict[str, Tensor] = {}
    for path, update in updates.items():
        tensors[f"{prefix}{path}.lora_A.weight"] = update.down
        tensors[f"{prefix}{path}.lora_B.weight"] = update.up
        if update.magnitude is not None:
            tensors[f"{prefix}{path}.{magnitude_name}"] = update.magnitude
    return tensors


def network_metadata(layers: Mapping[str, Mapping[str, LowRank]]) -> dict[str, str]:
    """Returns rank and alpha under the names that kohya's readers show, where all layers have the same."""
    updates = [update for part in layers.values() for update in part.values()]
    ranks, alphas = {update.rank for update in updates}, {update.alpha for update in updates}
    texts = {}
    if len(ranks) == 1 and len(alphas) == 1:
        texts = {"ss_network_dim": str(ranks.pop()), "ss_network_alpha": f"{alphas.pop():g}"}
    return texts

"""What a training of LoHa or LoKr left in a model's networks, and the same put on a fresh copy of the base."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from limner.methods.adapters import ADAPTER_NAME
from limner.methods.trainable import Trainable
from limner.models.lycoris import FACTORS, Factor, Lycoris
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from torch import Tensor, nn

_NEEDED = ("r", "alpha", "rank_pattern", "alpha_pattern", "target_modules")
_NEVER = ("peft_version", "inference_mode", "auto_mapping", "base_model_name_or_path", "peft_type")


def trained_lycoris(model: DiffusionModel, trainable: Trainable) -> dict[str, dict[str, Lycoris]]:
    """Returns the trained updates by network and layer, float32 on the CPU.

    Raises RuntimeError where something trains that is not LoHa's or LoKr's: a file of updates could not hold it.
    """
    factors: dict[str, dict[str, dict[Factor, Tensor]]] = {}
    for name, parameter in trainable.params.items():
        part, _, rest = name.partition(".")
        layer, _, adapter = rest.rpartition(".")
        path, _, factor = layer.rpartition(".")
        if factor not in FACTORS or adapter != ADAPTER_NAME:
            raise RuntimeError(f"{name} trains and is no part of a LoHa or LoKr")
        found = factors.setdefault(part, {}).setdefault(path, {})
        found[factor] = parameter.detach().float().cpu().clone()
    return {
        part: {
            path: Lycoris(found, float(cast("Any", model.networks[part].get_submodule(path)).scaling[ADAPTER_NAME]))
            for path, found in factors[part].items()
        }
        for part in trainable.parts
    }


def put_on_by_peft(model: DiffusionModel, trained: DiffusionModel, layers: Mapping[str, Mapping[str, Lycoris]]) -> None:
    """Puts trained updates on a fresh model as they were trained: PEFT's own layers, made by the same config."""
    for part, updates in layers.items():
        network: Any = model.networks[part]
        network.add_adapter(copy.deepcopy(_config(trained.networks[part])), adapter_name=ADAPTER_NAME)
        places = {name: value for name, value in network.named_parameters() if name.endswith(f".{ADAPTER_NAME}")}
        values = {
            f"{path}.{factor}.{ADAPTER_NAME}": tensor
            for path, update in updates.items()
            for factor, tensor in update.factors.items()
        }
        if places.keys() != values.keys():
            raise RuntimeError(f"PEFT made other tensors of {part}: {sorted(places.keys() ^ values.keys())[:3]}")
        for name, place in places.items():
            place.data = values[name].to(place.device)


def lycoris_settings(model: DiffusionModel, part: str) -> dict[str, Any]:
    """Returns the adapter's config as PEFT's readers want it: five fields always, others where they are not default."""
    config = _config(model.networks[part])
    values, default = config.to_dict(), type(config)().to_dict()
    changed = {key: value for key, value in values.items() if value != default[key] and key not in _NEVER}
    settings = {**{key: values[key] for key in _NEEDED}, **changed}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(settings.items())}


def _config(network: nn.Module) -> Any:
    return cast("Any", network).peft_config[ADAPTER_NAME]


def peft_tensors(updates: Mapping[str, Lycoris], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors of one network under PEFT's names: ``<prefix><layer>.hada_w1_a`` and so on."""
    return {
        f"{prefix}{path}.{factor}": tensor
        for path, update in updates.items()
        for factor, tensor in update.factors.items()
    }


def kohya_factors(update: Lycoris) -> tuple[dict[str, Tensor], float]:
    """Returns the factors of one layer and its alpha, as kohya's layout has them.

    No reader looks at the alpha of a LoKr of two whole matrices, so its scale goes into the first of them.
    """
    factors: dict[str, Tensor] = {name: factor for name, factor in update.factors.items()}
    if update.rank is None:
        return {**factors, "lokr_w1": factors["lokr_w1"] * update.scale}, 1.0
    return factors, update.scale * update.rank


def lycoris_metadata(settings: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Returns what kohya's readers show: module, algorithm, rank and alpha."""
    return {
        "ss_network_module": "lycoris.kohya",
        "ss_network_args": json.dumps({"algo": kind}),
        "ss_network_dim": str(settings["r"]),
        "ss_network_alpha": f"{settings['alpha']:g}",
    }

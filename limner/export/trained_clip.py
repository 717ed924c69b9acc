"""What a training left in a CLIP model, put on a fresh copy of the base: for every format that holds one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from limner.export.result import copy_weights
from limner.export.trained_lora import put_on, trained_layers
from limner.methods.trainable import Trainable
from limner.models.adapter_files import LowRank
from limner.models.adapters import lora_layers
from limner.models.clip_heads import PROJECTIONS, shape_of

if TYPE_CHECKING:
    from torch import nn

    from limner.models.clip import ClipModel


def trained_adapters(model: ClipModel, trainable: Trainable) -> dict[str, dict[str, LowRank]]:
    """Returns the trained updates by network and layer; empty where the method trains weights as they are."""
    if trainable.kind != "lora":
        return {}
    small = {name: value for name, value in trainable.params.items() if ".lora_" in name}
    return trained_layers(model, dataclasses.replace(trainable, params=small))


def put_trained_on(fresh: ClipModel, model: ClipModel, trainable: Trainable) -> None:
    """Makes a fresh base the trained model; adapters stay beside their layers, see :func:`merge_adapters`."""
    for part in PROJECTIONS:
        shape = shape_of(model.networks[part])
        if shape is not None and shape_of(fresh.networks[part]) is None:
            fresh.put_head(part, shape.head, dim=shape.dim, hidden=shape.hidden, seed=0)
            fresh.networks[part].requires_grad_(False).eval()
    adapters = trained_adapters(model, trainable)
    for part in trainable.parts:
        if part not in adapters:
            copy_weights(model.networks[part], fresh.networks[part])
    put_on(fresh, adapters)


def merge_adapters(model: ClipModel) -> None:
    """Adds the updates of adapters to the weights of their layers; no adapter is left."""
    for network in (model.network.vision_model, model.network.text_model):
        for path, layer in lora_layers(network).items():
            layer.merge()
            parent, _, name = path.rpartition(".")
            plain: nn.Module = layer.get_base_layer()
            setattr(network.get_submodule(parent), name, plain)

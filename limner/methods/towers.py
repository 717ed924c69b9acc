"""Training the weights of a CLIP model's towers: all of them, or the layers nearest to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.methods.trainable import Trainable
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from torch import nn

Layers = Literal["all", "none"] | Annotated[int, Field(ge=1, strict=True)]
_TOWERS = {"vision_model": "method.image", "text_encoder": "method.text"}
_LAYER = "encoder.layers."
_FINAL_NORMS = ("post_layernorm.", "final_layer_norm.")
_TABLES = ("embeddings.position_embedding.", "embeddings.token_embedding.")
_TEXT = ("text_encoder", "text_projection")
UNDECAYED = " undecayed"
"""Ends the name of a group that no weight decay pulls on."""


class Towers(Config):
    """The weights of a CLIP model's towers train.

    optimizer.weight_decay pulls on matrices and convolutions only: not on biases, norms and the temperature, as
    open_clip has it, and not on the embeddings of tokens and positions either.
    """

    kind: Literal["towers"] = "towers"
    image: Layers = "all"
    """Layers of the picture tower that train: all, none, or a number, the last so many.

    A number takes the final norm with it; embeddings of positions, patches and the class train only with all.
    """
    text: Layers = "all"
    """Layers of the text tower that train: all, none, or a number, as for image."""
    projections: bool = True
    """Train both projections, from the towers into the common space."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Layers far from the output learn slower (arXiv:2003.10555, arXiv:2106.08254): layer l of L by the factor
    layer_decay ** (L + 1 - l), where 0 are the embeddings and L + 1 are final norm and projection. 1 is none; often
    0.65 to 0.9."""
    temperature: bool = True
    """Train the factor of the similarities (logit_scale), up to objective.max_logit_scale."""
    text_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text side, tower and projection, as a multiple of optimizer.lr."""

    @model_validator(mode="after")
    def _something_trains(self) -> Towers:
        frozen = self.image == "none" and self.text == "none"
        if frozen and not self.projections:
            raise ValueError("image and text are none and projections is false, so nothing would train. Choose one.")
        if frozen and self.layer_decay != 1:
            raise ValueError("layer_decay does nothing where no layer of a tower trains. Leave it out.")
        if self.text == "none" and not self.projections and self.text_lr_scale != 1:
            raise ValueError("text_lr_scale does nothing where nothing of the text side trains. Leave it out.")
        return self

    def float32_parts(self, model: DualEncoder) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision: rounding would be where training begins."""
        towers = [part for part, layers in self._layers.items() if layers != "none"]
        return (*towers, *(("visual_projection", "text_projection") if self.projections else ()))

    def apply(self, model: DualEncoder, *, seed: int) -> Trainable:
        """Makes the chosen weights trainable. ``seed`` is not needed: nothing new is made."""
        import torch

        places = [
            place
            for part, network in model.networks.items()
            for place in _places(part, network, _depth(network), self._first(part, network))
        ]
        if any(place.parameter.dtype != torch.float32 for place in places):
            raise ValueError("a network is in half precision already, which has rounded its weights: see float32_parts")
        scales = {place.name: self._scale(place) for place in places}
        group_of: dict[str, str] = {}
        for place in sorted(places, key=lambda one: -scales[one.name]):  # so that the first group has the highest rate
            layer = "" if self.layer_decay == 1 else f".{place.layer}"
            group_of[place.name] = f"{place.part}{layer}{UNDECAYED if place.undecayed else ''}"
            place.parameter.requires_grad_(True)
        return Trainable(
            kind="towers",
            params={place.name: place.parameter for place in places},
            lr_scales={group: scales[name] for name, group in group_of.items()},
            group_of=group_of,
            undecayed=frozenset(group for group in group_of.values() if group.endswith(UNDECAYED)),
        )

    @property
    def _layers(self) -> dict[str, Layers]:
        return {"vision_model": self.image, "text_encoder": self.text}

    def _first(self, part: str, network: nn.Module) -> int | None:
        """Returns the lowest layer of a network that trains, 0 being the embeddings; None where nothing of it does."""
        if part not in _TOWERS:
            wanted = self.temperature if part == "temperature" else self.projections
            return 0 if wanted else None
        layers = self._layers[part]
        if layers == "all" or layers == "none":
            return 0 if layers == "all" else None
        depth = _depth(network)
        if layers >= depth:
            raise UserError(
                f"{layers} layers, but this tower has {depth - 1}.",
                where=_TOWERS[part],
                fix=f"Write a number up to {depth - 1}, or all, which takes the embeddings too.",
            )
        return depth - layers

    def _scale(self, place: _Place) -> float:
        return self.layer_decay**place.below * (self.text_lr_scale if place.part in _TEXT else 1.0)


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands in the model."""

    name: str
    part: str
    layer: str
    """embeddings, layers.0 and so on, or top."""
    below: int
    """Steps below the output."""
    undecayed: bool
    parameter: nn.Parameter


def _depth(network: nn.Module) -> int:
    """Returns the place of final norm and projection: one above the last layer; 1 for what has no layers."""
    layers = {name.split(".")[2] for name, _ in network.named_parameters() if name.startswith(_LAYER)}
    return len(layers) + 1


def _places(part: str, network: nn.Module, depth: int, first: int | None) -> list[_Place]:
    """Returns the parameters of a network from layer ``first`` on."""
    found = []
    for name, parameter in network.named_parameters():
        if part not in _TOWERS or name.startswith(_FINAL_NORMS):
            level, layer = depth, "top"
        elif name.startswith(_LAYER):
            number = int(name.split(".")[2])
            level, layer = number + 1, f"layers.{number}"
        else:
            level, layer = 0, "embeddings"
        if first is not None and (level >= first):
            undecayed = parameter.dim() < 2 or name.startswith(_TABLES)
            found.append(_Place(f"{part}.{name}", part, layer, depth - level, undecayed, parameter))
    return found

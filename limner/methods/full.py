"""Training a model's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from torch import nn


class Full(Config):
    """All the weights of the denoiser train, and those of the text encoder if asked for."""

    kind: Literal["full"] = "full"
    text_encoder: bool = False
    """Train the text encoder too."""
    text_encoder_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text encoder as a multiple of optimizer.lr."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision: rounding would be where training begins."""
        return tuple(model.full_parts(text_encoder=self.text_encoder))

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Makes the weights trainable. ``seed`` is not needed: nothing new is made."""
        parts = model.full_parts(text_encoder=self.text_encoder)
        params = {name: value for part, network in parts.items() for name, value in _unfreeze(network, part).items()}
        scales = {part: self.text_encoder_lr_scale for part in parts if part.startswith("text_encoder")}
        return Trainable(kind="full", params=params, lr_scales=scales)


def _unfreeze(network: nn.Module, part: str) -> dict[str, nn.Parameter]:
    import torch

    network.requires_grad_(True)
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        raise ValueError(f"{part} is in half precision already, which has rounded its weights: see float32_parts")
    return {f"{part}.{name}": parameter for name, parameter in network.named_parameters()}

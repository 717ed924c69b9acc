"""What a method hands to the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

ADAPTERS = ("lora", "loha", "lokr")
"""The kinds of method that train something small beside the layers of a model."""


@dataclass(frozen=True)
class Trainable:
    """The parameters to train, by name: ``unet.``, ``text_encoder.`` or ``vae.`` before the network's own name."""

    kind: Literal["lora", "loha", "lokr", "full", "autoencoder"]
    params: dict[str, nn.Parameter]
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factors of the learning rate by network (``text_encoder``); 1 where a network is not named."""
    waits: frozenset[str] = frozenset()
    """Parameters whose first gradient is zero by construction: LoRA's A, as long as its B is zero."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks that train, ``unet`` first."""
        return tuple(sorted({name.partition(".")[0] for name in self.params}, key=lambda part: (part != "unet", part)))

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder trains, so that its states must not be kept."""
        return any(part.startswith("text_encoder") for part in self.parts)

    def count(self) -> int:
        """Returns the number of trained numbers."""
        return sum(parameter.numel() for parameter in self.params.values())

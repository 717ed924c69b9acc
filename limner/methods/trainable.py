"""What a method hands to the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

ADAPTERS = ("lora", "loha", "lokr", "pivotal")
"""The kinds of method that train something small beside the layers of a model."""


PLACEHOLDER = "placeholder"
"""The group of a new word's vectors, in ``lr_scales`` and ``groups``; no network has this name."""


@dataclass(frozen=True)
class Placeholder:
    """A new word that trains."""

    token: str
    vectors: tuple[str, ...]
    """The names of its vectors among the parameters, in their order."""


@dataclass(frozen=True)
class Trainable:
    """The parameters to train, by name: ``unet.``, ``text_encoder.`` or ``vae.`` before the network's own name."""

    kind: Literal["lora", "loha", "lokr", "full", "textual_inversion", "pivotal", "autoencoder"]
    params: dict[str, nn.Parameter]
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factors of the learning rate by group: a network (``text_encoder``) or ``placeholder``; 1 where not named."""
    waits: frozenset[str] = frozenset()
    """Parameters whose first gradient is zero by construction: LoRA's A, as long as its B is zero."""
    placeholder: Placeholder | None = None
    """The new word, where one trains."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks that train, ``unet`` first."""
        return tuple(sorted({name.partition(".")[0] for name in self.params}, key=lambda part: (part != "unet", part)))

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that share a learning rate: those of each network, and last the vectors of a new word."""
        own = self.placeholder.vectors if self.placeholder is not None else ()
        groups = {
            part: [p for name, p in self.params.items() if name.startswith(f"{part}.") and name not in own]
            for part in self.parts
        }
        groups[PLACEHOLDER] = [self.params[name] for name in own]
        return {name: members for name, members in groups.items() if members}

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder trains, so that its states must not be kept."""
        return any(part.startswith("text_encoder") for part in self.parts)

    def count(self) -> int:
        """Returns the number of trained numbers."""
        return sum(parameter.numel() for parameter in self.params.values())

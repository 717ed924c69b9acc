"""What a method hands to the loop."""

from __future__ import annotations

from collections.abc import Mapping
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

    kind: Literal[
        "lora", "loha", "lokr", "full", "textual_inversion", "pivotal", "autoencoder", "towers", "heads"
    ]  # fmt: skip
    params: dict[str, nn.Parameter]
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factors of the learning rate by group: a network (``text_encoder``), ``placeholder``, or one of ``group_of``; 1
    where not named."""
    waits: frozenset[str] = frozenset()
    """Parameters whose first gradient is zero by construction: LoRA's A, as long as its B is zero."""
    placeholder: Placeholder | None = None
    """The new word, where one trains."""
    group_of: Mapping[str, str] = field(default_factory=dict)
    """The group of a parameter that has another one than its network: that of its layer, say. Checkpoints keep the
    names."""
    undecayed: frozenset[str] = frozenset({PLACEHOLDER})
    """The groups that no weight decay pulls towards 0."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks that train, ``unet`` first."""
        return tuple(sorted({name.partition(".")[0] for name in self.params}, key=lambda part: (part != "unet", part)))

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that share a learning rate: those of each network, and last the vectors of a new word.

        The groups of ``group_of`` come first, in its order.
        """
        vectors = self.placeholder.vectors if self.placeholder is not None else ()
        own = {**self.group_of, **dict.fromkeys(vectors, PLACEHOLDER)}
        groups: dict[str, list[nn.Parameter]] = {
            name: [] for name in (*self.group_of.values(), *self.parts, PLACEHOLDER)
        }
        for name, parameter in self.params.items():
            groups[own.get(name, name.partition(".")[0])].append(parameter)
        return {name: members for name, members in groups.items() if members}

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder trains, so that its states must not be kept."""
        return any(part.startswith("text_encoder") for part in self.parts)

    def count(self) -> int:
        """Returns the number of trained numbers."""
        return sum(parameter.numel() for parameter in self.params.values())

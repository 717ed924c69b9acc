"""New projection heads on the frozen towers of a CLIP model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.methods.towers import UNDECAYED
from limner.methods.trainable import Trainable
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from torch import nn

Head = Literal["linear", "mlp", "residual", "none"]
_NEW = ("linear", "mlp")


class Heads(Config):
    """New heads train on frozen towers, whose outputs are kept: an epoch after the first costs next to nothing.

    They are kept for each picture, crop and flip, so few of these; cache.latents and cache.captions switch it off.
    optimizer.weight_decay pulls on matrices only, not on biases and the temperature.
    """

    kind: Literal["heads"] = "heads"
    image: Head = "residual"
    """The head of the picture side. linear: a new projection. mlp: two layers with a GELU between them. residual: the
    model's own projection z plus an mlp of it, which begins as exactly z. none: the model's own, as it is."""
    text: Head = "residual"
    """The head of the text side, likewise."""
    dim: int | None = Field(default=None, ge=1, le=65_536)
    """Numbers of an embedding. Unset: as the model has. Another one needs a linear or mlp head on both sides."""
    hidden: int | None = Field(default=None, ge=1, le=65_536)
    """Width between the two layers of mlp and residual. Unset: as wide as what the first of them reads."""
    temperature: bool = True
    """Train the factor of the similarities (logit_scale), up to objective.max_logit_scale."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Heads:
        kinds = (self.image, self.text)
        if kinds == ("none", "none"):
            raise ValueError("image and text are none, so no head would train. Choose one.")
        if self.dim is not None and not set(kinds) <= set(_NEW):
            raise ValueError(
                "dim needs linear or mlp on both sides: residual and none keep the model's own. Leave it out."
            )
        if self.hidden is not None and not set(kinds) & {"mlp", "residual"}:
            raise ValueError("hidden does nothing without an mlp or residual head. Leave it out.")
        return self

    @property
    def _chosen(self) -> dict[str, Literal["linear", "mlp", "residual"]]:
        sides = {"visual_projection": self.image, "text_projection": self.text}
        return {part: head for part, head in sides.items() if head != "none"}

    def float32_parts(self, model: DualEncoder) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision."""
        return tuple(self._chosen)

    def apply(self, model: DualEncoder, *, seed: int) -> Trainable:
        """Puts the heads on the towers; ``seed`` decides their first values."""
        params: dict[str, nn.Parameter] = {}
        waits: set[str] = set()
        for part, head in self._chosen.items():
            dim = self.dim or model.networks[part].state_dict()["weight"].shape[0]
            model.put_head(part, head, dim=dim, hidden=self.hidden, seed=seed)
            new = {f"{part}.{name}": value for name, value in model.networks[part].named_parameters()}
            params |= new
            if head == "residual":
                waits |= {name for name in new if ".inner." in name}
        if self.temperature:
            model.logit_scale.requires_grad_(True)
            params["temperature.logit_scale"] = model.logit_scale
        group_of = {
            name: f"{name.partition('.')[0]}{UNDECAYED if value.dim() < 2 else ''}" for name, value in params.items()
        }
        return Trainable(
            kind="heads",
            params=params,
            waits=frozenset(waits),
            group_of=group_of,
            undecayed=frozenset(group for group in group_of.values() if group.endswith(UNDECAYED)),
        )

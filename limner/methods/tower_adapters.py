"""LoRA in the towers of a CLIP model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.methods.adapters import add_adapter, refuse_unmatched
from limner.methods.trainable import PLACEHOLDER, Trainable
from limner.models.protocol import Trained

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

_PROJECTIONS = ("visual_projection", "text_projection")


class TowerAdapters(Config):
    """Where the adapters go in a CLIP model, and what trains whole beside them."""

    image: bool = True
    """Give the picture tower an adapter."""
    text: bool = True
    """Give the text tower an adapter."""
    targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "out_proj"), min_length=1)
    """Layers that get an adapter, by the end of their names; fc1 and fc2 are those between the attention layers."""
    projections: bool = False
    """Train both projections too, whole."""
    temperature: bool = False
    """Train the factor of the similarities (logit_scale) too. Export peft has no place for it; transformers has."""
    text_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text side, tower and projection, as a multiple of optimizer.lr."""

    @model_validator(mode="after")
    def _one_tower_at_least(self) -> TowerAdapters:
        if not self.image and not self.text:
            raise ValueError("image and text are false, so no tower would get an adapter. Choose one.")
        if not self.text and not self.projections and self.text_lr_scale != 1:
            raise ValueError("text_lr_scale does nothing where nothing of the text side trains. Leave it out.")
        return self

    @property
    def float32_parts(self) -> tuple[str, ...]:
        """The networks that train whole, so that they must not be put into half precision."""
        return _PROJECTIONS if self.projections else ()

    def apply(self, model: Trained, make_config: Callable[[list[str]], PeftConfig], *, seed: int) -> Trainable:
        """Adds the adapters, float32; ``seed`` decides their first values."""
        parts = [part for part, wanted in (("vision_model", self.image), ("text_encoder", self.text)) if wanted]
        params: dict[str, nn.Parameter] = {}
        for part in parts:
            refuse_unmatched(model.networks[part], self.targets, "method.towers.targets")
        for part in parts:
            params |= add_adapter(model.networks[part], part, make_config(list(self.targets)), seed)
        waits = frozenset(name for name in params if ".lora_A." in name)
        for part in (*self.float32_parts, *(("temperature",) if self.temperature else ())):
            network = model.networks[part].requires_grad_(True)
            params |= {f"{part}.{name}": parameter for name, parameter in network.named_parameters()}
        return Trainable(
            kind="lora",
            params=params,
            lr_scales=dict.fromkeys(("text_encoder", "text_projection"), self.text_lr_scale),
            waits=waits,
            undecayed=frozenset({PLACEHOLDER, "temperature"}),
        )

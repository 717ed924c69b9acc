"""Low-rank adapters (LoRA, arXiv:2106.09685; DoRA, arXiv:2402.09353) through PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.methods.adapters import add_adapters, check_targets
from limner.methods.tower_adapters import TowerAdapters
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


class Lora(Config):
    """Small matrices beside the attention layers train; the model's own weights stay as they are."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=4, ge=1, le=1024)
    """Width of the small matrices: more rank, more capacity and a larger file."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank. Unset: alpha = rank, a scale of 1."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability with which an input of the adapter is zeroed while training."""
    dora: bool = False
    """Train direction and magnitude apart (DoRA): closer to full fine-tuning, slower."""
    targets: tuple[str, ...] = Field(default=("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Layers of the denoiser that get an adapter, by the end of their names.

    Attention: to_q, to_k, to_v, to_out.0. Around it: proj_in, proj_out, ff.net.0.proj, ff.net.2. Convolutions (LoCon):
    conv1, conv2, conv_shortcut, conv (of down- and upsamplers), conv_in, conv_out. Time: time_emb_proj.
    """
    text_encoder: bool = False
    """Give the text encoder an adapter too."""
    text_encoder_targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "out_proj"), min_length=1)
    """Layers of the text encoder that get an adapter, by the end of their names."""
    text_encoder_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text encoder as a multiple of optimizer.lr."""
    towers: TowerAdapters | None = None
    """For a CLIP model, and for no other: where the adapters go in it; {} puts them into both towers."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision; the adapters have their own format."""
        return () if self.towers is None else self.towers.float32_parts

    def check_targets(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises UserError for a target that matches no layer of the named ``networks``; these need no weights."""
        check_targets(networks, self.targets, self._text_targets)

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Adds the adapters, float32, to the model; ``seed`` decides their first values."""
        if self.towers is not None:
            return self.towers.apply(model, self._peft_config, seed=seed)
        params = add_adapters(
            model, self._peft_config, targets=self.targets, text_encoder_targets=self._text_targets, seed=seed
        )
        return Trainable(
            kind="lora",
            params=params,
            lr_scales=dict.fromkeys(model.text_encoders, self.text_encoder_lr_scale),
            waits=frozenset(name for name in params if ".lora_A." in name),
        )

    @property
    def _text_targets(self) -> tuple[str, ...] | None:
        return self.text_encoder_targets if self.text_encoder else None

    def _peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            use_dora=self.dora,
            target_modules=targets,
        )

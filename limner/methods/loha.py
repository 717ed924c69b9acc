"""LoHa: adapters of two low-rank products (FedPara, arXiv:2108.06098; LyCORIS, arXiv:2309.14859) through PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.methods.adapters import add_adapters, check_targets
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


class Loha(Config):
    """Two products of small matrices, multiplied number by number, train beside the layers: up to rank squared.

    PEFT's ``use_effective_conv2d`` is not offered: the gradients of two of its six tensors are wrong in PEFT 0.21.
    """

    kind: Literal["loha"] = "loha"
    rank: int = Field(default=4, ge=1, le=1024)
    """Width of the small matrices; the update has up to this rank squared, and twice the numbers of a LoRA."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank. Unset: alpha = rank, a scale of 1."""
    targets: tuple[str, ...] = Field(default=("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Layers of the denoiser that get an adapter, by the end of their names; convolutions too, as for lora."""
    text_encoder: bool = False
    """Give the text encoder an adapter too."""
    text_encoder_targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "out_proj"), min_length=1)
    """Layers of the text encoder that get an adapter, by the end of their names."""
    text_encoder_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text encoder as a multiple of optimizer.lr."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision: none, the adapters have their own format."""
        return ()

    def check_targets(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises UserError for a target that matches no layer of the named ``networks``; these need no weights."""
        check_targets(networks, self.targets, self._text_targets)

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Adds the adapters, float32, to the model; ``seed`` decides their first values.

        One of the four matrices, w2_b, begins at zero, so the other three have no gradient before it has moved.
        """
        params = add_adapters(
            model, self._peft_config, targets=self.targets, text_encoder_targets=self._text_targets, seed=seed
        )
        return Trainable(
            kind="loha",
            params=params,
            lr_scales=dict.fromkeys(model.text_encoders, self.text_encoder_lr_scale),
            waits=frozenset(name for name in params if ".hada_w2_b." not in name),
        )

    @property
    def _text_targets(self) -> tuple[str, ...] | None:
        return self.text_encoder_targets if self.text_encoder else None

    def _peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import LoHaConfig

        alpha = self.rank if self.alpha is None else self.alpha
        return LoHaConfig(r=self.rank, alpha=alpha, target_modules=targets)

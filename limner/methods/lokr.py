"""LoKr: adapters that are Kronecker products (KronA, arXiv:2212.10650; LyCORIS, arXiv:2309.14859) through PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.methods.adapters import add_adapters, check_targets
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

_NEAR_THE_SQUARE_ROOT = -1  # PEFT's sign for it


class Lokr(Config):
    """Kronecker products of a small and a larger matrix train beside the layers: the smallest files."""

    kind: Literal["lokr"] = "lokr"
    rank: int = Field(default=4, ge=1, le=100_000)
    """Width into which the larger matrix is split, where it is more than twice as wide; else it stays whole."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank. Unset: alpha = rank, a scale of 1."""
    decompose_factor: int | None = Field(default=None, ge=2)
    """Side of the small matrix, often 4 to 16: less gives a larger file. Unset: near the square root of the layer's."""
    decompose_both: bool = False
    """Split the small matrix into two of width ``rank`` as well, where it is more than twice as wide."""
    use_effective_conv2d: bool = False
    """Split the larger matrix of convolutions wider than 1x1 into three (Tucker, arXiv:2108.06098 proposition 3)."""
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

        The small matrix (or its first half) begins at zero, so nothing else has a gradient before it has moved.
        """
        params = add_adapters(
            model, self._peft_config, targets=self.targets, text_encoder_targets=self._text_targets, seed=seed
        )
        self._refuse_idle_options(params)
        return Trainable(
            kind="lokr",
            params=params,
            lr_scales=dict.fromkeys(model.text_encoders, self.text_encoder_lr_scale),
            waits=frozenset(name for name in params if ".lokr_w1." not in name and ".lokr_w1_a." not in name),
        )

    def _refuse_idle_options(self, params: Mapping[str, nn.Parameter]) -> None:
        """An option that splits nothing is a misunderstanding: the user thinks that the file gets smaller."""
        splits = {"decompose_both": (self.decompose_both, ".lokr_w1_a.")}
        splits["use_effective_conv2d"] = (self.use_effective_conv2d, ".lokr_t2.")
        for option, (wanted, mark) in splits.items():
            if wanted and not any(mark in name for name in params):
                raise UserError(
                    f"splits no matrix of these layers at rank {self.rank}.",
                    where=f"method.{option}",
                    fix="Leave it out, lower method.rank, or name other layers in method.targets.",
                )

    @property
    def _text_targets(self) -> tuple[str, ...] | None:
        return self.text_encoder_targets if self.text_encoder else None

    def _peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import LoKrConfig

        return LoKrConfig(
            r=self.rank,
            alpha=self.rank if self.alpha is None else self.alpha,
            decompose_factor=self.decompose_factor or _NEAR_THE_SQUARE_ROOT,
            decompose_both=self.decompose_both,
            use_effective_conv2d=self.use_effective_conv2d,
            target_modules=targets,
        )

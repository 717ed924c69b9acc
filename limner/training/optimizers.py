"""The optimizers that can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import UserError

if TYPE_CHECKING:
    import torch

Share = Annotated[float, Field(ge=0, lt=1)]
ParamGroups = Sequence[dict[str, Any]]
"""What torch's optimizers take: dicts with ``params`` and ``lr``, and ``weight_decay`` where it is not the config's.

A config's ``slow_start`` is the number of steps for which its updates may be too small for float32."""


class AdamW(Config):
    """AdamW (arXiv:1711.05101), PyTorch's fused kernel."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate. For LoRA often 1e-4, for a full model 1e-5."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Decoupled weight decay."""
    slow_start: ClassVar[int] = 0

    def build(self, groups: ParamGroups) -> torch.optim.Optimizer:
        """Returns the optimizer; each group brings its own ``lr``."""
        import torch

        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )
        return optimizer


class AdamW8bit(Config):
    """AdamW with 8-bit states (arXiv:2110.02861) by bitsandbytes: a quarter of the memory. Extra: limner[gpu]."""

    kind: Literal["adamw8bit"] = "adamw8bit"
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate, as for adamw."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Decoupled weight decay."""
    slow_start: ClassVar[int] = 0

    def build(self, groups: ParamGroups) -> torch.optim.Optimizer:
        """Returns the optimizer; states of tensors under 4,096 numbers stay in 32 bit, as bitsandbytes does."""
        try:
            import bitsandbytes
        except ImportError:
            raise _missing("bitsandbytes", "adamw8bit", "gpu") from None
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
            groups, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
        return optimizer


class Adafactor(Config):
    """Adafactor (arXiv:1804.04235), PyTorch's: the second moment is kept as two vectors."""

    kind: Literal["adafactor"] = "adafactor"
    lr: float = Field(default=1e-3, gt=0)
    """Largest relative step."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    slow_start: ClassVar[int] = 0

    def build(self, groups: ParamGroups) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        import torch

        optimizer: torch.optim.Optimizer = torch.optim.Adafactor(groups, weight_decay=self.weight_decay)
        return optimizer


class Prodigy(Config):
    """Prodigy (arXiv:2306.06101), which finds its own learning rate. Extra: limner[optimizers]."""

    kind: Literal["prodigy"] = "prodigy"
    lr: float = Field(default=1.0, gt=0)
    """Factor of the rate that Prodigy finds; leave it at 1."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Decoupled weight decay."""
    safeguard_warmup: bool = True
    """Keep the warm-up from spoiling the estimate."""
    slow_start: ClassVar[int] = 100  # it begins with a rate of 1e-6 and raises it within some dozens of steps

    @model_validator(mode="after")
    def _lr_is_a_factor(self) -> Prodigy:
        if self.lr < 0.1:
            raise ValueError(
                f"optimizer.lr is {self.lr}, but Prodigy's lr is a factor near 1, no learning rate. Leave it out."
            )
        return self

    def build(self, groups: ParamGroups) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        try:
            import prodigyopt
        except ImportError:
            raise _missing("prodigyopt", "prodigy", "optimizers") from None
        optimizer: torch.optim.Optimizer = prodigyopt.Prodigy(
            groups, weight_decay=self.weight_decay, safeguard_warmup=self.safeguard_warmup, use_bias_correction=True
        )
        return optimizer


class Muon(Config):
    """Muon (arXiv:2502.16982) for matrices and convolutions, AdamW for the rest: fewer steps from random weights."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate, of the size that AdamW would get."""
    momentum: Share = 0.95
    """Decay of the running mean of a matrix's gradient."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """For vectors: decay of the running means of the gradient and of its square."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Decoupled weight decay."""
    slow_start: ClassVar[int] = 0

    def build(self, groups: ParamGroups) -> torch.optim.Optimizer:
        """Returns the optimizer; each group brings its own ``lr``."""
        from limner.training.muon import make_muon

        return make_muon(groups, momentum=self.momentum, betas=self.betas, weight_decay=self.weight_decay)


OptimizerConfig = Annotated[AdamW | AdamW8bit | Adafactor | Prodigy | Muon, Field(discriminator="kind")]


def _missing(package: str, kind: str, extra: str) -> UserError:
    return UserError(
        f"{kind!r} needs the package {package}, which is not installed.",
        where="optimizer.kind",
        fix=f'Install it with pip install "limner[{extra}]", or set optimizer.kind: adamw.',
    )

"""Which number formats a run computes in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from limner.core.errors import UserError

if TYPE_CHECKING:
    import torch

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """A device with a format: ``fp32``, ``bf16``, or ``fp16`` with a gradient scaler."""

    name: Literal["fp32", "bf16", "fp16"]
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The format of frozen weights and of the networks' arithmetic; trained weights are always float32."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which the networks run."""
        import torch

        if self.name == "fp32":
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.device.type, dtype=self.dtype)
        return context

    def scaler(self) -> torch.amp.GradScaler | None:
        """Returns the gradient scaler that fp16 needs, since small gradients underflow; None otherwise."""
        import torch

        return torch.amp.GradScaler(self.device.type) if self.name == "fp16" else None


def choose_device(name: str) -> torch.device:
    """Returns the device called ``name``; ``auto`` is the first of CUDA, MPS, CPU that is there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in available:
        raise UserError(f"{name!r} is no device.", where="device", fix="Use auto, cpu, cuda or mps.")
    if not available[name]:
        raise UserError(
            f"{name!r} was asked for, but PyTorch {torch.__version__} sees no such device.",
            where="train.device",
            fix="Install PyTorch's build for it, or set train.device: auto.",
        )
    return torch.device(name)


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Returns the precision; ``auto`` is bf16 where the GPU computes in it, fp16 on older GPUs, fp32 elsewhere."""
    import torch

    if name == "auto":
        if device.type != "cuda":
            return Precision("fp32", device)
        return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16", device)
    return Precision(name, device)

"""From micro-batches to gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError
from limner.data.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

Backward = Callable[[Sequence[Batch]], dict[str, "Tensor"]]
"""Adds the gradient of a whole batch, given as micro-batches, to ``.grad``; returns metrics, ``loss`` among them."""


def accumulate(per_example: Callable[[Batch], Tensor], scale: Callable[[Tensor], Tensor]) -> Backward:
    """Returns a Backward for losses that are means over examples.

    ``per_example`` gives [B] float32. The sum of each micro-batch is divided by the size of the whole batch, so any
    split gives the gradient of the whole. ``scale`` is the gradient scaler's, or the identity.
    """

    def backward(micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        import torch

        count = sum(len(batch) for batch in micro_batches)
        total = torch.zeros((), dtype=torch.float32)
        for batch in micro_batches:
            losses = per_example(batch)
            _refuse_non_finite(losses, batch)
            loss = losses.sum() / count
            scale(loss).backward()
            total = total.to(loss.device) + loss.detach()
        return {"loss": total}

    return backward


def _refuse_non_finite(losses: Tensor, batch: Batch) -> None:
    finite = losses.detach().isfinite().tolist()
    bad = [
        f"{name} ({caption!r})" for name, caption, ok in zip(batch.ids, batch.captions, finite, strict=True) if not ok
    ]
    if bad:
        raise NonFiniteError(
            f"the loss of {', '.join(bad)} is not a finite number; the weights were not updated.",
            fix="Lower optimizer.lr, use train.precision: bf16 or fp32, and look at these pictures. "
            "The last checkpoint is whole: continue from it with --resume.",
        )

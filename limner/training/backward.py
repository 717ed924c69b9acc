"""From micro-batches to gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError
from limner.data.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = (
    "Look at these pictures; then start again with another out=... and a lower optimizer.lr, or with train.precision: "
    "bf16 or fp32. The checkpoints that were written stay."
)
Backward = Callable[[Sequence[Batch]], dict[str, float]]
"""Adds the gradient of a whole batch, given as micro-batches, to ``.grad``; returns metrics, ``loss`` among them."""


def accumulate(per_example: Callable[[Batch], Tensor], scale: Callable[[Tensor], Tensor]) -> Backward:
    """Returns a Backward for losses that are means over examples.

    ``per_example`` gives [B] float32. The sum of each micro-batch is divided by the size of the whole batch, so any
    split gives the gradient of the whole. ``scale`` is the gradient scaler's, or the identity. Raises
    :class:`NonFiniteError` that names the pictures; the losses are read once per step, since that waits for the GPU.
    """

    def backward(micro_batches: Sequence[Batch]) -> dict[str, float]:
        import torch

        count = sum(len(batch) for batch in micro_batches)
        losses = []
        for batch in micro_batches:
            each = per_example(batch)
            scale(each.sum() / count).backward()
            losses.append(each.detach())
        values: list[float] = torch.cat(losses).tolist()
        _refuse_non_finite(values, micro_batches)
        return {"loss": sum(values) / count}

    return backward


def _refuse_non_finite(losses: Sequence[float], micro_batches: Sequence[Batch]) -> None:
    visits = [visit for batch in micro_batches for visit in zip(batch.ids, batch.captions, strict=True)]
    pairs = zip(visits, losses, strict=True)
    bad = [f"{name} ({caption!r})" for (name, caption), loss in pairs if not math.isfinite(loss)]
    if bad:
        raise NonFiniteError(
            f"the loss of {', '.join(bad)} is not a finite number; the weights were not updated.",
            fix=REMEDY,
        )

"""From micro-batches to gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError
from limner.data.batch import Batch
from limner.data.example import Role

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = (
    "Look at these pictures; then start again with another out=... and a lower optimizer.lr, or with train.precision: "
    "bf16 or fp32. The checkpoints that were written stay."
)
LOSS_OF_ROLE: dict[Role, str] = {"instance": "loss_subject", "class": "loss_class"}
Backward = Callable[[Sequence[Batch]], dict[str, float]]
"""Adds the gradient of a whole batch, given as micro-batches, to ``.grad``; returns metrics, ``loss`` among them."""


PerExample = Callable[[Batch], "Tensor"]
"""The loss of each example of a micro-batch, [B] float32."""


def accumulate(per_example: PerExample, scale: Callable[[Tensor], Tensor]) -> Backward:
    """Returns a Backward for a loss that is a mean over examples: :func:`accumulate_terms` of one term."""
    return accumulate_terms({"": per_example}, scale)


def accumulate_terms(terms: Mapping[str, PerExample], scale: Callable[[Tensor], Tensor]) -> Backward:
    """Returns a Backward for the sum of ``terms``, each of them a mean over examples.

    Terms go back one after the other: a second one takes time, and memory only for its own way. The sum of each
    micro-batch is divided by the size of the whole batch, so any split gives the gradient of the whole. ``scale`` is
    the gradient scaler's, or the identity. Raises :class:`NonFiniteError` that names the pictures; the losses are read
    once per step, since that waits for the GPU.
    """

    def backward(micro_batches: Sequence[Batch]) -> dict[str, float]:
        import torch

        count = sum(len(batch) for batch in micro_batches)
        losses: dict[str, list[Tensor]] = {name: [] for name in terms}
        for batch in micro_batches:
            for name, per_example in terms.items():
                each = per_example(batch)
                scale(each.sum() / count).backward()
                losses[name].append(each.detach())
        values: dict[str, list[float]] = {name: torch.cat(parts).tolist() for name, parts in losses.items()}
        for each_value in values.values():
            _refuse_non_finite(each_value, micro_batches)
        return _metrics(values, [role for batch in micro_batches for role in batch.roles])

    return backward


def _metrics(values: Mapping[str, Sequence[float]], roles: Sequence[Role]) -> dict[str, float]:
    """Returns the mean loss; where there are several, the terms that it is the sum of; and the first one by role."""
    means = {name: sum(losses) / len(losses) for name, losses in values.items()}
    metrics = {"loss": sum(means.values())}
    if len(means) > 1:
        metrics |= {f"loss_{name}": mean for name, mean in means.items()}
    first = next(iter(values.values()))
    for role in dict.fromkeys(roles):
        group = [loss for loss, its_role in zip(first, roles, strict=True) if its_role == role]
        metrics[LOSS_OF_ROLE[role]] = sum(group) / len(group)
    return metrics


def _refuse_non_finite(losses: Sequence[float], micro_batches: Sequence[Batch]) -> None:
    visits = [visit for batch in micro_batches for visit in zip(batch.ids, batch.captions, strict=True)]
    pairs = zip(visits, losses, strict=True)
    bad = [f"{name} ({caption!r})" for (name, caption), loss in pairs if not math.isfinite(loss)]
    if bad:
        raise NonFiniteError(
            f"the loss of {', '.join(bad)} is not a finite number; the weights were not updated.",
            fix=REMEDY,
        )

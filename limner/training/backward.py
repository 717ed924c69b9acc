"""From micro-batches to gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError
from limner.data.batch import Batch
from limner.data.example import Role

if TYPE_CHECKING:
    import torch
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


def grad_cache(
    embed: Callable[[Batch], tuple[Tensor, ...]],
    losses: Callable[[Sequence[Tensor]], Tensor],
    scale: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    name: str,
    terms: Mapping[str, PerExample] | None = None,
) -> Backward:
    """Returns a Backward for a loss that compares all examples of a batch: GradCache (arXiv:2101.06983, sec. 3.2).

    ``embed`` gives what is compared of a micro-batch, tensors [b, D]; ``losses`` takes them for the whole batch and
    gives the loss of each example, [B]. Embeddings are computed without a graph first; then the gradient of the loss
    with respect to them; then each micro-batch again, with the random numbers that it had, and the gradient goes on
    through it. So memory is that of one micro-batch, and the gradient that of the whole batch. A batch in one piece is
    computed once. ``terms`` are means over examples that are added, as in :func:`accumulate_terms`, and ``name`` is
    what the loss is called beside them.
    """

    def backward(micro_batches: Sequence[Batch]) -> dict[str, float]:
        import torch

        count = sum(len(batch) for batch in micro_batches)
        if len(micro_batches) == 1:
            each = losses(embed(micro_batches[0]))
            scale(each.sum() / count).backward()
        else:
            states, parts = [], []
            for batch in micro_batches:
                states.append(_random_states(device))
                with torch.no_grad():
                    parts.append(embed(batch))
            whole = [torch.cat(pieces).requires_grad_() for pieces in zip(*parts, strict=True)]
            each = losses(whole)
            scale(each.sum() / count).backward()
            sizes = [len(batch) for batch in micro_batches]
            gradients = zip(*(_gradient(tensor).split(sizes) for tensor in whole), strict=True)
            for batch, state, wanted in zip(micro_batches, states, gradients, strict=True):
                _set_random_states(state, device)
                pairs = [pair for pair in zip(embed(batch), wanted, strict=True) if pair[0].requires_grad]
                torch.autograd.backward([found for found, _ in pairs], [gradient for _, gradient in pairs])
        found = {name: each.detach()}
        for term, per_example in (terms or {}).items():
            values = []
            for batch in micro_batches:
                loss = per_example(batch)
                scale(loss.sum() / count).backward()
                values.append(loss.detach())
            found[term] = torch.cat(values)
        told: dict[str, list[float]] = {term: value.tolist() for term, value in found.items()}
        for each_value in told.values():
            _refuse_non_finite(each_value, micro_batches)
        return _metrics(told, [role for batch in micro_batches for role in batch.roles])

    return backward


def _gradient(tensor: Tensor) -> Tensor:
    if tensor.grad is None:
        raise ValueError("the loss does not depend on one of the embeddings")
    return tensor.grad


def _random_states(device: torch.device) -> list[Tensor]:
    """Returns where PyTorch's random streams stand: that of the CPU, and that of ``device`` if it is another."""
    import torch

    streams = {"cuda": torch.cuda.get_rng_state, "mps": lambda _: torch.mps.get_rng_state()}
    own = [streams[device.type](device)] if device.type in streams else []
    return [torch.get_rng_state(), *own]


def _set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    import torch

    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])


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

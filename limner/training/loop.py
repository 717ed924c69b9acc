"""The loop: a generator that yields a report after every optimizer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError, UserError
from limner.core.rng import example_seed
from limner.data.batch import Batch
from limner.training.backward import REMEDY, Backward
from limner.training.ema import Ema

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAX_SKIPPED = 30
"""Steps in a row that fp16's scaler may skip: it halves its scale each time, from 65,536 down to nothing."""


@dataclass
class TrainState:
    """Everything that changes while training; a checkpoint holds exactly this."""

    params: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    base_lrs: tuple[float, ...]
    """The learning rate of each parameter group before the schedule."""
    ema: Ema | None
    scaler: torch.amp.GradScaler | None
    step: int = 0
    """Optimizer steps taken."""
    skipped: int = 0
    """Steps in a row that the scaler skipped because of an overflow."""
    proved: bool = False
    """Every trained tensor has been seen to learn; near the end of a schedule updates may be too small to see it."""


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    step: int
    """Steps taken so far, this one included."""
    loss: float
    lr: float
    grad_norm: float
    """Norm of the gradient before clipping."""
    seconds: float
    images: int
    skipped: bool
    """fp16 only: the gradient overflowed, the scale was lowered and no weight moved."""
    parts: dict[str, float] = field(default_factory=dict)
    """What else the objective tells of the loss: its terms, or its mean over the subject and over the class."""

    def as_line(self) -> dict[str, float | int | bool]:
        """Returns the line of metrics.jsonl."""
        line = {
            "step": self.step,
            "loss": self.loss,
            **self.parts,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "seconds": round(self.seconds, 4),
            "images_per_second": round(self.images / self.seconds, 3),
        }
        return {**line, "skipped": True, "grad_norm": -1.0} if self.skipped else line


def train(
    state: TrainState,
    backward: Backward,
    batches: Callable[[int], Sequence[Batch]],
    factor: Callable[[int], float],
    *,
    steps: int,
    max_grad_norm: float,
    seed: int,
) -> Iterator[StepReport]:
    """Takes steps until ``steps`` are taken, yielding a report after each; whoever iterates decides what else happens.

    ``batches(step)`` gives the micro-batches of a step, ``factor(step)`` that of the learning rate. Raises
    :class:`NonFiniteError` before an update that would not be finite.
    """
    import torch

    while state.step < steps:
        started = time.perf_counter()
        torch.manual_seed(example_seed(seed, state.step, "networks"))  # dropout inside the networks
        micro_batches = batches(state.step)
        for group, base_lr in zip(state.optimizer.param_groups, state.base_lrs, strict=True):
            group["lr"] = base_lr * factor(state.step)
        state.optimizer.zero_grad(set_to_none=True)
        try:
            metrics = backward(micro_batches)
        except torch.OutOfMemoryError:
            raise UserError(
                f"step {state.step + 1}: the device has not enough memory for {max(map(len, micro_batches))} pictures "
                "at once.",
                where="train.micro_batch_size",
                fix="Lower it (the result stays the same), or set train.gradient_checkpointing: true.",
            ) from None
        except NonFiniteError as error:
            raise NonFiniteError(f"step {state.step + 1}: {error.what}", where=error.where, fix=error.fix) from None
        if state.scaler is not None:
            state.scaler.unscale_(state.optimizer)
        norm = _clip(state.params, max_grad_norm)
        skipped = _update(state, norm, micro_batches)
        yield StepReport(
            step=state.step,
            loss=metrics["loss"],
            lr=state.optimizer.param_groups[0]["lr"],
            grad_norm=norm,
            seconds=time.perf_counter() - started,
            images=sum(len(batch) for batch in micro_batches),
            skipped=skipped,
            parts={name: value for name, value in metrics.items() if name != "loss"},
        )


def _clip(params: dict[str, nn.Parameter], max_grad_norm: float) -> float:
    """Scales the gradients down to ``max_grad_norm`` (0: not at all); returns their norm before."""
    import torch

    grads = [parameter.grad for parameter in params.values() if parameter.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm(grads)
    if max_grad_norm > 0 and bool(norm.isfinite()):
        torch.nn.utils.clip_grads_with_norm_(params.values(), max_grad_norm, norm)
    return float(norm)


def _update(state: TrainState, norm: float, micro_batches: Sequence[Batch]) -> bool:
    """Updates the weights, or lets fp16's scaler lower its scale; returns whether the update was skipped."""
    finite = math.isfinite(norm)
    if not finite and (state.scaler is None or state.skipped >= MAX_SKIPPED):
        names = ", ".join(name for batch in micro_batches for name in batch.ids)
        raise NonFiniteError(
            f"step {state.step + 1}: the gradient is not finite (pictures: {names}); the weights were not updated.",
            fix=REMEDY,
        )
    if state.scaler is not None:
        state.scaler.step(state.optimizer)  # skips by itself where the gradient overflowed
        state.scaler.update()
    else:
        state.optimizer.step()
    state.step += 1
    state.skipped = 0 if finite else state.skipped + 1
    if finite and state.ema is not None:
        state.ema.update(state.params, state.step)
    return not finite

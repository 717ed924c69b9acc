"""The loss on pictures that are held out, the same way at each measurement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import NonFiniteError
from limner.core.rng import example_seed, stream
from limner.data.batch import Batch, Visit, micro_batches
from limner.data.buckets import place
from limner.data.ledger import Prepared
from limner.models.evaluating import evaluating, in_float32
from limner.training.backward import REMEDY
from limner.training.contrastive import Contrastive
from limner.training.feed import Feed
from limner.training.objectives import Denoising, Reconstruction

if TYPE_CHECKING:
    from torch import Tensor


class Validation(Config):
    """Pictures that are not trained on; the loss on them shows from when on a run only learns by heart."""

    share: float = Field(default=0.1, gt=0, le=0.5)
    """Part of the pictures that is held out; of DreamBooth, of the subject's. Copies of one picture stay together."""
    every: int = Field(default=100, ge=1)
    """Optimizer steps between measurements. It is measured before the first step and after the last in any case."""
    draws: int = Field(default=4, ge=1, le=100)
    """Losses per picture, with other noise each, their timesteps spread evenly; the same ones at each measurement."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements in a row without a new best after which the run ends. Unset: it takes all its steps."""
    min_improvement: float = Field(default=0.0, ge=0, lt=1)
    """A new best counts for patience only if it is lower by this part: 0.01 is one percent."""
    export: Literal["best", "last"] = "best"
    """Export the checkpoint with the lowest validation loss, which is kept for it, or the last one."""

    @model_validator(mode="after")
    def _improvement_is_waited_for(self) -> Validation:
        if self.min_improvement and self.patience is None:
            raise ValueError("min_improvement does nothing without patience. Set patience, or leave it out.")
        return self

    def due(self, step: int, steps: int) -> bool:
        """Returns whether a measurement belongs to ``step`` (steps taken) of ``steps``."""
        return step % self.every == 0 or step == steps

    def plan(self) -> str:
        """Returns what will be done, for people."""
        end = "" if self.patience is None else f"; ends after {self.patience} without a new best"
        return f"loss on the held-out part every {self.every} steps{end}; the {self.export} checkpoint is exported"

    def warnings(self, steps: int) -> list[str]:
        """Returns what will not happen in a run of ``steps`` steps, a sentence each."""
        if self.patience is None or self.patience * self.every < steps:
            return []
        return [
            f"validation.patience cannot end this run early: {self.patience} measurements, one every {self.every} "
            f"steps, are not over before step {steps}"
        ]


@dataclasses.dataclass(frozen=True)
class Losses:
    """One measurement."""

    loss: float
    """The mean over pictures and draws."""
    by_timestep: tuple[float, ...]
    """The means of equal parts of the timesteps, the least noisy first; empty where the loss has no timesteps."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The pictures that are held out and how the loss on them is computed.

    Center crop, no flip, the first caption with its tags as written, weight 1, networks in evaluation mode. Noise and
    timesteps belong to the seed, the picture's id and the number of the draw: neither the step nor the other pictures
    move them.
    """

    pictures: tuple[Prepared, ...]
    objective: Denoising | Reconstruction | Contrastive
    feed: Feed
    """That of the training: its model, precision, seed and caches."""
    draws: int
    batch_size: int
    """What a contrastive loss compares at once."""
    captions: Mapping[str, str] | None = None
    """A caption by the id of each picture, in place of its own."""

    def measure(self, on_progress: Callable[[int, int], None]) -> Losses:
        """Returns the means of :meth:`by_picture`."""
        drawn = list(zip(*self.by_picture(on_progress).values(), strict=True))
        means = [math.fsum(values) / len(values) for values in drawn]
        return Losses(math.fsum(means) / len(means), tuple(means) if self.objective.kind == "denoising" else ())

    def by_picture(self, on_progress: Callable[[int, int], None]) -> dict[str, list[float]]:
        """Returns the losses of each picture by its id, one for each draw, the least noisy first.

        The model is measured as it is, and no trace is left in it. Raises NonFiniteError with the picture.
        """
        losses: dict[str, list[float]] = {}
        # the objective says itself what runs in half precision, as while training; the rest is float32
        with evaluating(self.feed.model.networks.values()), in_float32(self.feed.precision.device):
            for group in self.batches():
                batch = self.feed.batch(group)
                for draw in range(self._repetitions):
                    found = self._losses(batch, draw).tolist()
                    _refuse_non_finite(batch.ids, found)
                    for name, loss in zip(batch.ids, found, strict=True):
                        losses.setdefault(name, []).append(loss)
                on_progress(len(losses), len(self.pictures))
        return losses

    @property
    def _repetitions(self) -> int:
        return 1 if self.objective.kind == "contrastive" else self.draws

    def batches(self) -> list[list[Visit]]:
        """Returns what is computed at once; for a contrastive loss fixed batches of about one size."""
        visits = [_visit(picture, self.caption(picture)) for picture in self.pictures]
        if self.objective.kind != "contrastive":
            return micro_batches(visits, self.feed.micro_batch_size)
        mixed = sorted(visits, key=lambda one: example_seed(self.feed.seed, 0, f"validation {one.picture.example.id}"))
        count = max(1, min(math.ceil(len(mixed) / self.batch_size), len(mixed) // 2))
        return [mixed[number::count] for number in range(count)]

    def caption(self, picture: Prepared) -> str:
        """Returns the caption with which a picture is measured."""
        own = self.feed.caption_tools.fixed(picture.example)
        return own if self.captions is None else self.captions[picture.example.id]

    def _losses(self, batch: Batch, draw: int) -> Tensor:
        """Returns the unweighted loss of each picture, [B] float32."""
        import torch

        seed, precision, model = self.feed.seed, self.feed.precision, _fitting(self.feed)
        positions = tuple(example_seed(seed, draw, f"validation {name}") for name in batch.ids)
        drawn = dataclasses.replace(batch, positions=positions, weights=torch.ones(len(batch)))
        if isinstance(self.objective, Contrastive):
            return self.objective.losses(model, drawn, precision=precision, at_once=self.feed.micro_batch_size)
        if isinstance(self.objective, Reconstruction):
            return self.objective.losses(model, drawn, seed=seed, precision=precision)
        timesteps = model.process.timesteps
        at = torch.tensor([timestep_of(seed, name, draw, self.draws, timesteps) for name in batch.ids])
        return self.objective.losses(model, drawn, seed=seed, precision=precision, at=at)


def timestep_of(seed: int, name: str, draw: int, draws: int, timesteps: int) -> int:
    """Returns the timestep of one draw: uniform in the draw's own part of [0, timesteps), which has ``draws`` parts."""
    low, end = draw * timesteps // draws, (draw + 1) * timesteps // draws
    return stream(seed, draw, f"validation timestep {name}").randrange(low, max(end, low + 1))


def _visit(picture: Prepared, caption: str) -> Visit:
    placement = place(picture.size, picture.bucket, crop="center", flip=False, rng=stream(0, 0, "validation"))
    return Visit(position=0, picture=picture, caption=caption, placement=placement)


def _fitting(feed: Feed) -> Any:
    """Returns the model as what the objective takes."""
    return feed.model


def _refuse_non_finite(names: Sequence[str], losses: Sequence[float]) -> None:
    bad = [name for name, loss in zip(names, losses, strict=True) if not math.isfinite(loss)]
    if bad:
        raise NonFiniteError(f"the validation loss of {', '.join(bad)} is not a finite number.", fix=REMEDY)

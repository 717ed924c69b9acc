"""What losses say of a checkpoint beside its base: did it learn, does it hold for other pictures, do captions fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.core.intervals import Change, bootstrap, paired_change
from limner.core.progress import Progress
from limner.core.rng import example_seed

if TYPE_CHECKING:
    from limner.training.validation import HeldOut

MOST_PICTURES = 64
"""Pictures of those that were learned from whose loss is measured; which, the seed decides."""
LEARNED, HELD_OUT = "learned from", "held out"

Losses = Mapping[str, Sequence[float]]
"""Of each picture by its id: a loss for each draw, the least noisy first."""


@dataclass(frozen=True)
class PartLosses:
    """The losses of one model on one part of the pictures."""

    own: Losses
    """With each picture's own caption."""
    swapped: Losses | None
    """With the caption of another picture; None where all pictures have the same caption."""

    def means(self) -> list[float]:
        """Returns the loss of each picture."""
        return [_mean(losses) for losses in self.own.values()]

    def worth(self) -> list[float] | None:
        """Returns by how much each picture's own caption lowers its loss, against that of another picture."""
        if self.swapped is None:
            return None
        return [_mean(self.swapped[name]) - _mean(losses) for name, losses in self.own.items()]

    def by_timestep(self) -> list[float]:
        """Returns the means of equal parts of the timesteps, the least noisy first."""
        return [math.fsum(part) / len(part) for part in zip(*self.own.values(), strict=True)]


@dataclass(frozen=True)
class Compared:
    """A number of the base and of a checkpoint on the same pictures; the interval is that of the change."""

    base: float
    tuned: float
    change: Change
    pictures: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        return {**dataclasses.asdict(self), "within_noise": self.change.within_noise}

    @property
    def rose(self) -> bool:
        return self.change.value > 0 and not self.change.within_noise

    @property
    def fell(self) -> bool:
        return self.change.value < 0 and not self.change.within_noise


@dataclass(frozen=True)
class Since:
    """The loss on held-out pictures, of an earlier checkpoint and of this one."""

    step: int
    held_out: Compared

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        return {"step": self.step, **self.held_out.as_dict()}


@dataclass(frozen=True)
class Worth:
    """By how much a picture's own caption lowers its loss against another's: means with their 95 % intervals."""

    part: str
    """Of which pictures."""
    base: tuple[float, float, float]
    """Mean, and the ends of its interval."""
    tuned: tuple[float, float, float]
    pictures: int

    @property
    def shown(self) -> bool:
        """Whether captions are worth something to the checkpoint, beyond the noise."""
        return self.tuned[1] > 0


@dataclass(frozen=True)
class Evidence:
    """What was measured of one checkpoint, each number against the base model's."""

    step: int
    learned: Compared
    """The loss on pictures that were learned from."""
    held_out: Compared | None
    """The loss on pictures that were not; None where none was held out."""
    since_best: Since | None
    """The same against the earlier checkpoint with the lowest; None where there is none."""
    worth: Worth | None
    """Of the held-out pictures where there are some; None where all have the same caption."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        losses = {"learned": self.learned, "held_out": self.held_out}
        return {
            "step": self.step,
            **{name: None if one is None else one.as_dict() for name, one in losses.items()},
            "since_best": None if self.since_best is None else self.since_best.as_dict(),
            "worth": None if self.worth is None else dataclasses.asdict(self.worth),
        }


def parts_of(learned: HeldOut, held_out: HeldOut | None) -> dict[str, tuple[HeldOut, HeldOut | None]]:
    """Returns what is measured: each part with its own captions, and with those of others where they differ."""
    parts = {LEARNED: learned} if held_out is None else {LEARNED: learned, HELD_OUT: held_out}
    return {name: (part, _swapped(part)) for name, part in parts.items()}


def measure_parts(
    parts: Mapping[str, tuple[HeldOut, HeldOut | None]], name: str, progress: Progress
) -> dict[str, PartLosses]:
    """Returns the losses of the model as it is, by part; ``name`` stands in the bar."""

    def losses(one: HeldOut, part: str) -> Losses:
        return one.by_picture(lambda done, total: progress.stage(f"losses, {name}, {part}", done, total))

    return {
        part: PartLosses(losses(own, part), None if swapped is None else losses(swapped, f"{part}, captions swapped"))
        for part, (own, swapped) in parts.items()
    }


def weigh(base: Mapping[str, PartLosses], checkpoints: Mapping[int, Mapping[str, PartLosses]]) -> tuple[Evidence, ...]:
    """Returns what the losses of each checkpoint say beside those of the base, in the order of the steps."""
    steps = sorted(checkpoints)
    return tuple(
        _weigh_one(step, base, checkpoints[step], {other: checkpoints[other] for other in steps if other < step})
        for step in steps
    )


def _weigh_one(
    step: int,
    base: Mapping[str, PartLosses],
    tuned: Mapping[str, PartLosses],
    earlier: Mapping[int, Mapping[str, PartLosses]],
) -> Evidence:
    judged = HELD_OUT if HELD_OUT in base else LEARNED
    before, after = base[judged].worth(), tuned[judged].worth()
    return Evidence(
        step,
        learned=_compared(base[LEARNED].means(), tuned[LEARNED].means()),
        held_out=_compared(base[HELD_OUT].means(), tuned[HELD_OUT].means()) if HELD_OUT in base else None,
        since_best=_since_best(tuned, earlier),
        worth=None
        if before is None or after is None
        else Worth(judged, bootstrap(before), bootstrap(after), pictures=len(after)),
    )


def _since_best(tuned: Mapping[str, PartLosses], earlier: Mapping[int, Mapping[str, PartLosses]]) -> Since | None:
    if HELD_OUT not in tuned or not earlier:
        return None
    step = min(earlier, key=lambda one: (_mean(earlier[one][HELD_OUT].means()), one))
    return Since(step, _compared(earlier[step][HELD_OUT].means(), tuned[HELD_OUT].means()))


def _swapped(part: HeldOut) -> HeldOut | None:
    """Returns the part with each picture's caption replaced by that of the next one in a fixed order that has another.

    The order is the seed's, so that pictures that stand side by side in their folder do not get each other's.
    """
    line = sorted(part.pictures, key=lambda one: example_seed(part.feed.seed, 0, f"swapped {one.example.id}"))
    captions = [part.caption(one) for one in line]
    if len(set(captions)) < 2:
        return None
    others = {
        one.example.id: next(other for other in [*captions[place:], *captions[:place]] if other != captions[place])
        for place, one in enumerate(line)
    }
    return dataclasses.replace(part, captions=others)


def _compared(base: Sequence[float], tuned: Sequence[float]) -> Compared:
    return Compared(_mean(base), _mean(tuned), paired_change(base, tuned), len(base))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

"""What a metric measured: numbers with their intervals, and what became of each picture, so that two can be paired."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from limner.core.intervals import Change, paired_change, wilson


@dataclass(frozen=True)
class Number:
    """A mean over pictures with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    outcomes: tuple[float, ...]
    """Of each picture, in the order of ``Measurement.ids``."""


def share(name: str, outcomes: Sequence[float]) -> Number:
    """Returns the mean of outcomes in [0, 1], one per picture, with Wilson's interval.

    The pictures are what is counted: where an outcome is itself a share, as of five captions, it counts as one, which
    makes the interval too wide rather than too narrow.
    """
    value = sum(outcomes) / len(outcomes)
    return Number(name, value, *wilson(value, len(outcomes)), tuple(outcomes))


@dataclass(frozen=True)
class Measurement:
    """What one metric says of one model."""

    metric: str
    """Its name in the recipe."""
    kind: str
    guard: bool
    of: str
    """What was measured on, for people: 'CIFAR-10 test, Python batches'."""
    content: str
    """A hash of the pictures, captions and labels: only measurements of the same can be compared."""
    ids: tuple[str, ...]
    numbers: tuple[Number, ...]
    """The first is the one to look at first."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else was found out of all of them, as plain values."""
    raw: dict[str, Any] = field(default_factory=dict)
    """What else was found out of each picture, in the order of ``ids``."""
    notes: tuple[str, ...] = ()
    """What should be said beside the numbers."""

    @property
    def pictures(self) -> int:
        return len(self.ids)

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it as plain values, for JSON."""
        return dataclasses.asdict(self)

    def summary(self) -> dict[str, Any]:
        """Returns the same without what became of each picture."""
        numbers = [{"name": n.name, "value": n.value, "low": n.low, "high": n.high} for n in self.numbers]
        return {
            **{k: v for k, v in self.as_dict().items() if k not in ("ids", "raw")},
            "numbers": numbers,
            "pictures": self.pictures,
        }


def from_dict(values: dict[str, Any]) -> Measurement:
    """Returns the measurement that :meth:`Measurement.as_dict` gave; raises KeyError or TypeError for anything else."""
    numbers = tuple(Number(**{**number, "outcomes": tuple(number["outcomes"])}) for number in values["numbers"])
    return Measurement(**{**values, "numbers": numbers, "ids": tuple(values["ids"]), "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class Compared:
    """A number of two models on the same pictures."""

    name: str
    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]
    change: Change

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        intervals = {"before_interval": list(self.before_interval), "after_interval": list(self.after_interval)}
        return {**dataclasses.asdict(self), **intervals, "within_noise": self.change.within_noise}


@dataclass(frozen=True)
class Comparison:
    """One metric of two models."""

    before: Measurement
    after: Measurement
    numbers: tuple[Compared, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns it without what became of each picture, for JSON."""
        after = self.after
        return {
            "metric": after.metric,
            "kind": after.kind,
            "guard": after.guard,
            "of": after.of,
            "pictures": after.pictures,
            "numbers": [number.as_dict() for number in self.numbers],
            "details": {"before": self.before.details, "after": after.details},
            "notes": list(dict.fromkeys([*self.before.notes, *after.notes])),
        }


def compare(before: Measurement, after: Measurement) -> Comparison:
    """Returns the paired differences; raises ValueError unless both are of one metric on the same pictures."""
    if (before.metric, before.kind, before.content, before.ids) != (after.metric, after.kind, after.content, after.ids):
        raise ValueError(f"{before.metric} and {after.metric} were not measured on the same pictures")
    numbers = [
        Compared(
            one.name,
            one.value,
            (one.low, one.high),
            other.value,
            (other.low, other.high),
            paired_change(one.outcomes, other.outcomes),
        )
        for one, other in zip(before.numbers, after.numbers, strict=True)
    ]
    return Comparison(before, after, tuple(numbers))


def content_hash(*parts: Any) -> str:
    """Returns a hash of plain values."""
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "backslashreplace")).hexdigest()


# --------------------------------------------------------------------------------------------------------- for people
def percent(value: float, interval: tuple[float, float]) -> str:
    """Returns '61.2 % (58.1 to 64.2)'."""
    low, high = interval
    return f"{100 * value:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def points(change: Change) -> str:
    """Returns '+9.1 points (+6.0 to +12.3)', and says so where it is within the noise."""
    text = f"{100 * change.value:+.1f} points ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    return f"{text}, within the noise" if change.within_noise else text


def heading(measurement: Measurement) -> str:
    """Returns 'zero_shot_cifar10, guard: CIFAR-10 test, 2,000 pictures'."""
    guard = ", guard" if measurement.guard else ""
    return f"{measurement.metric}{guard}: {measurement.of}, {measurement.pictures:,} pictures"


def comparison_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Returns a label and 'before | after | difference' for each number."""
    cells = [
        (percent(n.before, n.before_interval), percent(n.after, n.after_interval), points(n.change))
        for n in comparison.numbers
    ]
    cells = [("before", "after", "difference (95 % intervals)"), *cells]
    wide = [max(len(row[column]) for row in cells) for column in range(2)]
    values = [f"{one:<{wide[0]}} | {two:<{wide[1]}} | {three}" for one, two, three in cells]
    return list(zip(["", *(number.name for number in comparison.numbers)], values, strict=True))


def measurement_rows(measurement: Measurement) -> list[tuple[str, str]]:
    """Returns a label and a value with its interval for each number."""
    return [(number.name, percent(number.value, (number.low, number.high))) for number in measurement.numbers]

"""How varied the members of a class are that a model draws: the mean distance of pictures of one prompt."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limner.builtin.judge import Reading

RESAMPLES = 2000
FAR = 0.5
"""Centres this far apart, as a share of the picture's side, differ as much as places can."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; the upper end may be infinite."""

    value: float
    low: float
    high: float


def distance(one: Reading, other: Reading, kind: str) -> float:
    """Returns how much two pictures of one prompt differ by what the judge reads, in [0, 1].

    The mean of four differences: the colours of the members (things of ``kind``), the place of the surest member, the
    background, the style. 0 where either picture shows no member: what is no member adds nothing to the class, so
    that a model that draws something else is not called varied.
    """
    first, second = ([thing for thing in reading.things if thing.kind == kind] for reading in (one, other))
    if not first or not second:
        return 0.0
    colours = [Counter(thing.colour for thing in members) for members in (first, second)]
    shared = (colours[0] & colours[1]).total() / max(len(first), len(second))
    a, b = (max(members, key=lambda thing: thing.score) for members in (first, second))
    place = min(1.0, math.hypot(a.x - b.x, a.y - b.y) / FAR)
    return (1 - shared + place + (one.background != other.background) + (one.style != other.style)) / 4


def diversity(readings: Sequence[Reading], kind: str) -> float:
    """Returns the mean distance over all pairs of the pictures of one prompt, of which there are two at least."""
    pairs = list(combinations(readings, 2))
    return sum(distance(one, other, kind) for one, other in pairs) / len(pairs)


def as_share(tuned: Sequence[float], base: Sequence[float]) -> Estimate | None:
    """Returns the mean of ``tuned`` as a share of that of ``base``, both by prompt; None where the base's is 0.

    The interval is the percentile bootstrap's: prompts are drawn with replacement, each with both its numbers.
    """
    if len(tuned) != len(base):
        raise ValueError("both need a number for each prompt")
    if sum(base) == 0:
        return None
    pairs, rng = list(zip(tuned, base, strict=True)), random.Random(0)
    shares = sorted(_share(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return Estimate(_share(pairs), shares[round(0.025 * RESAMPLES)], shares[round(0.975 * RESAMPLES) - 1])


def _share(pairs: Sequence[tuple[float, float]]) -> float:
    """Returns the ratio of the sums; infinite where only prompts were drawn for which the base has no diversity."""
    base = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / base if base else math.inf

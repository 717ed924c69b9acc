"""The mean of a few repeated runs, how far they lie apart, and what follows for the mean: Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The mean of ``n`` numbers; of one number alone nothing is known of the spread."""

    mean: float
    n: int
    deviation: float | None
    """Standard deviation of the sample (its sum of squares divided by n - 1); None for one number."""
    low: float | None
    """Lower end of the 95 % interval of the mean, by Student's t; None for one number."""
    high: float | None

    @property
    def excludes_zero(self) -> bool | None:
        """Whether 0 lies outside of the interval; None where there is none."""
        return None if self.low is None or self.high is None else not self.low <= 0 <= self.high


def spread(values: Sequence[float]) -> Spread:
    """Returns mean, standard deviation and interval of numbers, at least one, drawn independently."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, n, None, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Spread(mean, n, deviation, mean - half, mean + half)


def t_quantile(degrees: int, share: float = 0.95) -> float:
    """Returns the t between whose negative and itself lies ``share`` of Student's distribution, by bisection."""
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, degrees) < share else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Returns the share of Student's distribution between -t and t, t = sqrt(degrees) tan(angle).

    The finite sums for whole degrees: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    sine = math.sin(angle)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total

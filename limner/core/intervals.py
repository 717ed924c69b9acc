"""How sure a share is, and a difference of two: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limner.core.rng import example_seed

_NORMAL_QUANTILE = 1.959964  # 97.5 % of a normal distribution lie below: two-sided 95 %
RESAMPLES = 2000
FEWEST_CHANGED = 6
"""Five equal changes out of five have a chance of 2 / 2^5 > 5 % under a fair coin, six have less."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of Wilson (1927) of a share of ``count`` things, at least one, drawn independently."""
    z, n, p = _NORMAL_QUANTILE, count, share
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Change:
    """The mean difference of two numbers of each picture, with its 95 % interval."""

    value: float
    low: float
    high: float
    changed: int
    """Pictures of which the two numbers differ."""

    @property
    def within_noise(self) -> bool:
        """Whether chance alone may have made it: 0 is in the interval, or fewer than six pictures changed at all."""
        return self.low <= 0 <= self.high or self.changed < FEWEST_CHANGED


def paired_change(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Change:
    """Returns the mean of ``after`` minus ``before``, picture by picture; both have the same pictures in one order.

    The interval is that of :func:`bootstrap`, which draws pictures, each with both its numbers.
    """
    if len(before) != len(after) or not before:
        raise ValueError("both need a number for each picture, and there must be one at least")
    differences = [float(one) - float(other) for one, other in zip(after, before, strict=True)]
    mean, low, high = bootstrap(differences, seed=seed)
    return Change(value=mean, low=low, high=high, changed=sum(difference != 0 for difference in differences))


def bootstrap(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Returns the mean of the values, at least one, and the ends of its 95 % interval by percentile bootstrap.

    The values are drawn with replacement, 2,000 times. Neither their order nor the machine changes it.
    """
    import numpy

    different, counts = numpy.unique(numpy.asarray(values, dtype=numpy.float64), return_counts=True)
    rng = numpy.random.Generator(numpy.random.PCG64(example_seed(seed, 0, "bootstrap")))
    means = rng.multinomial(len(values), counts / len(values), size=RESAMPLES) @ different / len(values)
    low, high = numpy.quantile(means, [0.025, 0.975])
    return float(counts @ different / len(values)), float(low), float(high)

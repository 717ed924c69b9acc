"""How sure the distance of two sets of pictures is, and the difference of two such distances: 95 % intervals.

A plain bootstrap is wrong for them. A picture drawn twice makes a pair of distance 0, that pulls every resampled
distance up: by as much as the whole number. On 30 simulated pairs of sets with a known distance (20 to 200 pictures,
4 or 64 features, both kernels) such intervals held the truth in 0 % to 94 % of the experiments. Leaving out the pairs
of a picture with itself, however often it was drawn, they held it in 94 % to 100 %, and in 93 % to 100 % of 18 more
with 10 to 100 pictures: wide rather than narrow, most so where the two sets are of one distribution.

For the Fréchet distance of sets resampled with repetition the same happens, and cannot be undone pair by pair. There
the jackknife leaves out a twentieth of the pictures at a time, and repeats none.

Both take the pictures to be independent. Several pictures of each prompt are less so: the interval then speaks of
other seeds for these prompts, not of other prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from limner.core.intervals import RESAMPLES, Change
from limner.core.rng import example_seed
from limner.evaluation.distances import (
    GAUSSIAN_SCALE,
    SIGMA,
    both_features,
    cubic_kernel,
    frechet,
    frechet_of,
    gaussian_distance,
    gaussian_kernel,
    kernel_distance,
    moments,
)

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from limner.evaluation.distances import Array, Kernel

    SetDistance = Callable[..., float]

FEWEST_PICTURES = 10
"""Of each set, for the interval of a kernel distance."""
GROUPS = 20
"""Of the jackknife, and the fewest pictures of each set for it."""
FEWEST_RESAMPLES = 100
_STUDENT_QUANTILE = 2.093024  # 97.5 % of Student's t with 19 degrees of freedom lie below
_AT_ONCE = 1024


@dataclass(frozen=True)
class DistanceInterval:
    """The distance of two sets of pictures with its 95 % interval."""

    value: float
    low: float
    high: float
    pictures: tuple[int, int]
    """Of each of the two sets."""


def interval_of_distance(
    distance: SetDistance, a: Any, b: Any, *, resamples: int = RESAMPLES, seed: int = 0
) -> DistanceInterval:
    """Returns the distance of ``a`` [N, D] and ``b`` [M, D] and its interval; both sets are taken as drawn by chance.

    ``distance`` is :func:`kernel_distance` or :func:`gaussian_distance` (with the usual sigma; unbiased) or
    :func:`frechet`. The first two are bootstrapped: ``resamples`` * (N^2 + N M + M^2) multiplications, memory for
    ``resamples`` * (N + M) numbers and 1,024 rows of the kernel matrix. The interval holds the distance of the two
    distributions.

    ``frechet`` is computed 40 times instead, each time without a twentieth of one set. The interval holds what the
    estimate is on average *for as many pictures*, and not the distance of the two distributions: see its bias there.
    """
    a, b = both_features(a, b, least=_fewest(distance))
    value = distance(a, b)
    if distance is frechet:
        whole_a, whole_b = moments(a), moments(b)
        variance = _jackknife(a, lambda rest: frechet_of(moments(a[rest]), whole_b), _rng(seed, "pictures"))
        variance += _jackknife(b, lambda rest: frechet_of(whole_a, moments(b[rest])), _rng(seed, "references"))
        return DistanceInterval(value, *_around(value, variance), (len(a), len(b)))
    kernel, scale = _kernel(distance)
    of_a, of_b = _drawn(len(a), resamples, seed, "pictures"), _drawn(len(b), resamples, seed, "references")
    values = _within(a, of_a, kernel) + _within(b, of_b, kernel) - 2 * _across(a, of_a, b, of_b, kernel)
    return DistanceInterval(value, *_percentiles(scale * values), (len(a), len(b)))


def paired_interval(
    distance: SetDistance, reference: Any, before: Any, after: Any, *, resamples: int = RESAMPLES, seed: int = 0
) -> Change:
    """Returns the distance of ``after`` to ``reference`` minus that of ``before``; below 0: ``after`` is nearer.

    ``before`` and ``after`` [N, D] are pictures of the same prompts and seeds, row by row: their rows are drawn
    together. ``reference`` is [M, D], and drawn too. ``changed`` counts the rows of which the features differ.
    Distances, costs and meaning are as in :func:`interval_of_distance`; for ``frechet`` the biases of the two distances
    cancel only as far as they are equal, and the interval knows nothing of what is left.
    """
    least = _fewest(distance)
    before, reference = both_features(before, reference, least=least, names=("before", "reference"))
    after, _ = both_features(after, reference, least=least, names=("after", "reference"))
    if len(before) != len(after):
        raise ValueError(f"before has {len(before)} pictures and after {len(after)}; they must be the same, row by row")
    value = distance(after, reference) - distance(before, reference)
    changed = int((before != after).any(axis=1).sum())
    if distance is frechet:
        return Change(value, *_around(value, _paired_jackknife(reference, before, after, seed)), changed)
    kernel, scale = _kernel(distance)
    counts = _drawn(len(before), resamples, seed, "pictures")
    of_reference = _drawn(len(reference), resamples, seed, "references")
    values = _within(after, counts, kernel) - 2 * _across(after, counts, reference, of_reference, kernel)
    values -= _within(before, counts, kernel) - 2 * _across(before, counts, reference, of_reference, kernel)
    return Change(value, *_percentiles(scale * values), changed)


def _fewest(distance: SetDistance) -> int:
    if distance not in (frechet, kernel_distance, gaussian_distance):
        raise ValueError(f"{distance!r} has no interval; frechet, kernel_distance and gaussian_distance have one")
    return GROUPS if distance is frechet else FEWEST_PICTURES


def _kernel(distance: SetDistance) -> tuple[Kernel, float]:
    if distance is gaussian_distance:
        return partial(gaussian_kernel, sigma=SIGMA), GAUSSIAN_SCALE
    return cubic_kernel, 1.0


# ---------------------------------------------------------------------------------------------------------- bootstrap
def _drawn(count: int, resamples: int, seed: int, purpose: str) -> Array:
    """Returns how often each of ``count`` pictures is drawn, [resamples, count]."""
    import numpy

    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"{resamples} resamples are too few for the ends of a 95 % interval; use {FEWEST_RESAMPLES}")
    return _rng(seed, purpose).multinomial(count, numpy.full(count, 1 / count), size=resamples).astype(numpy.float64)


def _within(x: Array, counts: Array, kernel: Kernel) -> Array:
    """Returns the mean kernel of two different pictures of ``x`` [N, D], weighted by ``counts`` [R, N], as [R]."""
    import numpy

    total: Array = numpy.zeros(len(counts))
    for start in range(0, len(x), _AT_ONCE):
        block = kernel(x[start : start + _AT_ONCE], x)
        numpy.fill_diagonal(block[:, start:], 0.0)
        total += numpy.einsum("rn,rn->r", counts[:, start : start + _AT_ONCE] @ block, counts)
    pairs: Array = len(x) ** 2 - (counts**2).sum(axis=1)
    return total / pairs


def _across(a: Array, of_a: Array, b: Array, of_b: Array, kernel: Kernel) -> Array:
    """Returns the mean kernel of a picture of ``a`` and one of ``b``, weighted by [R, N] and [R, M], as [R]."""
    import numpy

    total = numpy.zeros(len(of_a))
    for start in range(0, len(a), _AT_ONCE):
        block = kernel(a[start : start + _AT_ONCE], b)
        total += numpy.einsum("rn,rn->r", of_a[:, start : start + _AT_ONCE] @ block, of_b)
    return total / (len(a) * len(b))


def _percentiles(values: Array) -> tuple[float, float]:
    import numpy

    low, high = numpy.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------------------------------------------- jackknife
def _paired_jackknife(reference: Array, before: Array, after: Array, seed: int) -> float:
    """Returns the variance of the difference of the two Fréchet distances."""
    whole_before, whole_after, whole = moments(before), moments(after), moments(reference)

    def without_pictures(rest: NDArray[numpy.bool_]) -> float:
        return frechet_of(moments(after[rest]), whole) - frechet_of(moments(before[rest]), whole)

    def without_references(rest: NDArray[numpy.bool_]) -> float:
        others = moments(reference[rest])
        return frechet_of(whole_after, others) - frechet_of(whole_before, others)

    variance = _jackknife(after, without_pictures, _rng(seed, "pictures"))
    return variance + _jackknife(reference, without_references, _rng(seed, "references"))


def _jackknife(x: Array, without: Callable[[NDArray[numpy.bool_]], float], rng: numpy.random.Generator) -> float:
    """Returns the variance of a statistic of the rows of ``x``, by leaving out each of 20 groups, drawn by ``rng``.

    ``without`` gives the statistic of the rows where its argument [N] is true (Efron and Stein 1981, Ann. Stat. 9).
    """
    import numpy

    group = rng.permutation(len(x)) % GROUPS
    values = numpy.array([without(group != one) for one in range(GROUPS)])
    return float((GROUPS - 1) ** 2 / GROUPS * values.var(ddof=1))


def _around(value: float, variance: float) -> tuple[float, float]:
    half = _STUDENT_QUANTILE * math.sqrt(variance)
    return value - half, value + half


def _rng(seed: int, purpose: str) -> numpy.random.Generator:
    import numpy

    return numpy.random.Generator(numpy.random.PCG64(example_seed(seed, 0, f"set distance: {purpose}")))

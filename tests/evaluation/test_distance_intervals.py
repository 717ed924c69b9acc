"""Intervals of distances: whether they hold the truth, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from limner.evaluation.distance_intervals import _across, _within, interval_of_distance, paired_interval
from limner.evaluation.distances import cubic_kernel, frechet, gaussian_distance, kernel_distance

EXPERIMENTS = 100
DISTANCES = [frechet, kernel_distance, gaussian_distance]


def generator(seed: int) -> numpy.random.Generator:
    return numpy.random.Generator(numpy.random.PCG64(seed))


def cubic_truth(deviation: float, size: int) -> float:
    """Returns the distance of N(0, deviation^2) and N(0, 1) in ``size`` dimensions: only E (x.y / D)^2 differs."""
    return 3 / size * (deviation**2 - 1) ** 2


def gaussian_truth(shift: float, deviation: float, size: int) -> float:
    """Returns the distance of N(shift e_1, deviation^2) and N(0, 1) under a kernel of width 1, times 1000."""

    def kernel(variance: float, squared: float) -> float:
        return float((1 + variance) ** (-size / 2) * numpy.exp(-squared / (2 + 2 * variance)))

    return 1000 * (kernel(2 * deviation**2, 0) + kernel(2, 0) - 2 * kernel(deviation**2 + 1, shift**2))


def share_that_holds(truth: float, experiment: Callable[[int], Any], experiments: int = EXPERIMENTS) -> float:
    found = [experiment(seed) for seed in range(experiments)]
    return sum(one.low <= truth <= one.high for one in found) / experiments


# ----------------------------------------------------------------------------------------------- they hold the truth
@pytest.mark.parametrize(("count", "others", "deviation"), [(20, 40, 1.0), (10, 10, 0.5), (20, 40, 1.5)])
def test_intervals_of_the_kernel_distance_hold_the_truth(count: int, others: int, deviation: float) -> None:
    def experiment(seed: int) -> Any:
        rng = generator(seed)
        a, b = deviation * rng.normal(size=(count, 4)), rng.normal(size=(others, 4))
        return interval_of_distance(kernel_distance, a, b, resamples=150, seed=seed)

    assert share_that_holds(cubic_truth(deviation, 4), experiment) >= 0.9


@pytest.mark.parametrize(
    ("count", "others", "shift", "deviation"),
    [(10, 10, 0.0, 1.0), (20, 40, 0.5, 1.0), (20, 40, 1.5, 1.0), (10, 10, 0.0, 0.5)],
)
def test_intervals_of_the_gaussian_distance_hold_the_truth(
    count: int, others: int, shift: float, deviation: float
) -> None:
    def experiment(seed: int) -> Any:
        rng = generator(seed)
        a, b = deviation * rng.normal(size=(count, 3)), rng.normal(size=(others, 3))
        a[:, 0] += shift
        return interval_of_distance(gaussian_distance, 10 * a, 10 * b, resamples=150, seed=seed)

    assert share_that_holds(gaussian_truth(shift, deviation, 3), experiment) >= 0.9


def test_a_plain_bootstrap_would_not() -> None:
    """The reason for leaving out the pairs of a picture with itself: 64 features, 20 pictures of one distribution."""
    plain, ours = 0, 0
    for seed in range(20):
        rng = generator(seed)
        a, b = rng.normal(size=(20, 64)), rng.normal(size=(20, 64))
        drawn = [kernel_distance(a[rng.integers(0, 20, 20)], b[rng.integers(0, 20, 20)]) for _ in range(100)]
        low, high = numpy.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
        found = interval_of_distance(kernel_distance, a, b, resamples=150, seed=seed)
        ours += found.low <= 0 <= found.high
    assert plain <= 2
    assert ours >= 18


def related(seed: int, count: int, deviation: float) -> tuple[Any, Any, Any]:
    """Returns a reference, and before and after that are N(0, 1) and N(0, deviation^2), correlated row by row."""
    rng = generator(seed)
    shared, before, after = rng.normal(size=(3, count, 3))
    return rng.normal(size=(40, 3)), 0.8 * shared + 0.6 * before, deviation * (0.8 * shared + 0.6 * after)


@pytest.mark.parametrize("deviation", [1.0, 0.6])
def test_paired_intervals_of_kernel_distances_hold_the_truth(deviation: float) -> None:
    def cubics(seed: int) -> Any:
        return paired_interval(kernel_distance, *related(seed, 25, deviation), resamples=150, seed=seed)

    def gaussians(seed: int) -> Any:
        scaled = (10 * x for x in related(seed, 25, deviation))
        return paired_interval(gaussian_distance, *scaled, resamples=150, seed=seed)

    assert share_that_holds(cubic_truth(deviation, 3), cubics) >= 0.9
    assert share_that_holds(gaussian_truth(0, deviation, 3), gaussians) >= 0.9


def test_frechet_intervals_hold_what_the_estimate_is_on_average() -> None:
    """Not the distance of the distributions, 0.48 here."""
    deviation = 0.6
    many = [related(seed, 25, deviation) for seed in range(1000, 1300)]
    single = float(numpy.mean([frechet(after, reference) for reference, _, after in many]))
    change = single - float(numpy.mean([frechet(before, reference) for reference, before, _ in many]))
    assert single > 3 * (deviation - 1) ** 2 + 0.1

    def alone(seed: int) -> Any:
        reference, _, after = related(seed, 25, deviation)
        return interval_of_distance(frechet, after, reference, seed=seed)

    assert share_that_holds(single, alone, 40) >= 0.9
    assert share_that_holds(change, lambda seed: paired_interval(frechet, *related(seed, 25, deviation)), 40) >= 0.9


# ------------------------------------------------------------------------------------------- what they are made of
def test_the_weighted_means_are_those_of_plain_loops_without_pairs_of_one_picture() -> None:
    rng = generator(0)
    a, b = rng.normal(size=(5, 2)), rng.normal(size=(3, 2))
    of_a, of_b = rng.integers(0, 4, (2, 5)).astype(float), rng.integers(1, 4, (2, 3)).astype(float)
    of_a += of_a.sum(axis=1, keepdims=True) == 0
    of_a, of_b = of_a * 5 / of_a.sum(axis=1, keepdims=True), of_b * 3 / of_b.sum(axis=1, keepdims=True)
    of_pair = cubic_kernel(a, a), cubic_kernel(a, b)
    for row, (one, other) in enumerate(zip(of_a, of_b, strict=True)):
        weights = {(i, j): one[i] * one[j] for i in range(5) for j in range(5) if i != j}
        within = sum(weight * of_pair[0][pair] for pair, weight in weights.items()) / sum(weights.values())
        assert _within(a, of_a, cubic_kernel)[row] == pytest.approx(within, rel=1e-12)
        across = sum(one[i] * other[j] * of_pair[1][i, j] for i in range(5) for j in range(3)) / 15
        assert _across(a, of_a, b, of_b, cubic_kernel)[row] == pytest.approx(across, rel=1e-12)


def test_more_pictures_than_one_block_give_the_mean_of_the_whole_matrix() -> None:
    x, y = generator(0).normal(size=(1500, 2)), generator(1).normal(size=(30, 2))
    whole = cubic_kernel(x, x)
    within = (whole.sum() - numpy.trace(whole)) / (1500 * 1499)
    assert _within(x, numpy.ones((1, 1500)), cubic_kernel) == pytest.approx([within], rel=1e-10)
    across = _across(x, numpy.ones((1, 1500)), y, numpy.ones((1, 30)), cubic_kernel)
    assert across == pytest.approx([cubic_kernel(x, y).mean()], rel=1e-10)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_interval_is_around_the_distance_and_of_one_seed(distance: Callable[..., float]) -> None:
    a, b = generator(0).normal(size=(40, 3)), 2 * generator(1).normal(size=(25, 3))
    found = interval_of_distance(distance, a, b, resamples=200)
    assert found.value == distance(a, b)
    assert found.low < found.value < found.high
    assert found.pictures == (40, 25)
    assert interval_of_distance(distance, a, b, resamples=200) == found
    assert interval_of_distance(distance, a, b, resamples=200, seed=1).low != found.low


@pytest.mark.parametrize("distance", DISTANCES)
def test_nothing_changed_is_zero_and_within_noise(distance: Callable[..., float]) -> None:
    reference, before, _ = related(0, 25, 1.0)
    found = paired_interval(distance, reference, before, before.copy(), resamples=200)
    assert (found.value, found.low, found.high, found.changed) == (0, 0, 0, 0)
    assert found.within_noise


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_set_that_moved_away_is_told_from_noise_and_a_new_draw_is_not(distance: Callable[..., float]) -> None:
    reference, before, redrawn = (10 * x for x in related(0, 60, 1.0))
    away = paired_interval(distance, reference, before, before + 10, resamples=300)
    assert away.value == distance(before + 10, reference) - distance(before, reference)
    assert away.value > 0
    assert away.changed == 60
    assert not away.within_noise
    assert paired_interval(distance, reference, before, redrawn, resamples=300).within_noise
    back = paired_interval(distance, reference, before + 10, before, resamples=300)
    assert (back.low, back.high) == pytest.approx((-away.high, -away.low))


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_are_surer_than_two_sets_of_their_own(distance: Callable[..., float]) -> None:
    reference, before, _ = (10 * x for x in related(0, 60, 1.0))
    after = 0.95 * before
    paired = paired_interval(distance, reference, before, after, resamples=300)
    crossed = paired_interval(distance, reference, before, after[::-1], resamples=300)
    assert crossed.value == pytest.approx(paired.value)
    assert paired.high - paired.low < 0.5 * (crossed.high - crossed.low)


# ------------------------------------------------------------------------------------------------------ refusals
def test_what_has_no_interval_is_refused() -> None:
    many, few = generator(0).normal(size=(30, 3)), generator(1).normal(size=(9, 3))
    with pytest.raises(ValueError, match="b has 9 pictures; this needs at least 10"):
        interval_of_distance(kernel_distance, many, few)
    with pytest.raises(ValueError, match="a has 19 pictures; this needs at least 20"):
        interval_of_distance(frechet, many[:19], many)
    with pytest.raises(ValueError, match="has no interval; frechet, kernel_distance and gaussian_distance"):
        interval_of_distance(max, many, many)
    with pytest.raises(ValueError, match="5 resamples are too few"):
        interval_of_distance(kernel_distance, many, many, resamples=5)
    with pytest.raises(ValueError, match="before has 30 pictures and after 29"):
        paired_interval(kernel_distance, many, many, many[1:])
    with pytest.raises(ValueError, match="reference has 9 pictures"):
        paired_interval(kernel_distance, few, many, many)
    with pytest.raises(ValueError, match="after has NaN or infinity in 1 of 30 rows, first in row 2"):
        paired_interval(kernel_distance, many, many, numpy.where(numpy.arange(30)[:, None] == 2, numpy.nan, many))

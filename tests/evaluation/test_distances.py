"""Distances of sets of features: against plain loops and other routes, closed forms, invariances, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from limner.evaluation.distances import diversity, frechet, gaussian_distance, kernel_distance, nearest

DISTANCES = [frechet, kernel_distance, gaussian_distance]


def normal(seed: int, *shape: int) -> Any:
    return numpy.random.Generator(numpy.random.PCG64(seed)).normal(size=shape)


def exact_gaussian(seed: int, count: int, deviations: Any, mean: Any) -> Any:
    """Returns [count, D] rows whose mean and unbiased covariance are exactly the given ones."""
    x = normal(seed, count, len(deviations))
    directions = numpy.linalg.qr(x - x.mean(axis=0))[0]
    return directions * math.sqrt(count - 1) * numpy.asarray(deviations) + numpy.asarray(mean)


def rotation(seed: int, size: int) -> Any:
    return numpy.linalg.qr(normal(seed, size, size))[0]


# ------------------------------------------------------------------------------------------------------------ Fréchet
def test_frechet_is_that_of_the_eigenvalues_of_the_symmetric_product() -> None:
    a, b = normal(0, 40, 6) @ normal(1, 6, 6), normal(2, 30, 6) + 0.3
    of_a, of_b = numpy.cov(a, rowvar=False), numpy.cov(b, rowvar=False)
    values, vectors = numpy.linalg.eigh(of_a)
    root = vectors * numpy.sqrt(values) @ vectors.T
    traces = numpy.trace(of_a) + numpy.trace(of_b) - 2 * numpy.sqrt(numpy.linalg.eigvalsh(root @ of_b @ root)).sum()
    assert frechet(a, b) == pytest.approx(((a.mean(0) - b.mean(0)) ** 2).sum() + traces, rel=1e-10)


def test_frechet_of_gaussians_with_the_same_axes_is_that_of_means_and_deviations() -> None:
    a = exact_gaussian(0, 50, [1.0, 2.0, 0.5], [0.0, 1.0, 0.0])
    b = exact_gaussian(1, 20, [3.0, 1.0, 0.5], [0.5, 1.0, 2.0])
    assert frechet(a, b) == pytest.approx((0.25 + 4) + (4 + 1), rel=1e-12)


def test_frechet_of_singular_covariances_is_exact() -> None:
    a = exact_gaussian(0, 5, [1.0, 2.0], [0.0, 0.0]) @ numpy.eye(2, 50)
    b = exact_gaussian(1, 7, [3.0, 0.5], [0.0, 0.0]) @ numpy.eye(2, 50, k=2)
    turned = rotation(3, 50)
    assert frechet(a @ turned, b @ turned) == pytest.approx(1 + 4 + 9 + 0.25, rel=1e-12)
    half_shared = exact_gaussian(1, 7, [3.0, 0.5], [0.0, 0.0]) @ numpy.eye(2, 50, k=1)  # its first axis is a's second
    assert frechet(a @ turned, half_shared @ turned) == pytest.approx(1 + (3 - 2) ** 2 + 0.25, rel=1e-12)
    assert frechet(a @ turned, a[::-1] @ turned) == pytest.approx(0, abs=1e-13)


def test_thirty_pictures_of_one_gaussian_with_thirty_two_features_are_fifteen_apart() -> None:
    deviations = numpy.linspace(0.3, 1.5, 32)
    assert (deviations**2).sum() == pytest.approx(30, abs=0.2)
    found = [frechet(normal(2 * n, 30, 32) * deviations, normal(2 * n + 1, 30, 32) * deviations) for n in range(30)]
    assert numpy.mean(found) == pytest.approx(15, abs=1)


# ------------------------------------------------------------------------------------------------------------ kernels
def loop(a: Any, b: Any, kernel: Callable[[Any, Any], float], *, diagonal: bool) -> float:
    def within(x: Any) -> float:
        pairs = [kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if diagonal or i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(p, q) for p in a for q in b]
    return within(a) + within(b) - 2 * sum(across) / len(across)


def cubic(p: Any, q: Any) -> float:
    return float((sum(x * y for x, y in zip(p, q, strict=True)) / len(p) + 1) ** 3)


def test_the_kernel_distance_is_that_of_a_plain_loop() -> None:
    a, b = normal(0, 9, 5), 1.5 * normal(1, 6, 5) + 0.2
    assert kernel_distance(a, b) == pytest.approx(loop(a, b, cubic, diagonal=False), rel=1e-12)


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_gaussian_distance_is_that_of_a_plain_loop(diagonal: bool) -> None:
    a, b = normal(0, 9, 5), 1.5 * normal(1, 6, 5) + 0.2
    expected = 1000 * loop(a, b, lambda p, q: math.exp(-(math.dist(p, q) ** 2) / (2 * 3.0**2)), diagonal=diagonal)
    assert gaussian_distance(a, b, sigma=3.0, diagonal=diagonal) == pytest.approx(expected, rel=1e-12)


def test_more_pictures_than_one_block_give_what_the_whole_matrix_gives() -> None:
    a, b = normal(0, 1100, 3), normal(1, 1030, 3) + 0.1
    within_a, within_b, across = ((x @ y.T / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    expected = -2 * across.mean()
    for whole in (within_a, within_b):
        expected += (whole.sum() - numpy.trace(whole)) / (len(whole) * (len(whole) - 1))
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_sets_of_one_distribution_are_zero_apart_on_average_and_above_it_with_the_diagonal() -> None:
    pairs = [(normal(2 * n, 12, 4), normal(2 * n + 1, 20, 4)) for n in range(300)]
    for distance in (kernel_distance, gaussian_distance):
        found = numpy.array([distance(a, b) for a, b in pairs])
        assert abs(found.mean()) < 3.5 * found.std() / math.sqrt(len(found))
        assert 0.3 < (found < 0).mean() < 0.8
    biased = numpy.array([gaussian_distance(a, b, diagonal=True) for a, b in pairs])
    within = (100 / (100 + 2)) ** 2  # the mean kernel of two pictures: (sigma^2 / (sigma^2 + 2))^(D / 2)
    expected = 1000 * (1 - within) * (1 / 12 + 1 / 20)
    assert biased.mean() == pytest.approx(expected, abs=3.5 * biased.std() / math.sqrt(len(biased)))


def test_the_distances_of_known_gaussians_are_met_on_average() -> None:
    cubics, gaussians = [], []
    for n in range(300):
        a, b = 0.5 * normal(2 * n, 30, 4), normal(2 * n + 1, 20, 4)
        cubics.append(kernel_distance(a, b))
        gaussians.append(gaussian_distance(a, b, sigma=2.0))
    for found, expected in (
        (cubics, 3 / 4 * (0.25 - 1) ** 2),
        (gaussians, 1000 * ((4 / 4.5) ** 2 + (4 / 6) ** 2 - 2 * (4 / 5.25) ** 2)),
    ):
        assert numpy.mean(found) == pytest.approx(expected, abs=3.5 * numpy.std(found) / math.sqrt(300))


def test_on_unit_norm_the_gaussian_distance_is_nearly_that_of_the_means() -> None:
    a, b = normal(0, 800, 16) + 0.5, 0.2 * normal(1, 800, 16) + 0.7
    a, b = (x / numpy.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    assert gaussian_distance(a, b) == pytest.approx(10 * ((a.mean(0) - b.mean(0)) ** 2).sum(), rel=0.05)


# -------------------------------------------------------------------------------------------------------- all of them
@pytest.mark.parametrize("distance", DISTANCES)
def test_order_and_rotation_change_nothing_and_float32_is_taken_as_it_is(distance: Callable[..., float]) -> None:
    a, b = normal(0, 20, 6), 2 * normal(1, 15, 6)
    found = distance(a, b)
    turned = rotation(2, 6)
    assert found > 0.1
    assert distance(a[::-1], numpy.roll(b, 4, axis=0)) == pytest.approx(found, rel=1e-10)
    assert distance(a @ turned, b @ turned) == pytest.approx(found, rel=1e-10)
    assert distance(b, a) == pytest.approx(found, rel=1e-10)
    small = a.astype(numpy.float32)
    assert distance(small, b) == distance(small.astype(numpy.float64), b)


@pytest.mark.parametrize("distance", [frechet, gaussian_distance])
def test_moving_both_sets_changes_nothing(distance: Callable[..., float]) -> None:
    a, b = normal(0, 20, 6), 2 * normal(1, 15, 6)
    assert distance(a + 7, b + 7) == pytest.approx(distance(a, b), rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (numpy.ones((0, 3)), numpy.ones((4, 3)), "a has 0 pictures"),
        (numpy.ones((4, 3)), numpy.ones((1, 3)), "b has 1 pictures; this needs at least 2"),
        (numpy.ones((4, 3)), numpy.ones((4, 2)), "a has 3 numbers a picture, b 2"),
        (numpy.ones(4), numpy.ones((4, 3)), r"a is of shape \[4\]"),
        (numpy.ones((4, 0)), numpy.ones((4, 0)), r"a is of shape \[4, 0\]"),
        (numpy.array([[0.0], [numpy.nan], [numpy.inf]]), numpy.ones((4, 1)), "in 2 of 3 rows, first in row 1"),
    ],
)
def test_what_is_no_set_of_features_is_refused(distance: Callable[..., float], a: Any, b: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        distance(a, b)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_a_kernel_without_width_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="width of the kernel"):
        gaussian_distance(numpy.eye(3), numpy.eye(3), sigma=sigma)


# ---------------------------------------------------------------------------------------------- diversity and nearest
def cosine(p: Any, q: Any) -> float:
    return float(p @ q / math.sqrt((p @ p) * (q @ q)))


def test_diversity_is_the_mean_over_groups_of_the_mean_over_pairs() -> None:
    features, groups = normal(0, 9, 4), ["b", "a", "b", "a", "b", "b", "c", "c", "a"]
    mean, numbers = diversity(features, groups)
    for name in "abc":
        own = [row for row, group in zip(features, groups, strict=True) if group == name]
        pairs = [1 - cosine(p, q) for i, p in enumerate(own) for q in own[:i]]
        assert numbers[name] == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
    assert list(numbers) == ["b", "a", "c"]
    assert mean == pytest.approx(sum(numbers.values()) / 3)


def test_diversity_of_known_directions() -> None:
    corners = [[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [5.0, 0.0], [1.0, 0.0], [-4.0, 0.0]]
    assert diversity(corners, [0, 0, 1, 1, 2, 2])[1] == pytest.approx({0: 1.0, 1: 0.0, 2: 2.0})


def test_diversity_refuses_what_has_none() -> None:
    with pytest.raises(ValueError, match="group 'x' has one picture"):
        diversity(numpy.ones((3, 2)), ["y", "x", "y"])
    with pytest.raises(ValueError, match="3 rows of features and 2 names"):
        diversity(numpy.ones((3, 2)), ["y", "y"])
    with pytest.raises(ValueError, match="row 1 of features is all zeros"):
        diversity([[1.0, 0.0], [0.0, 0.0]], ["y", "y"])


def test_the_nearest_is_that_of_a_plain_loop_over_all_blocks() -> None:
    features, references = normal(0, 1100, 3), normal(1, 7, 3)
    places, cosines = nearest(features, references)
    for row in (0, 1, 500, 1023, 1024, 1099):
        known = [cosine(features[row], reference) for reference in references]
        assert places[row] == known.index(max(known))
        assert cosines[row] == pytest.approx(max(known), rel=1e-12)
    assert set(places.tolist()) == set(range(7))


def test_a_picture_known_by_heart_has_cosine_one_whatever_its_length() -> None:
    references = normal(0, 200, 7)
    places, cosines = nearest(3 * references[::-1], references)
    assert places.tolist() == list(range(199, -1, -1))
    assert cosines == pytest.approx([1] * 200)
    assert cosines.max() <= 1


def test_nearest_refuses_what_has_no_direction_or_another_length() -> None:
    with pytest.raises(ValueError, match="row 0 of references is all zeros"):
        nearest(numpy.ones((1, 2)), numpy.zeros((1, 2)))
    with pytest.raises(ValueError, match="features has 2 numbers a picture, references 3"):
        nearest(numpy.ones((1, 2)), numpy.ones((1, 3)))
    with pytest.raises(ValueError, match="references has 0 pictures"):
        nearest(numpy.ones((1, 2)), numpy.ones((0, 2)))

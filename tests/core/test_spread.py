"""Student's t against the tables and against the integral of its density."""

from __future__ import annotations

import math

import numpy
import pytest

from limner.core.spread import spread, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_the_quantiles_are_those_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5.1e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 7, 40])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_the_density_between_the_quantiles_integrates_to_the_share(degrees: int, share: float) -> None:
    end = t_quantile(degrees, share)
    edges = numpy.linspace(-end, end, 400_001)
    middles = (edges[1:] + edges[:-1]) / 2
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    density = numpy.exp(log_scale) * (1 + middles**2 / degrees) ** (-(degrees + 1) / 2)
    assert float(density.sum() * (edges[1] - edges[0])) == pytest.approx(share, abs=1e-6)


def test_mean_deviation_and_interval_are_those_of_numpy() -> None:
    values = [0.31, 0.28, 0.35, 0.30]
    found = spread(values)
    assert found.mean == pytest.approx(numpy.mean(values))
    assert found.deviation == pytest.approx(numpy.std(values, ddof=1))
    half = 3.182446 * float(numpy.std(values, ddof=1)) / 2
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), rel=1e-6)


def test_the_interval_holds_the_true_mean_in_95_of_100_samples() -> None:
    samples = numpy.random.default_rng(0).normal(5.0, 2.0, size=(4000, 3))
    found = [spread(list(map(float, sample))) for sample in samples]
    share = sum((one.low or 0.0) <= 5.0 <= (one.high or 0.0) for one in found) / len(found)
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_of_one_number_no_spread_is_known() -> None:
    found = spread([0.4])
    assert (found.mean, found.n) == (0.4, 1)
    assert found.deviation is found.low is found.high is found.excludes_zero is None


def test_an_interval_that_begins_at_zero_does_not_exclude_it() -> None:
    assert spread([1.0, 1.1, 0.9]).excludes_zero is True
    assert spread([1.0, -1.1, 0.9]).excludes_zero is False
    assert spread([0.0, 0.0]).excludes_zero is False

"""Means by setting and the verdict on the best two, held against numbers worked out by hand."""

from __future__ import annotations

import pytest

from limner.sweep.judging import Table, tables
from limner.sweep.numbers import Measure, Value

LOSS = Measure("loss", "loss", "lower")


def table_of(values: dict[str, list[float]], measure: Measure = LOSS, basis: dict[str, str] | None = None) -> Table:
    runs = [
        (setting, str(seed), [Value(measure, value, frozenset([(basis or {}).get(setting, "same")]))])
        for setting, row in values.items()
        for seed, value in enumerate(row)
    ]
    (found,) = tables(runs)
    return found


def test_seeds_are_averaged_by_setting() -> None:
    found = table_of({"a": [0.1, 0.2, 0.3], "b": [0.5]})
    first, second = (cell.spread for cell in found.cells)
    assert (first.mean, first.deviation, first.n) == pytest.approx((0.2, 0.1, 3))
    assert (first.low, first.high) == pytest.approx((0.2 - 4.302653 * 0.1 / 3**0.5, 0.2 + 4.302653 * 0.1 / 3**0.5))
    assert found.rows()[0][1] == "0.20000 ± 0.10000 (3 runs; 95 % interval of the mean -0.04841 to 0.44841)"
    assert second.n == 1
    assert "nothing is known of the spread" in found.rows()[1][1]


def test_a_difference_that_every_seed_shows_is_beyond_the_noise_however_far_the_seeds_lie_apart() -> None:
    """By hand: differences -0.010, -0.011, -0.012: mean -0.011, deviation 0.001, half width 4.302653 * 0.001 / 3^0.5"""
    found = table_of({"a": [0.10, 0.50, 0.90], "b": [0.110, 0.511, 0.912], "c": [2.0, 2.0, 2.0]})
    assert found.verdict() == (
        "lowest: a, then b, beyond the noise: difference -0.01100 (-0.01348 to -0.00852), 3 pairs of equal seeds"
    )


def test_a_difference_that_changes_its_sign_is_inside_the_noise() -> None:
    verdict = table_of({"a": [0.10, 0.50, 0.90], "b": [0.110, 0.499, 0.912]}).verdict()
    assert verdict.startswith("lowest: a, then b, but inside the noise: difference -0.00700")


def test_the_higher_is_better_where_it_is() -> None:
    accuracy = Measure("accuracy", "percent", "higher")
    verdict = table_of({"a": [0.5, 0.51], "b": [0.6, 0.61]}, accuracy).verdict()
    assert verdict.startswith("highest: b, then a, beyond the noise: difference +10.00 points")


def test_one_run_each_says_nothing_of_the_spread() -> None:
    assert "nothing is known of the spread" in table_of({"a": [0.1], "b": [0.2]}).verdict()


def test_only_seeds_that_both_have_are_paired() -> None:
    runs = [("a", seed, [Value(LOSS, 0.1, frozenset("x"))]) for seed in ("1", "2", "3")]
    runs += [("b", seed, [Value(LOSS, 0.2, frozenset("x"))]) for seed in ("2", "3")]
    (found,) = tables(runs)
    assert "2 pairs of equal seeds" in found.verdict()
    (found,) = tables(runs[:3] + runs[3:4])
    assert "no two seeds of both" in found.verdict()


def test_what_was_not_measured_on_the_same_is_not_compared() -> None:
    values = {"a": [0.1, 0.1], "b": [0.2, 0.21], "c": [0.3, 0.31]}
    assert table_of(values, basis={"c": "other pictures"}).verdict().startswith("not compared")
    assert table_of(values).verdict().startswith("lowest: a")


def test_a_measure_without_a_better_end_has_no_verdict() -> None:
    assert table_of({"a": [1.0], "b": [2.0]}, Measure("seconds", "seconds")).verdict() == ""
    assert table_of({"a": [1.0, 2.0]}).verdict() == ""

"""Intervals: against textbook numbers, against a plain bootstrap, and what they must not depend on."""

from __future__ import annotations

import random
import statistics

import pytest

from limner.core.intervals import bootstrap, paired_change, wilson


def test_wilson_is_the_solution_of_its_own_equation() -> None:
    for right, count in ((0, 10), (3, 10), (81, 263), (500, 500)):
        for end in wilson(right / count, count):
            if 0 < end < 1:  # |share - end| = z * sqrt(end (1 - end) / n)
                assert (right / count - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count)
    assert wilson(0.0, 10)[0] == 0
    assert wilson(1.0, 10)[1] == pytest.approx(1)
    assert wilson(1.0, 10)[0] < 0.8


def outcomes(count: int, rate: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < rate) for _ in range(count)]


def test_the_paired_interval_is_that_of_a_plain_bootstrap() -> None:
    before, after = outcomes(300, 0.5, 1), outcomes(300, 0.7, 2)
    change = paired_change(before, after)
    rng = random.Random(0)
    pairs = list(zip(before, after, strict=True))
    means = sorted(sum(b - a for a, b in rng.choices(pairs, k=300)) / 300 for _ in range(2000))
    assert change.value == pytest.approx(sum(after) / 300 - sum(before) / 300)
    assert change.low == pytest.approx(means[50], abs=0.01)
    assert change.high == pytest.approx(means[1950], abs=0.01)
    assert not change.within_noise


def test_pairs_make_the_interval_narrower_than_two_strangers_would() -> None:
    before = outcomes(200, 0.5, 1)
    after = [1.0 if number < 12 else one for number, one in enumerate(before)]
    shuffled = random.Random(0).sample(after, k=len(after))
    paired, strangers = paired_change(before, after), paired_change(before, shuffled)
    assert paired.value == pytest.approx(strangers.value)
    assert paired.high - paired.low < (strangers.high - strangers.low) / 2


def test_the_order_of_the_pictures_changes_nothing() -> None:
    pairs = list(zip(outcomes(100, 0.4, 1), outcomes(100, 0.6, 2), strict=True))
    mixed = random.Random(3).sample(pairs, k=len(pairs))
    assert paired_change(*zip(*pairs, strict=True)) == paired_change(*zip(*mixed, strict=True))


def test_five_pictures_that_all_got_better_are_still_within_the_noise_and_six_are_not() -> None:
    assert paired_change([0.0] * 5, [1.0] * 5).within_noise
    assert not paired_change([0.0] * 6, [1.0] * 6).within_noise
    same = paired_change([1.0, 0.0] * 50, [1.0, 0.0] * 50)
    assert (same.value, same.low, same.high, same.changed, same.within_noise) == (0, 0, 0, 0, True)


def test_as_many_better_as_worse_is_within_the_noise() -> None:
    assert paired_change([0.0] * 40 + [1.0] * 40, [1.0] * 40 + [0.0] * 40).within_noise


def test_other_pictures_are_no_pair() -> None:
    with pytest.raises(ValueError, match="each picture"):
        paired_change([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="each picture"):
        paired_change([], [])


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(400):
        before, after = outcomes(150, 0.5, 2 * seed + 1), outcomes(150, 0.6, 2 * seed + 2)
        change = paired_change(before, after)
        held += change.low <= 0.1 <= change.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = [float(number % 10) for number in range(400)]
    mean, low, high = bootstrap(values)
    half = 1.96 * statistics.pstdev(values) / len(values) ** 0.5
    assert mean == pytest.approx(4.5)
    assert (low, high) == (pytest.approx(4.5 - half, abs=0.1 * half), pytest.approx(4.5 + half, abs=0.1 * half))
    assert bootstrap(values[::-1]) == (mean, low, high)

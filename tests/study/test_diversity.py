"""The diversity of a class: nothing for equal pictures and for none of the class, more the more they differ."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from limner.builtin.judge import Reading, Seen
from limner.builtin.world.sitter import SITTER
from limner.study.diversity import Estimate, as_share, distance, diversity


def cat(colour: str = "red", x: float = 0.5, y: float = 0.5, kind: str = "cat", score: float = 0.9) -> Seen:
    return Seen(kind, colour, x, y, score)


def picture(*things: Seen, background: str = "sky", style: str = "flat") -> Reading:
    return Reading(things, background, style)


RED = picture(cat())


def test_equal_pictures_have_none() -> None:
    assert diversity([RED, RED, RED], "cat") == 0.0


DIFFERENT = {
    "colour": (picture(cat("blue")), 1 / 4),
    "place": (picture(cat(x=0.75)), 0.5 / 4),
    "far": (picture(cat(x=0.0, y=0.0)), 1 / 4),
    "background": (replace(RED, background="snow"), 1 / 4),
    "style": (replace(RED, style="pixel"), 1 / 4),
    "one more of another colour": (picture(cat(), cat("blue", 0.1, 0.1, score=0.5)), 0.5 / 4),
    "everything": (picture(cat("blue", 0.0, 0.0), background="snow", style="pixel"), 1.0),
}


@pytest.mark.parametrize(("other", "expected"), DIFFERENT.values(), ids=DIFFERENT)
def test_each_difference_counts_a_quarter(other: Reading, expected: float) -> None:
    assert distance(RED, other, "cat") == pytest.approx(expected)
    assert distance(other, RED, "cat") == distance(RED, other, "cat")


def test_what_is_no_member_adds_nothing() -> None:
    subjects = [picture(cat(colour, kind=SITTER)) for colour in ("red", "blue", "green")]
    assert diversity(subjects, "cat") == 0.0
    varied = [picture(cat(colour)) for colour in ("red", "blue", "green")]
    one_lost = [*varied[:2], picture()]
    assert diversity(varied, "cat") == pytest.approx(1 / 4)
    assert diversity(one_lost, "cat") == pytest.approx(1 / 4 / 3)  # one pair of three is left
    beside = [picture(cat(), cat(other, 0.1, 0.1, kind="boat")) for other in ("red", "blue")]
    assert diversity(beside, "cat") == 0.0


def test_the_order_of_the_pictures_does_not_matter() -> None:
    readings = [RED, *(reading for reading, _ in DIFFERENT.values())][:5]
    values = [diversity(order, "cat") for order in itertools.permutations(readings)]
    assert max(values) - min(values) < 1e-12
    assert 0 < values[0] < 1


def test_a_share_of_the_base_is_the_ratio_of_the_means() -> None:
    found = as_share([0.1, 0.3, 0.2, 0.2], [0.2, 0.6, 0.4, 0.4])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))  # paired: no chance is left
    spread = as_share([0.4, 0.0] * 20, [0.2, 0.2] * 20)
    assert spread is not None
    assert spread.value == pytest.approx(1.0)
    error = math.sqrt(1.0 / 40)  # of the mean of ratios 2 and 0, each as likely
    assert spread.low == pytest.approx(1 - 1.96 * error, abs=0.06)
    assert spread.high == pytest.approx(1 + 1.96 * error, abs=0.06)
    assert as_share([0.4, 0.0] * 20, [0.2, 0.2] * 20) == spread


def test_without_diversity_in_the_base_there_is_no_share() -> None:
    assert as_share([0.1, 0.2], [0.0, 0.0]) is None
    seldom = as_share([0.1, 0.2], [0.0, 0.1])
    assert isinstance(seldom, Estimate)
    assert seldom.high == math.inf
    with pytest.raises(ValueError, match="a number for each prompt"):
        as_share([0.1], [0.1, 0.2])

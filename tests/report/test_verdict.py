"""What the evidence is called, and which checkpoint is kept."""

from __future__ import annotations

import pytest

from limner.core.intervals import Change
from limner.report.evidence import HELD_OUT, LEARNED, Compared, Evidence, Since, Worth
from limner.report.verdict import Name, judge, recommend


def compared(value: float, *, noise: float = 0.01, base: float = 0.5) -> Compared:
    """A change that lies outside of the noise where it is larger than it."""
    return Compared(base, base + value, Change(value, value - noise, value + noise, changed=20), 20)


def evidence(
    step: int = 10,
    learned: float = -0.2,
    held_out: float | None = -0.1,
    worth: float | None = 0.1,
    since: float | None = None,
) -> Evidence:
    part = LEARNED if held_out is None else HELD_OUT
    earlier = None if since is None else Since(5, compared(since))
    return Evidence(
        step,
        compared(learned),
        None if held_out is None else compared(held_out),
        earlier,
        None if worth is None else Worth(part, (0.2, 0.19, 0.21), (worth, worth - 0.01, worth + 0.01), 20),
    )


CASES: dict[Name, list[Evidence]] = {
    "good": [evidence(), evidence(since=0.005), evidence(since=-0.05), evidence(worth=None), evidence(worth=0.02)],
    "undertrained": [
        evidence(learned=-0.005),
        Evidence(1, compared(-0.0049, noise=1e-4), compared(-0.1), None, None),
        evidence(learned=0.3, held_out=0.3, worth=-0.3),
    ],
    "captions do not fit": [evidence(worth=-0.05), evidence(worth=0.005), evidence(worth=0.0, held_out=0.1)],
    "overtrained": [evidence(held_out=0.1), evidence(held_out=0.1, worth=None), evidence(since=0.05)],
    "not shown": [
        evidence(held_out=None),
        evidence(held_out=None, worth=0.0),
        evidence(held_out=-0.005),
        evidence(held_out=0.005),
    ],
}


@pytest.mark.parametrize(("name", "found"), [(name, one) for name, row in CASES.items() for one in row])
def test_the_evidence_has_its_name_and_the_reason_has_its_numbers(name: Name, found: Evidence) -> None:
    verdict = judge(found)
    assert verdict.name == name
    assert "with the base model 0.2000 (0.1900 to 0.2100)" in verdict.reason or "0.5000 to" in verdict.reason
    assert verdict.advice.endswith(".")


def test_a_change_of_fewer_than_six_pictures_is_noise() -> None:
    few = Compared(0.5, 0.3, Change(-0.2, -0.3, -0.1, changed=5), 5)
    assert judge(Evidence(1, few, None, None, None)).name == "undertrained"


def test_the_good_checkpoint_with_the_lowest_held_out_loss_is_kept() -> None:
    row = [
        evidence(10, held_out=-0.05),
        evidence(20, held_out=-0.2),
        evidence(30, held_out=-0.1),
        evidence(40, held_out=0.3),
    ]
    best = recommend(row)
    assert best.step == 20
    assert best.verdict.name == "good"
    assert best.reason == "step 20: the lowest loss on held-out pictures; the last, step 40: overtrained"


def test_of_two_equal_ones_the_earlier_is_kept() -> None:
    assert recommend([evidence(10), evidence(20)]).step == 10


def test_without_anything_held_out_the_last_is_kept_and_it_is_said_that_nothing_is_shown() -> None:
    best = recommend([evidence(10, held_out=None), evidence(20, held_out=None)])
    assert (best.step, best.verdict.name) == (20, "not shown")
    assert "no loss on other pictures tells more" in best.reason


@pytest.mark.parametrize("bad", [evidence(learned=0.0), evidence(worth=-0.1), evidence(held_out=0.1)])
def test_the_base_is_kept_where_no_checkpoint_is_better(bad: Evidence) -> None:
    best = recommend([bad])
    assert best.step is None
    assert best.reason == f"the base model: no checkpoint is better; the last, step 10: {judge(bad).name}"

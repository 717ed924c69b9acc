"""What is made of the losses of two models on the same pictures."""

from __future__ import annotations

import pytest

from limner.report.evidence import HELD_OUT, LEARNED, PartLosses, weigh

OWN = {"a": [1.0, 2.0], "b": [3.0, 5.0]}
SWAPPED = {"a": [2.0, 2.0], "b": [3.0, 6.0]}


def lower(losses: dict[str, list[float]], by: float) -> dict[str, list[float]]:
    return {name: [loss - by for loss in values] for name, values in losses.items()}


def test_the_loss_of_a_picture_is_the_mean_of_its_draws_and_that_of_a_part_of_the_timesteps_that_of_its_pictures() -> (
    None
):
    losses = PartLosses(OWN, SWAPPED)
    assert losses.means() == [1.5, 4.0]
    assert losses.by_timestep() == [2.0, 3.5]
    assert losses.worth() == [0.5, 0.5]
    assert PartLosses(OWN, None).worth() is None


def test_every_number_is_paired_with_the_base_s() -> None:
    base = {LEARNED: PartLosses(OWN, SWAPPED), HELD_OUT: PartLosses(OWN, SWAPPED)}
    tuned = {
        LEARNED: PartLosses(lower(OWN, 0.5), lower(SWAPPED, 0.5)),
        HELD_OUT: PartLosses(lower(OWN, 0.25), SWAPPED),
    }
    (found,) = weigh(base, {7: tuned})
    assert (found.step, found.since_best) == (7, None)
    assert found.learned.change.value == pytest.approx(-0.5)
    assert found.held_out is not None
    assert (found.held_out.base, found.held_out.tuned) == (2.75, 2.5)
    assert found.worth is not None
    assert (found.worth.part, found.worth.base[0], found.worth.tuned[0]) == (HELD_OUT, 0.5, 0.75)
    assert found.worth.shown
    assert found.learned.pictures == 2


def test_without_a_held_out_part_a_caption_s_worth_is_that_of_the_pictures_learned_from() -> None:
    base = {LEARNED: PartLosses(OWN, SWAPPED)}
    (found,) = weigh(base, {1: {LEARNED: PartLosses(OWN, lower(SWAPPED, 0.5))}})
    assert found.held_out is None
    assert found.worth is not None
    assert (found.worth.part, found.worth.tuned) == (LEARNED, (0.0, 0.0, 0.0))
    assert not found.worth.shown


def test_a_checkpoint_is_held_against_the_best_of_those_before_it() -> None:
    def held_out(by: float) -> dict[str, PartLosses]:
        return {LEARNED: PartLosses(OWN, None), HELD_OUT: PartLosses(lower(OWN, by), None)}

    row = weigh(held_out(0), {30: held_out(0.1), 10: held_out(0.2), 20: held_out(0.5), 40: held_out(0.6)})
    assert [one.step for one in row] == [10, 20, 30, 40]
    assert row[0].since_best is None
    changes = [(one.since_best.step, one.since_best.held_out.change.value) for one in row if one.since_best]
    assert changes == [(10, pytest.approx(-0.3)), (20, pytest.approx(0.4)), (20, pytest.approx(-0.1))]

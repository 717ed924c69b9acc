"""When a run ends for want of a better loss, which step is the best, and what is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.training.course import Course, Measurement
from limner.training.validation import Validation


def course(tmp_path: Path, losses: list[float], **settings: object) -> Course:
    made = Course(RunDir(tmp_path), Validation.model_validate({"every": 10, **settings}))
    for number, loss in enumerate(losses):
        made.add(Measurement(10 * number, loss, (loss - 0.5, loss + 0.5), "the trained weights"))
    return made


@pytest.mark.parametrize(
    ("losses", "settings", "since"),
    [
        ([1.0], {"patience": 1}, None),
        ([1.0, 1.1], {"patience": 1}, 0),  # the base is the first to beat
        ([1.0, 1.0], {"patience": 1}, 0),  # an equal loss is no better one
        ([1.0, 1.1, 0.9], {"patience": 2}, None),
        ([1.0, 0.9, 1.1, 0.95], {"patience": 2}, 10),
        ([1.0, 0.9, 1.1, 0.89, 0.9], {"patience": 2}, None),
        ([1.0, 0.95, 0.92], {"patience": 2, "min_improvement": 0.1}, 0),
        ([1.0, 0.95, 0.89], {"patience": 2, "min_improvement": 0.1}, None),
        ([1.0, 0.89, 0.81, 0.805], {"patience": 2, "min_improvement": 0.1}, 10),  # of what was beaten last
        ([1.0, 2.0, 3.0, 4.0], {}, None),
    ],
)
def test_patience_is_over(tmp_path: Path, losses: list[float], settings: dict[str, object], since: int | None) -> None:
    reason = course(tmp_path, losses, **settings).patience_is_over()
    if since is None:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith(f"patience: {settings['patience']} measurements without a lower loss")
        assert reason.endswith(f"since step {since}")


def test_the_best_is_the_first_of_the_lowest_and_never_the_base(tmp_path: Path) -> None:
    assert course(tmp_path, [0.1]).best is None
    assert course(tmp_path, [0.1]).verdict() is None
    best = course(tmp_path, [0.1, 0.5, 0.3, 0.3, 0.4]).best
    assert best is not None
    assert best.step == 20


def test_a_step_that_moved_nothing_is_no_trained_model_and_costs_no_patience(tmp_path: Path) -> None:
    made = course(tmp_path, [1.0], patience=2)
    for step in (10, 20, 30):
        made.add(Measurement(step, 1.0, (), "the base model's weights"))
    assert made.best is None
    assert made.patience_is_over() is None
    made.add(Measurement(40, 2.0, (), "the trained weights"))
    assert made.best is not None
    assert made.best.step == 40
    made.add(Measurement(50, 3.0, (), "the trained weights"))
    assert made.patience_is_over() is not None


def test_a_course_is_read_back_to_the_last_bit_and_later_measurements_are_dropped(tmp_path: Path) -> None:
    written = course(tmp_path, [1.0, 1 / 3, 0.2, 0.1 + 0.2])
    read = Course(RunDir(tmp_path), written.settings)
    read.restore(29)
    assert read.measurements == written.measurements[:3]
    again = Course(RunDir(tmp_path), written.settings)
    again.restore(20)
    assert again.measurements == written.measurements[:3]
    assert json.loads(RunDir(tmp_path).best.read_text())["best_step"] == 20


def test_a_measurement_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    written = course(tmp_path, [1.0, 0.5, 0.2])
    path = RunDir(tmp_path).validation
    lines = path.read_text().splitlines(keepends=True)
    for changed, says in (
        (lines[:1] + lines[2:], "does not hold the measurement of step 10"),
        (lines[1:], "does not hold the measurement of step 0"),
        ([*lines[:2], '{"step": 20, "loss": null}\n'], "line of step 20 is damaged"),
        ([*lines[:2], "{]\n"], "is damaged"),
    ):
        path.write_text("".join(changed))
        with pytest.raises(UserError, match=says):
            Course(RunDir(tmp_path), written.settings).restore(20)
    path.write_text("")
    Course(RunDir(tmp_path), written.settings).restore(0)  # killed before the base was measured


def test_best_json_says_why_and_what(tmp_path: Path) -> None:
    made = course(tmp_path, [1.0, 0.5, 0.75])
    verdict = made.record(ended="patience: 1", exported_step=10)
    assert verdict is not None
    assert json.loads(RunDir(tmp_path).best.read_text()) == {
        "base_loss": 1.0,
        "best_step": 10,
        "best_loss": 0.5,
        "last_step": 20,
        "last_loss": 0.75,
        "weights": "the trained weights",
        "ended": "patience: 1",
        "exported_step": 10,
        "best_checkpoint": "checkpoints/step_000010",
        "exported_checkpoint": "checkpoints/step_000010",
    }
    assert "0.50000 at step 10, the best (-50.00% against the base's 1.00000)" in verdict.sentence()

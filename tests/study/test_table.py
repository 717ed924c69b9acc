"""The table tells what was measured, no more, and goes into the page between its markers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.builtin.scoring import Share
from limner.study.diversity import Estimate
from limner.study.grid import STUDIES, Conditions, Setting, Study, lora
from limner.study.measuring import Numbers
from limner.study.plot import MOST_DIVERSITY, plot, point
from limner.study.running import BASE, Measured, Row
from limner.study.table import as_markdown, reaching
from limner.study.training import Trained

STUDY = Study(
    "trial",
    "A trial",
    "sitter",
    (Setting("alone", lora(), 1e-3, (100, 200)), Setting("with its class", lora(), 1e-3, (200,), "class pictures")),
    bars={"recognised": 0.85, "diversity": 0.90},
)
SHARE = Share(0, 10)
NUMBERS = Numbers(SHARE, Share(1, 12), Share(1, 13), Share(1, 14), Share(9, 10), SHARE, (0.2, 0.4), 20)


def row(name: str, steps: int, recognised: int, diversity: Estimate | None, drift: int = 0) -> Row:
    found = replace(NUMBERS, recognised=Share(recognised, 10), drift=Share(drift, 10))
    return Row(name, steps, found, diversity, Trained(Path("kept"), 12345, 678_900, 12.4))


MEASURED = Measured(
    STUDY,
    Conditions(prompts=5, seeds=2),
    "builtin",
    (
        Row(BASE, 0, NUMBERS, Estimate(1.0, 1.0, 1.0), None),
        row("alone", 100, 8, Estimate(0.95, 0.9, 1.0)),
        row("alone", 200, 9, Estimate(0.4, 0.3, 0.5), drift=7),
        row("with its class", 200, 9, Estimate(0.9, 0.8, 1.1)),
    ),
    0,
)


def lines(measured: Measured) -> list[list[str]]:
    table = [line for line in as_markdown(measured, "x.png").split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_row_has_its_numbers_in_their_columns() -> None:
    head, rule, *rows = lines(MEASURED)
    assert len({len(cells) for cells in (head, rule, *rows)}) == 1
    assert [cells[:2] for cells in rows] == [
        [BASE, "0"],
        ["alone", "100"],
        ["alone", "200"],
        ["with its class", "200"],
    ]
    found = dict(zip(head, rows[2], strict=True))
    assert found["recognised"] == "90.0 % (59.6 to 98.2)"
    assert found["class drift"] == "70.0 % (39.7 to 89.2)"
    assert found["class diversity"] == "40.0 % (30.0 to 50.0)"
    assert found["things right"].startswith("8.3 % (")
    assert found["in their colours"].startswith("7.7 % (")
    assert found["background right"].startswith("7.1 % (")
    assert found["class drawn"].startswith("90.0 % (")
    assert (found["numbers trained"], found["file, MB"], found["training, s"]) == ("12,345", "0.679", "12")


def test_the_base_model_is_the_measure_and_cost_nothing() -> None:
    base = dict(zip(lines(MEASURED)[0], lines(MEASURED)[2], strict=True))
    assert base["class diversity"] == "0.300, the measure of the others"
    assert (base["numbers trained"], base["file, MB"], base["training, s"]) == ("", "", "")


def test_only_rows_that_reach_every_bar_are_said_to() -> None:
    assert [(one.name, one.steps) for one in reaching(MEASURED)] == [("with its class", 200)]
    text = as_markdown(MEASURED, "x.png")
    assert "recognised at least 85 % and class diversity at least 90 %. Reached by: with its class." in text
    none = replace(MEASURED, rows=MEASURED.rows[:3])
    assert "Reached by: none." in as_markdown(none, "x.png")
    unbarred = replace(MEASURED, study=replace(STUDY, bars={}))
    assert "Asked for before" not in as_markdown(unbarred, "x.png")


def test_what_was_not_measured_is_no_number_and_reaches_no_bar() -> None:
    lost = row("with its class", 200, 10, None)
    found = replace(MEASURED, rows=(*MEASURED.rows[:1], lost))
    assert lines(found)[3][8] == "none to compare with"
    assert reaching(found) == []
    single = replace(found, rows=(replace(lost, numbers=replace(NUMBERS, diversity=None)),))
    assert lines(single)[2][8] == "not measured: one seed"
    wide = replace(lost, diversity=Estimate(1.5, 0.5, float("inf")))
    assert lines(replace(found, rows=(wide,)))[2][8] == "150.0 % (50.0 to no bound)"


def test_the_text_says_how_it_was_measured() -> None:
    text = as_markdown(MEASURED, "../images/x.png")
    assert text.startswith("`python -m limner.builtin_study trial --model builtin --prompts 5 --seeds 2`\n")
    assert "Of each row 20 pictures were judged: 5 prompts for new scenes and 5 class prompts, 2 seeds each" in text
    assert "](../images/x.png)" in text
    assert "had no effect" not in text
    assert "3 prompts are longer than the model reads" in as_markdown(replace(MEASURED, cut_prompts=3), "x.png")


# ---------------------------------------------------------------------------------------------------------- the plot
def pixels(measured: Measured) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(plot(measured))).convert("RGB"), np.int64)


def ink(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - np.array(colour)).sum(axis=2) < 12).sum())


POINTS, INTERVALS, BARS, BASE_LEVEL = (27, 58, 87), (158, 197, 232), (200, 68, 46), (128, 128, 128)


def test_points_intervals_and_bars_are_drawn() -> None:
    picture = pixels(MEASURED)
    assert picture.shape[1] == 1210
    assert ink(picture, INTERVALS) > 1000
    assert ink(picture, POINTS) > 300
    assert ink(picture, BARS) > 50
    assert ink(pixels(replace(MEASURED, study=replace(STUDY, bars={}))), BARS) == 0
    assert ink(pixels(replace(MEASURED, rows=MEASURED.rows[:2])), POINTS) < ink(picture, POINTS)


def test_curves_go_over_the_steps() -> None:
    study = STUDIES["learning_rate"]
    rows = tuple(
        row(setting.name, steps, min(10, round(steps * setting.lr * 20)), Estimate(1 - 50 * setting.lr, 0.8, 1.1))
        for setting in study.settings
        for steps in setting.steps
    )
    measured = replace(MEASURED, study=study, rows=(*MEASURED.rows[:1], *rows))
    assert ink(pixels(measured), POINTS) > 300
    assert ink(pixels(measured), BARS) > 100  # the fourth curve
    assert ink(pixels(measured), BASE_LEVEL) > 300


def test_a_panel_shows_percent_with_the_interval_and_nothing_where_nothing_was_measured() -> None:
    assert point(MEASURED.rows[3], "diversity") == pytest.approx((90.0, 80.0, 110.0))
    assert point(MEASURED.rows[2], "drift") == pytest.approx((70.0, 39.7, 89.2), abs=0.05)
    assert point(replace(MEASURED.rows[3], diversity=None), "diversity") is None
    unbound = replace(MEASURED.rows[3], diversity=Estimate(1.0, 0.5, float("inf")))
    assert point(unbound, "diversity") == (100.0, 50.0, MOST_DIVERSITY)

"""The plots of a report: what is drawn is what was measured."""

from __future__ import annotations

import re
from dataclasses import replace

from limner.report.plots import loss_plot, rate_plot
from tests.elements import Elements
from tests.report.test_verdict import evidence


def points(svg: str) -> list[list[tuple[float, float]]]:
    found = [attributes["points"] or "" for tag, attributes in Elements(svg).elements if tag == "polyline"]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in found]


def test_both_losses_begin_at_the_base_s_and_lower_ones_are_drawn_lower() -> None:
    row = (evidence(10), evidence(20, held_out=0.2))
    assert row[1].held_out is not None
    learned, held_out = points(loss_plot(row))
    assert (len(learned), len(held_out)) == (3, 3)
    assert learned[0][0] == held_out[0][0] < learned[1][0] < learned[2][0]
    assert held_out[1][1] > held_out[0][1] > held_out[2][1], "SVG counts from the top: fell, then rose above the base"
    assert f"{row[1].held_out.tuned:.3f} at the last" in loss_plot(row)
    assert re.findall(r'class="key(\d)">([a-z ]+)<', loss_plot(row)) == [("0", "learned from"), ("1", "held out")]


def test_without_held_out_pictures_there_is_one_line() -> None:
    (learned,) = points(loss_plot((replace(evidence(10), held_out=None),)))
    assert len(learned) == 2


def test_a_long_course_of_the_rate_is_thinned() -> None:
    (line,) = points(rate_plot([(step, 1e-3 * step) for step in range(1, 10_001)]))
    assert 300 < len(line) < 900
    assert line[0][1] > line[-1][1]
    (flat,) = points(rate_plot([(1, 1e-3), (2, 1e-3)]))
    assert flat[0][1] == flat[1][1]

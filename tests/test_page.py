"""What all pages share."""

from __future__ import annotations

import re
from html import unescape

from limner.page import loss_curve, running_mean


def test_the_loss_curve_has_a_point_for_each_step_and_lower_is_lower() -> None:
    svg = loss_curve([1.0, 0.5, 0.25])
    thin, thick = re.findall(r'points="([^"]*)"', svg)
    heights = [float(point.partition(",")[2]) for point in thin.split()]
    assert heights == sorted(heights)
    assert len(thick.split()) == 3
    assert "Loss over 3 steps, 1.000 at the first, 0.250 at the last" in unescape(svg)
    assert loss_curve([0.5])


def test_the_running_mean_keeps_a_constant_and_smooths_a_jump() -> None:
    assert running_mean([2.0] * 40) == [2.0] * 40
    jump = running_mean([0.0] * 20 + [1.0] * 20)
    assert jump[0] == 0
    assert jump[-1] == 1
    assert 0 < jump[19] < jump[20] < 1

"""What all pages share."""

from __future__ import annotations

import random
import re
import statistics
from html import unescape

import pytest
from PIL import Image

from limner.page import MOST_BYTES, commands, loss_curve, running_mean, shown, table
from tests.elements import Elements


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


def test_the_running_mean_is_the_mean_of_the_neighbours() -> None:
    losses = [random.Random(0).random() for _ in range(100)]
    means = [statistics.mean(losses[max(0, i - 5) : i + 6]) for i in range(100)]
    assert running_mean(losses) == pytest.approx(means, rel=1e-12)


def test_the_curve_of_a_long_run_is_short_and_keeps_the_lowest_and_the_highest() -> None:
    rng = random.Random(0)
    losses = [rng.random() for _ in range(100_000)]
    losses[54_321], losses[76_543] = 7.0, -3.0
    svg = loss_curve(losses)
    assert len(svg) < 50_000
    thin, thick = (
        [tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall(r'points="([^"]*)"', svg)
    )
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert pytest.approx(min(thin, key=lambda point: point[1]), abs=0.06) == (72 + 640 * 54_321 / 99_999, 8)
    assert pytest.approx(max(thin, key=lambda point: point[1]), abs=0.06) == (72 + 640 * 76_543 / 99_999, 210)
    assert {thin[0][0], thick[0][0]} == {72}
    assert {thin[-1][0], thick[-1][0]} == {712}


@pytest.mark.parametrize(
    ("side", "among", "kind"),
    [(64, 48, "png"), (64, 600, "jpeg"), (256, 1, "png"), (256, 48, "jpeg"), (257, 1, "jpeg"), (1024, 600, "jpeg")],
)
def test_so_many_pictures_fit_into_a_page(side: int, among: int, kind: str) -> None:
    noise = Image.effect_noise((side, side), 100).convert("RGB")
    text = shown(noise, side=512, among=among)
    assert len(text) * among <= MOST_BYTES
    assert text.startswith(f"data:image/{kind};")


def test_paths_break_after_a_slash_and_options_nowhere() -> None:
    html = table([("a/b", "/home/<me>")]) + commands([("Draw:", "limner draw --out-put a-b -n 1 'x --y'")])
    assert "<td>/<wbr>home/<wbr>&lt;me&gt;</td>" in html
    assert "".join(Elements(html).texts) == "a/b/home/<me>Draw:limner draw --out-put a-b -n 1 'x --y'"
    assert re.findall(r'class="whole">([^<]*)<', html) == ["--out-put", "-n", "--y"]

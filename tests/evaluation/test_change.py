"""How far two pictures are from each other."""

from __future__ import annotations

import pytest
from PIL import Image

from limner.evaluation.change import pixel_change


def test_white_is_all_of_the_range_from_black_and_nothing_from_itself() -> None:
    black, white = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")
    assert (pixel_change(black, white), pixel_change(white, white)) == (1, 0)


def test_it_is_the_mean_over_pixels_and_colours() -> None:
    one = Image.new("RGB", (2, 1))
    one.putpixel((0, 0), (51, 0, 0))
    assert pixel_change(Image.new("RGB", (2, 1)), one) == pytest.approx(0.2 / 6)

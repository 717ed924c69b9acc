"""Pictures of one colour are told from others."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from limner.data.duplicates import signature
from limner.data.plain import one_colour


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", "#804020"])
def test_one_colour_is_named_as_png_and_as_jpeg(colour: str) -> None:
    image = Image.new("RGB", (70, 50), colour)
    assert one_colour(signature(image)) == colour
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    assert one_colour(signature(Image.open(buffer).convert("RGB"))) != ""


def test_a_dark_picture_with_something_in_it_is_not_of_one_colour() -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste((60, 60, 60), (20, 20, 30, 30))
    assert one_colour(signature(image)) == ""
    assert one_colour(signature(Image.linear_gradient("L").convert("RGB"))) == ""

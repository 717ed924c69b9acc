"""The contact sheet: the first generated pictures with their captions, right and wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from limner.builtin.world import SIDE
from limner.judged.measuring import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = 8
RED, GREY, INK = (214, 32, 40), (216, 216, 216), (32, 32, 32)
GAP, FRAME, FONT_PIXELS, LINE_PIXELS, LETTERS = 10, 4, 10, 12, 26


def contact_sheet(samples: Sequence[Sample]) -> Image:
    """Returns the pictures in rows of eight, each over its caption; a wrong one is framed in red and says what."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_PIXELS)
    written = [_lines(sample) for sample in samples]
    framed = SIDE + 2 * FRAME
    width, height = framed + GAP, framed + max(map(len, written)) * LINE_PIXELS + 2 * GAP
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (sample, lines) in enumerate(zip(samples, written, strict=True)):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * width, GAP + row * height
        colour, border = (RED, FRAME) if sample.wrong else (GREY, 1)
        first, last = FRAME - border, framed - 1 - (FRAME - border)
        pen.rectangle((x + first, y + first, x + last, y + last), fill=colour)
        sheet.paste(sample.image, (x + FRAME, y + FRAME))
        for below, (line, ink) in enumerate(lines):
            pen.text((x, y + framed + 2 + below * LINE_PIXELS), line, font=font, fill=ink)
    return sheet


def _lines(sample: Sample) -> list[tuple[str, tuple[int, int, int]]]:
    """Returns the lines below a picture, each with its colour."""
    wrong = f"wrong: {', '.join(sample.wrong)}" if sample.wrong else ""
    return [(line, ink) for text, ink in ((sample.caption, INK), (wrong, RED)) for line in textwrap.wrap(text, LETTERS)]

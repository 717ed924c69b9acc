"""The tables of a grid as one picture, with what lies along the sides written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    Font = FreeTypeFont | BitmapFont

LONGEST_SIDE = 12_000
"""Pixels of all pictures of the sheet side by side; larger grids are drawn smaller."""
GAP, INK, SOFT, GROUND = 8, (32, 32, 32), (96, 96, 96), "white"
COLUMN_LINES, TITLE_LINES = 4, 3
_ELLIPSIS = "..."


@dataclass(frozen=True)
class Shown:
    """A picture at its place."""

    image: Image
    file: str
    """Where the whole picture lies, beside the page."""
    words: str
    """What it is, for those who do not see it."""


@dataclass(frozen=True)
class Table:
    """Rows of pictures with what stands at the sides; a text is empty where nothing changes along a side."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    pictures: tuple[tuple[Shown, ...], ...]


def sheet(about: str, tables: Sequence[Table]) -> Image:
    """Returns all tables below each other under the line ``about``. Long texts are cut, and end in three dots."""
    from PIL import Image, ImageFont

    width, height = _side(tables)
    size = max(11, min(28, width // 14))
    fonts = _Fonts(ImageFont.load_default(size), ImageFont.load_default(size * 5 // 4), size * 5 // 4)
    names = max((fonts.plain.getlength(row) for table in tables for row in table.rows), default=0)
    left = int(min(names + GAP, max(width * 0.75, 96))) if names else 0
    whole = left + len(tables[0].columns) * (width + GAP) + GAP
    whole = max(whole, 320)
    parts = [_heading(about, fonts, whole)]
    parts += [_table(table, fonts, left, whole, (width, height)) for table in tables]
    found = Image.new("RGB", (whole, sum(part.height for part in parts)), GROUND)
    top = 0
    for part in parts:
        found.paste(part, (0, top))
        top += part.height
    return found


@dataclass(frozen=True)
class _Fonts:
    plain: Font
    large: Font
    line: int
    """Pixels from a line of plain text to the next."""


def _side(tables: Sequence[Table]) -> tuple[int, int]:
    """Returns width and height of a picture on the sheet."""
    width, height = tables[0].pictures[0][0].image.size
    rows = sum(len(table.rows) for table in tables)
    share = min(1.0, LONGEST_SIDE / (width * len(tables[0].columns)), LONGEST_SIDE / (height * rows))
    return max(1, int(width * share)), max(1, int(height * share))


def _heading(about: str, fonts: _Fonts, whole: int) -> Image:
    return _lines(wrapped(about, fonts.plain, whole - 2 * GAP, COLUMN_LINES), fonts.plain, fonts.line, whole, SOFT)


def _table(table: Table, fonts: _Fonts, left: int, whole: int, side: tuple[int, int]) -> Image:
    from PIL import Image, ImageDraw

    width, height = side
    title = wrapped(table.title, fonts.large, whole - 2 * GAP, TITLE_LINES)
    heads = [wrapped(text, fonts.plain, width, COLUMN_LINES) for text in table.columns]
    over = _lines(title, fonts.large, fonts.line * 5 // 4, whole, INK)
    tall = max(len(lines) for lines in heads) * fonts.line
    top = over.height + (tall + GAP if tall else 0)
    found = Image.new("RGB", (whole, top + len(table.rows) * (height + GAP) + GAP), GROUND)
    found.paste(over, (0, 0))
    pen = ImageDraw.Draw(found)
    for column, lines in enumerate(heads):
        _write(pen, lines, fonts, left + GAP + column * (width + GAP), over.height)
    for row, (name, pictures) in enumerate(zip(table.rows, table.pictures, strict=True)):
        y = top + row * (height + GAP)
        _write(pen, wrapped(name, fonts.plain, left - GAP, max(1, height // fonts.line)), fonts, GAP, y)
        for column, shown in enumerate(pictures):
            image = shown.image if shown.image.size == side else shown.image.resize(side)
            found.paste(image, (left + GAP + column * (width + GAP), y))
    return found


def _lines(lines: Sequence[str], font: Font, line: int, whole: int, ink: tuple[int, int, int]) -> Image:
    from PIL import Image, ImageDraw

    found = Image.new("RGB", (whole, len(lines) * line + 2 * GAP if lines else 0), GROUND)
    pen = ImageDraw.Draw(found)
    for number, text in enumerate(lines):
        pen.text((GAP, GAP + number * line), text, font=font, fill=ink)
    return found


def _write(pen: ImageDraw, lines: Sequence[str], fonts: _Fonts, x: int, y: int) -> None:
    for number, text in enumerate(lines):
        pen.text((x, y + number * fonts.line), text, font=fonts.plain, fill=INK)


def wrapped(text: str, font: Font, width: float, most: int) -> list[str]:
    """Returns a text in lines of at most ``width`` pixels, cut at spaces and where a word is longer than a line.

    What does not fit into ``most`` lines is left out, and the last line ends in three dots.
    """
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest:
        fits = next((at for at in range(1, len(rest)) if font.getlength(rest[: at + 1].rstrip()) > width), len(rest))
        space = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else -1
        cut = space if space > 0 else fits
        if len(lines) == most - 1 and cut < len(rest):
            while cut > 1 and font.getlength(rest[:cut].rstrip() + _ELLIPSIS) > width:
                cut -= 1
            return [*lines, rest[:cut].rstrip() + _ELLIPSIS]
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines

"""The one image: every picture whole at its place, every text within its room."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFont

from limner.grid.sheet import LONGEST_SIDE, Shown, Table, sheet, wrapped

COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))


def tables(
    size: tuple[int, int] = (64, 48), title: str = "", rows: tuple[str, ...] = ("seed 1", "seed 2")
) -> list[Table]:
    one = [Shown(Image.new("RGB", size, colour), "", "") for colour in COLOURS]
    return [Table(title, ("base", "checkpoint 4"), rows, ((one[0], one[1]), (one[2], one[3])))]


def places(image: Image.Image) -> dict[tuple[int, int, int], tuple[int, int, int, int]]:
    """Left, top, width and height of what has each colour."""
    pixels = np.asarray(image)
    found = {}
    for colour in COLOURS:
        y, x = np.nonzero((pixels == colour).all(-1))
        found[colour] = (int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
        assert len(x) == found[colour][2] * found[colour][3]
    return found


def test_the_pictures_lie_whole_in_rows_and_columns_and_the_labels_beside_them() -> None:
    image = sheet("two rows", tables())
    red, green, blue, yellow = places(image).values()
    assert {one[2:] for one in (red, green, blue, yellow)} == {(64, 48)}
    assert (red[0], red[1], green[0], blue[1]) == (blue[0], green[1], yellow[0], yellow[1])
    assert red[0] + 64 < green[0]
    assert red[1] + 48 < blue[1]
    dark = np.asarray(image.convert("L")) < 60
    assert dark[red[1] : red[1] + 48, : red[0]].any(), "the row's name"
    assert dark[: red[1], red[0] : red[0] + 64].any(), "the column's name"
    assert not dark[red[1] : red[1] + 48, red[0] + 64 : green[0]].any()


def test_tables_stand_below_each_other_each_under_its_title() -> None:
    (one,) = tables(title="a dog")
    alone = sheet("x", [one])
    both = sheet("x", [one, one])
    assert both.width == alone.width
    assert both.height > alone.height + 2 * 48
    plain = sheet("x", tables())
    assert alone.height > plain.height


def test_no_names_take_no_room() -> None:
    (named,) = tables()
    bare = Table("", named.columns, ("", ""), named.pictures)
    wide = tables(size=(256, 48))[0]
    assert places(sheet("x", [bare]))[COLOURS[0]][0] < places(sheet("x", [named]))[COLOURS[0]][0]
    assert sheet("x", [Table("", wide.columns, ("", ""), wide.pictures)]).width < sheet("x", [wide]).width


def test_a_long_prompt_stays_beside_its_picture() -> None:
    image = sheet("x", tables(rows=("a very long prompt " * 40, "seed 2")))
    red = places(image)[COLOURS[0]]
    assert red[0] < 64 * 3


def test_large_grids_are_drawn_smaller() -> None:
    side = LONGEST_SIDE // 2 + 1000
    shown = Shown(Image.new("RGB", (side, 40), COLOURS[0]), "", "")
    image = sheet("x", [Table("", ("a", "b"), ("",), ((shown, shown),))])
    assert LONGEST_SIDE < image.width < LONGEST_SIDE + 100


def test_a_text_is_cut_where_words_end_and_says_that_more_follows() -> None:
    font = ImageFont.load_default(14)
    text = "a photo of two red boats on the sea"
    lines = wrapped(text, font, 80, 9)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert all(font.getlength(line) <= 80 for line in lines)
    short = wrapped(text, font, 80, 2)
    assert len(short) == 2
    assert short[0] == lines[0]
    assert short[1].endswith("...")
    assert font.getlength(short[1]) <= 80
    assert wrapped("m" * 30, font, 40, 99) != []
    assert "".join(wrapped("m" * 30, font, 40, 99)) == "m" * 30
    assert wrapped("  ", font, 40, 3) == []
    assert wrapped("ab", font, 1, 3) == ["a", "b"]

"""limner search: the right picture first, damaged ones named, everything on the page is text."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.reading.searching import search
from tests.reading.conftest import COLOURS, caption_of, paint


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_words_find_their_picture_first(clip: Path, pictures: Path) -> None:
    result = search(pictures, [caption_of(colour) for colour in COLOURS], model=str(clip), top=2)
    assert [found.hits[0].id for found in result.found] == [f"{colour}.png" for colour in COLOURS]
    assert all(len(found.hits) == 2 and found.hits[0].similarity > found.hits[1].similarity for found in result.found)
    assert search(pictures, ["a red square"], model=str(clip)).embedded == 0


def test_a_picture_finds_its_like_and_not_itself(clip: Path, pictures: Path) -> None:
    paint(pictures / "dark.png", "blue", shade=15)
    (found,) = search(pictures, like=[pictures / "blue.png"], model=str(clip)).found
    assert found.hits[0].id == "dark.png"
    assert "blue.png" not in [hit.id for hit in found.hits]


def test_the_page_shows_pictures_and_nothing_on_it_is_markup(clip: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "red.png").rename(pictures / "<img src=x onerror=y>.png")
    page = tmp_path / "new" / "page.html"
    search(pictures, ["<script>alert(1)</script>"], model=str(clip), page=page)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=y&gt;.png" in text
    assert "http" not in text


def test_damaged_pictures_are_named_and_the_others_found(clip: Path, pictures: Path) -> None:
    (pictures / "red.png").write_bytes(b"no picture")
    heard = Heard()
    result = search(pictures, ["a blue square"], model=str(clip), progress=heard)
    assert result.pictures == 3
    assert [id for id, _ in result.unreadable] == ["red.png"]
    assert len(heard.warnings) == 1
    for colour in COLOURS:
        (pictures / f"{colour}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 4 pictures can be read"):
        search(pictures, ["a blue square"], model=str(clip))


def test_a_query_that_is_cut_is_said(clip: Path, pictures: Path) -> None:
    heard = Heard()
    search(pictures, ["a red dog " * 40], model=str(clip), progress=heard)
    assert "77 are read" in heard.warnings[0]
    quiet = Heard()
    search(pictures, ["a red dog"], model=str(clip), progress=quiet)
    assert not quiet.warnings


def test_nothing_to_search_and_nothing_to_look_for_are_errors(clip: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images"):
        search(tmp_path / "empty", ["a dog"], model=str(clip))
    with pytest.raises(UserError, match="nothing to look for"):
        search(pictures, model=str(clip))
    with pytest.raises(UserError, match="a query is empty"):
        search(pictures, [" "], model=str(clip))
    with pytest.raises(UserError, match="--like"):
        search(pictures, like=[pictures / "nowhere.png"], model=str(clip))

from __future__ import annotations

from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.core.markers import around, write_between

BEGIN, END, OTHER, LAST = (f"<!-- {name} -->" for name in ("begin", "end", "other", "last"))


def page_with(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_only_what_stands_between_the_markers_changes(tmp_path: Path) -> None:
    page = page_with(tmp_path, f"# Title\n{OTHER}\nkept\n{LAST}\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("new\n", "newer\n"):
        write_between(page, BEGIN, END, text)
    assert page.read_text() == f"# Title\n{OTHER}\nkept\n{LAST}\n{BEGIN}\nnewer\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{END}", f"{OTHER} {LAST}"])
def test_a_page_without_its_markers_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    page = page_with(tmp_path, text)
    with pytest.raises(UserError, match="does not hold <!-- begin --> and then <!-- end -->"):
        write_between(page, BEGIN, END, "new")
    assert page.read_text() == text


def test_a_page_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        around(tmp_path / "page.md", BEGIN, END)
    assert not (tmp_path / "page.md").exists()

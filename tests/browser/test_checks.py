"""Each check of the pages finds what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from limner.page import document, header, table

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.opened import Opened

BROKEN = {
    '<p>one</p><p style="margin-top:-2em">two</p>': ('overlap: p "one" and p "two"', "overlap of texts"),
    '<p>one <span style="position:relative;left:3em">two</span> three and four</p>': ("overlap of texts",),
    '<div style="height:20px;position:relative;top:-60px"><p>up</p></div>': ("overlap: header", "overlap: div"),
    '<img src="data:image/png;base64,AAAA" alt="red">': ("picture without pixels: red",),
    '<img src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==" alt="dot">': (
        "picture of no size: dot",
    ),
    '<img src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==" width="9" height="9">': (
        "no name: image",
    ),
    '<img src="https://example.org/a.png" alt="far">': ("request: https://example.org/a.png",),
    '<img src="beside.png" alt="near">': ("request: file:///",),
    "<style>@import 'https://example.org/a.css'</style>": ("request: https://example.org/a.css",),
    "<script>console.error('oh')</script>": ("error: oh",),
    "<script>missing()</script>": ("error: missing is not defined",),
    '<div style="width:3000px;height:9px"></div>': ("scrolls sideways: 3",),
    '<p style="white-space:nowrap">' + "long " * 400 + "</p>": ("text beyond the screen", "scrolls sideways"),
    '<p style="font-size:0">gone</p>': ("text of no size", "text of 0.0 pixels"),
    '<p style="height:0;overflow:hidden">gone</p>': ("text of no size", "text cut off"),
    '<p style="height:.6em;overflow:hidden">half</p>': ("text cut off",),
    '<p style="font-size:8px">tiny</p>': ("text of 8.0 pixels",),
    '<svg viewBox="0 0 9000 90" width="900"><text y="50" style="font-size:13px">tiny</text></svg>': ("text of 1.",),
    '<svg viewBox="0 0 100 90" style="width:100px"><text x="90" y="50">beyond</text></svg>': ("text cut off",),
    "<p></p>": ("empty: <p></p>",),
    "<table><tr><td>a</td><td> </td></tr></table>": ("empty: <td>",),
    '<p style="color:#888">faint</p>': ("contrast of 3.",),
    '<p style="opacity:.5">faint</p>': ("contrast of ",),
    '<div style="background:#23201b"><p>same</p></div>': ("contrast of 1.",),
    '<div style="width:3em"><p>wonderful</p></div>': ("broken word: wonderful",),
    '<input type="range">': ("no name: slider",),
    "<button></button>": ("no name: button",),
}


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Opened]:
    """One tab, in which page after page is opened."""
    from tests.browser.opened import opened

    with opened(browser) as page:
        yield page


def problems(tab: Opened, path: Path, part: str) -> list[str]:
    path.write_text(document("A page", [header("A page", "About."), table([("a", "b")]), part]), encoding="utf-8")
    tab.open(path)
    return tab.problems()


@pytest.mark.parametrize(("part", "found"), BROKEN.items(), ids=lambda value: value[:60] if type(value) is str else "")
def test_what_is_broken_is_found_and_nothing_else(
    tab: Opened, tmp_path: Path, part: str, found: tuple[str, ...]
) -> None:
    said = problems(tab, tmp_path / "page.html", part)
    for one in found:
        assert any(problem.startswith(one) for problem in said), said
    refused = ("error: Failed to load resource", "picture without pixels") if found[0].startswith("request") else ()
    assert [problem for problem in said if not problem.startswith((*found, *refused))] == []


def test_what_is_whole_passes(tab: Opened, tmp_path: Path) -> None:
    part = '<p>some words <span class="said">for readers</span></p><input type="range" aria-label="how much">'
    assert problems(tab, tmp_path / "page.html", part) == []

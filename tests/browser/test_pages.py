"""Every page in a real browser: on a phone and a wide screen, light and dark, it is whole and asks nobody anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from limner.demo.page import render as render_demo
from limner.report.page import render
from limner.swap.page import render as render_swap
from tests.browser.pages import PAGES, compared, shown_by_the_demo, swapped

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.opened import Opened


@pytest.fixture(scope="module", params=PAGES)
def shown(browser: Browser, files: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Opened]:
    """One page after the other."""
    from tests.browser.opened import opened

    with opened(browser, files[request.param]) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["PHONE", "WIDE"])
def test_nothing_is_wrong_with_a_page(shown: Opened, screen: str, scheme: Literal["light", "dark"]) -> None:
    from tests.browser import opened

    shown.page.set_viewport_size({"PHONE": opened.PHONE, "WIDE": opened.WIDE}[screen])
    shown.page.emulate_media(color_scheme=scheme)
    assert shown.problems() == []


def test_light_and_dark_differ_and_the_screen_is_not_empty(shown: Opened) -> None:
    from tests.browser.opened import WIDE, seen

    shown.page.set_viewport_size(WIDE)
    grounds = []
    for scheme in ("light", "dark"):
        shown.page.emulate_media(color_scheme=scheme)
        screen = seen(shown.page)
        assert len(set(screen.resize((200, 125)).get_flattened_data())) > 20
        grounds.append(screen.convert("L").getpixel((5, 500)))
    assert grounds[0] > 200
    assert grounds[1] < 60


def test_pages_stay_below_ten_megabytes(files: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert max(sizes.values()) < 10_000_000
    assert min(sizes.values()) > 100_000


@pytest.mark.parametrize(
    ("html", "pictures"),
    [
        (lambda: render(compared(count=6, size=(256, 256))), 28),
        (lambda: render(compared(count=6, size=(512, 512))), 28),
        (lambda: render_demo(shown_by_the_demo(count=6, size=(512, 512))), 12),
        (lambda: render_swap(swapped(count=3)), 15),
    ],
    ids=["compare, small pictures", "compare, large pictures", "demo", "swap"],
)
def test_all_pictures_of_a_page_share_the_room(
    html: Callable[[], str], pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.page.MOST_BYTES", 120_000)
    drawn = re.findall(r'<img [^>]*src="([^"]*)" width', html())  # those of the strip name no width
    assert len(drawn) == pictures
    assert 60_000 < sum(map(len, drawn)) <= 120_000

"""The slider of the comparison moves, however it is moved, and the pictures with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from limner.report.page import Pair, render
from tests.report.test_page import page as small_page
from tests.report.test_page import picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.opened import Opened

NAME = "How much of step 10 is seen, for: a boat"
SCRIPT = "this.parentNode.style.setProperty"


def html() -> str:
    pair = Pair("unrelated", "a boat", 1, picture("red", 128), picture("blue", 128))
    return render(replace(small_page(), pairs=(pair,)))


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Opened]:
    from tests.browser.opened import PHONE, opened

    with opened(browser, touch=True) as page:
        page.page.set_viewport_size(PHONE)
        yield page


@pytest.fixture
def page(tab: Opened, tmp_path: Path) -> Page:
    """The page with one pair: red by the base model, blue by the checkpoint."""
    path = tmp_path / "index.html"
    path.write_text(html(), encoding="utf-8")
    tab.open(path)
    tab.page.get_by_label(NAME).scroll_into_view_if_needed()
    return tab.page


def blue(page: Page) -> float:
    """Returns the share of the pictures' width on which the later one is seen, from the left and without a gap."""
    from tests.browser.opened import seen

    image = seen(page, ".slider")
    row = [image.getpixel((x, image.height // 4)) for x in range(image.width)]
    is_blue = [pixel[2] > 200 and pixel[0] < 60 for pixel in row]  # type: ignore[index]
    is_red = [pixel[0] > 200 and pixel[2] < 60 for pixel in row]  # type: ignore[index]
    assert sum(is_blue) + sum(is_red) > len(row) - 14, "more than the line lies on the pictures"
    assert is_blue == sorted(is_blue, reverse=True)
    return sum(is_blue) / len(row)


def value(page: Page) -> tuple[str, str]:
    """Returns the position as the control and as the style tell it."""
    slider = page.locator(".slider").first
    return page.get_by_label(NAME).input_value() + "%", slider.evaluate(
        "it => getComputedStyle(it).getPropertyValue('--seen')"
    )


def test_at_first_half_of_each_is_seen(page: Page) -> None:
    assert blue(page) == pytest.approx(0.5, abs=0.03)
    assert value(page) == ("50%", "50%")


def test_arrow_keys_move_it(page: Page) -> None:
    page.get_by_label(NAME).focus()
    page.keyboard.press("ArrowRight")
    assert value(page) == ("51%", "51%")
    for _ in range(29):
        page.keyboard.press("ArrowRight")
    assert blue(page) == pytest.approx(0.8, abs=0.03)
    page.keyboard.press("Home")
    assert blue(page) < 0.03
    page.keyboard.press("End")
    assert blue(page) > 0.97


def test_the_tab_key_reaches_it_and_the_focus_is_seen(page: Page) -> None:
    style = "it => getComputedStyle(it).outlineStyle"
    slider = page.locator(".slider").first
    assert slider.evaluate(style) == "none"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == NAME:
            break
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == NAME
    assert slider.evaluate(style) == "solid"


@pytest.mark.parametrize("to", [0.1, 0.9])
def test_a_mouse_drags_it(page: Page, to: float) -> None:
    box = page.locator(".slider").first.bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, height)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * to, height, steps=5)
    assert blue(page) == pytest.approx(to, abs=0.04)
    page.mouse.up()
    assert blue(page) == pytest.approx(to, abs=0.04)


def test_a_finger_drags_it(page: Page) -> None:
    box = page.locator(".slider").first.bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    height = box["y"] + box["height"] / 3
    for kind, share in (("Start", 0.5), ("Move", 0.6), ("Move", 0.7), ("Move", 0.85)):
        points = [{"x": box["x"] + box["width"] * share, "y": height}]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert blue(page) == pytest.approx(0.85, abs=0.04)


def test_a_page_that_is_shown_again_has_its_control_where_its_pictures_are(page: Page) -> None:
    page.get_by_label(NAME).focus()
    page.keyboard.press("End")
    page.goto("about:blank")
    page.go_back()
    control, style = value(page)
    assert control == style


def test_a_slider_that_does_not_move_is_found(tab: Opened, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(html().replace(SCRIPT, "void"), encoding="utf-8")
    tab.open(path)
    tab.page.get_by_label(NAME).focus()
    tab.page.keyboard.press("End")
    assert value(tab.page) == ("100%", "50%")
    assert blue(tab.page) == pytest.approx(0.5, abs=0.03)

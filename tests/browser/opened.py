"""A page as a browser shows it, and what is wrong with it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, Route, ViewportSize

PHONE = ViewportSize(width=390, height=844)
WIDE = ViewportSize(width=1600, height=1000)
CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
CONTROLS = ("slider", "textbox", "checkbox", "radio", "button", "combobox", "spinbutton", "listbox", "image")


@dataclass
class Opened:
    """A tab, and what the page in it said and asked for since it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    """All but the file itself and what stands inside of it; none was let out."""
    errors: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        """Opens a file from the disk."""
        self.requests.clear()
        self.errors.clear()
        self.page.goto(path.resolve().as_uri())

    def problems(self) -> list[str]:
        """Returns all that is wrong, one sentence each."""
        return [
            *(f"request: {url}" for url in self.requests),
            *(f"error: {text}" for text in self.errors),
            *self.page.evaluate(CHECKS),
            *self._nameless(),
        ]

    def _nameless(self) -> list[str]:
        """Returns the controls and pictures for which the browser tells a screen reader no name."""
        session = self.page.context.new_cdp_session(self.page)
        tree = session.send("Accessibility.getFullAXTree")["nodes"]
        session.detach()
        shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in CONTROLS]
        return [f"no name: {n['role']['value']}" for n in shown if not n.get("name", {}).get("value", "").strip()]


@contextmanager
def opened(browser: Browser, path: Path | None = None, *, touch: bool = False) -> Iterator[Opened]:
    """Opens a tab, and a file in it; whatever that asks for beyond itself is written down and refused."""
    context = browser.new_context(has_touch=touch)
    try:
        page = context.new_page()
        found = Opened(page)

        def look(route: Route) -> None:
            if route.request.is_navigation_request() and route.request.frame.parent_frame is None:
                route.continue_()
            else:
                found.requests.append(route.request.url)
                route.abort()

        context.route(lambda url: not url.startswith("data:"), look)
        page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        if path is not None:
            found.open(path)
        yield found
    finally:
        context.close()


def seen(page: Page, selector: str = "body") -> Image.Image:
    """Returns the first such element as it is on the screen."""
    shot = page.locator(selector).first.screenshot() if selector != "body" else page.screenshot()
    return Image.open(io.BytesIO(shot)).convert("RGB")

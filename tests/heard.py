"""A listener for tests."""

from __future__ import annotations

from typing import Any


class Heard:
    """A listener that keeps what it was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def step(self, line: Any, steps: int) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def table(self, title: str, rows: Any) -> None: ...
    def stage(self, name: str, done: int, total: int) -> None: ...

"""How a long job tells what it does: the command line draws bars, --json prints lines, a library caller may listen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Progress(Protocol):
    """Receives what happens, in the order in which it happens."""

    def say(self, text: str) -> None:
        """Something that a person should know, once."""

    def warn(self, text: str) -> None:
        """Something that may not be what the person wanted."""

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """A short table of labels and values."""

    def stage(self, name: str, done: int, total: int) -> None:
        """How far a stage before the training is."""

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        """One line of metrics.jsonl, of a run of ``steps`` steps."""


class Silent:
    """Says nothing; what a library caller gets who does not listen."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def warn(self, text: str) -> None:
        """Says nothing."""

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Says nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Says nothing."""

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        """Says nothing."""

"""How a job shows itself: bars and tables on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

PLAIN_WIDTH = 120
LINE_SECONDS = 30.0
"""Between two lines about steps where there is no terminal: quiet, but not silent for hours."""


class TerminalProgress:
    """Bars and tables on standard error, so that standard output stays free for results."""

    def __init__(self) -> None:
        width = None if sys.stderr.isatty() else PLAIN_WIDTH
        self.console = Console(stderr=True, highlight=False, width=width)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True, overflow="crop")),
            console=self.console,
            transient=False,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a line; what a user wrote is never read as markup."""
        self.console.print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a line that stands out."""
        self.console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Prints a table of two columns."""
        table = Table(show_header=False, box=None, pad_edge=False, title=title, title_justify="left")
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(Text(label), Text(value))
        self.console.print(table)

    def stage(self, name: str, done: int, total: int) -> None:
        """Moves the bar of a stage."""
        self._bar(name, done, total, "")

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        """Moves the bar of the training; elsewhere prints a line now and then."""
        numbers = f"loss {line['loss']:.4f} {line['images_per_second']:.2f} images/s lr {line['lr']:.2e}"
        self._bar("training", line["step"], steps, numbers)
        if not self.console.is_terminal:
            now = time.monotonic()
            if now - self._last_line > LINE_SECONDS or line["step"] == steps:
                self._last_line = now
                self.say(f"step {line['step']}/{steps}  {numbers}")

    def _bar(self, name: str, done: int, total: int, numbers: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, numbers=numbers)
        self._bars.update(self._tasks[name], completed=done, total=total, numbers=numbers)


class JsonProgress:
    """One JSON object per line on standard output: ``{"event": "step", "step": 12, "loss": ...}``."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def __enter__(self) -> JsonProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Prints one event."""
        print(json.dumps({"event": name, **values}, ensure_ascii=False), file=self._out, flush=True)

    def say(self, text: str) -> None:
        """Prints a ``note``."""
        self.event("note", {"text": text})

    def warn(self, text: str) -> None:
        """Prints a ``warning``."""
        self.event("warning", {"text": text})

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Prints a ``table``."""
        self.event("table", {"title": title, "rows": [list(row) for row in rows]})

    def stage(self, name: str, done: int, total: int) -> None:
        """Prints a ``stage``."""
        self.event("stage", {"name": name, "done": done, "total": total})

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        """Prints a ``step``: the line of metrics.jsonl and the number of steps."""
        self.event("step", {**line, "steps": steps})

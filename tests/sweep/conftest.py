"""A recipe of a tiny run, and processes that start at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.numerics.conftest import drawings, run_values, tiny_model
from tests.processes import clean_processes

__all__ = ["drawings", "tiny_model"]


@pytest.fixture(scope="session", autouse=True)
def quick_processes() -> None:
    """The server that a sweep forks its runs from imports Limner once, for all tests."""
    clean_processes()


def write_recipe(folder: Path, model: Path, data: Path, **changes: Any) -> Path:
    """Writes a recipe of three steps whose ``out`` is FOLDER/swept."""
    train = {"steps": 3, "save_every": 1, **changes.pop("train", {})}
    schedule = {"kind": "constant", "warmup_steps": 0}
    values = run_values(model, data, folder / "swept", train=train, schedule=schedule, **changes)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**values, "dataset": {**values["dataset"], "path": str(data)}}))
    return recipe


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warnings: list[str] = []
        self.tables: dict[str, list[tuple[str, str]]] = {}
        self.steps: list[tuple[str, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def table(self, title: str, rows: Any) -> None:
        self.tables[title] = list(rows)

    def stage(self, name: str, done: int, total: int) -> None: ...

    def step(self, line: Any, steps: int) -> None:
        self.steps.append((line["run"], line["step"]))

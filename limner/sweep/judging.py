"""Means and spreads by setting, and whether the best setting differs from the second beyond the spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limner.core.spread import Spread, spread
from limner.sweep.numbers import Measure, Value

Runs = Mapping[str | None, Value]
"""One value for each seed."""


@dataclass(frozen=True)
class Cell:
    """One measure of one setting."""

    setting: str
    runs: Runs
    """In the order in which they were taken."""

    @property
    def spread(self) -> Spread:
        return spread([one.value for one in self.runs.values()])


@dataclass(frozen=True)
class Table:
    """One measure of all settings of which a run is finished."""

    measure: Measure
    cells: tuple[Cell, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Returns a label and a text for each setting."""
        return [(cell.setting, spread_text(self.measure, cell.spread)) for cell in self.cells]

    def verdict(self) -> str:
        """Returns what may be said of the best setting and the second; empty where nothing is to be said."""
        if not self.measure.better or len(self.cells) < 2:
            return ""
        order = sorted(self.cells, key=lambda cell: cell.spread.mean, reverse=self.measure.better == "higher")
        best, second = order[0], order[1]
        if any(not _comparable(best, other) for other in order[1:]):
            return "not compared: the settings were not measured on the same data in the same way"
        word = "highest" if self.measure.better == "higher" else "lowest"
        seeds = [seed for seed in best.runs if seed in second.runs]
        told = f"{word}: {best.setting}, then {second.setting}"
        if len(seeds) < 2:
            return f"{told}; no two seeds of both, so nothing is known of the spread"
        change = spread([best.runs[seed].value - second.runs[seed].value for seed in seeds])
        size = f"{_change_text(self.measure, change)}, {len(seeds)} pairs of equal seeds"
        if not change.excludes_zero:
            return f"{told}, but inside the noise: {size}"
        return f"{told}, beyond the noise: {size}"

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        cells = [
            {
                "setting": cell.setting,
                **dataclasses.asdict(cell.spread),
                "runs": [{"seed": seed, "value": value.value} for seed, value in cell.runs.items()],
            }
            for cell in self.cells
        ]
        return {**dataclasses.asdict(self.measure), "settings": cells, "verdict": self.verdict()}


def tables(runs: Sequence[tuple[str, str | None, Sequence[Value]]]) -> list[Table]:
    """Returns a table for each measure, out of the setting, the seed and the numbers of each run."""
    found: dict[Measure, dict[str, dict[str | None, Value]]] = {}
    for setting, seed, values in runs:
        for value in values:
            found.setdefault(value.measure, {}).setdefault(setting, {})[seed] = value
    return [Table(measure, tuple(Cell(*item) for item in cells.items())) for measure, cells in found.items()]


def _comparable(one: Cell, other: Cell) -> bool:
    """Returns whether the runs of equal seeds were measured on the same, and there are such runs."""
    shared = [seed for seed in one.runs if seed in other.runs]
    return bool(shared) and all(one.runs[seed].basis & other.runs[seed].basis for seed in shared)


def spread_text(measure: Measure, found: Spread) -> str:
    """Returns '0.12 ± 0.01 (3 runs; mean 0.10 to 0.14)' for people; of one run, that its spread is not known."""
    mean = measure.text(found.mean)
    if found.deviation is None or found.low is None or found.high is None:
        return f"{mean} (1 run: nothing is known of the spread)"
    deviation = measure.text(found.deviation).removeprefix("+")
    interval = f"{measure.text(found.low)} to {measure.text(found.high)}"
    return f"{mean} ± {deviation} ({found.n} runs; 95 % interval of the mean {interval})"


def _change_text(measure: Measure, change: Spread) -> str:
    mean, low, high = (_signed(measure, end) for end in (change.mean, change.low or 0.0, change.high or 0.0))
    return f"difference {mean} ({low} to {high})"


def _signed(measure: Measure, value: float) -> str:
    return f"{100 * value:+.2f} points" if measure.unit == "percent" else f"{value:+.5f}"

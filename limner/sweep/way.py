"""A sweep from top to bottom: every combination checked, one run after another, the report after each."""

from __future__ import annotations

import collections
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import limner
from limner.config import load_config
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, write_atomic, write_json
from limner.resuming import flat
from limner.sweep.apart import Outcome, State, train_apart
from limner.sweep.grid import Grid, Planned, plain, read_grid
from limner.sweep.judging import Table, tables
from limner.sweep.numbers import Value, numbers_of
from limner.sweep.page import page
from limner.training.environment import refuse_several_processes
from limner.training.stop import graceful_stop, terminated_as_interrupted

RECORD, PAGE = "sweep.json", "index.html"
_MOST_DIFFERENCES = 8


@dataclass
class SweepResult:
    """What a sweep came to, and while it goes on, what it has come to so far."""

    grid: Grid
    outcomes: dict[str, Outcome]
    """By the name of the run."""
    numbers: dict[str, list[Value]] = field(default_factory=dict)
    """Of the finished runs."""
    interrupted: int | None = None
    """The signal that stopped the sweep; the run that it stopped has written its checkpoint."""

    @property
    def out(self) -> Path:
        return self.grid.out

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.out / PAGE

    @property
    def failed(self) -> list[tuple[str, str]]:
        """The runs that failed, each with why."""
        return [(name, one.message) for name, one in self.outcomes.items() if one.state == "failed"]

    def count(self, state: State) -> int:
        """Returns how many runs are in a state."""
        return sum(one.state == state for one in self.outcomes.values())

    def standing(self) -> str:
        """Returns how many runs are in which state, for people."""
        counts = collections.Counter(one.state for one in self.outcomes.values())
        return ", ".join(f"{count} {state}" for state, count in counts.items())

    def tables(self) -> list[Table]:
        """Returns the numbers by setting."""
        done = [run for run in self.grid.runs if run.name in self.numbers]
        return tables([(run.setting, run.seed, self.numbers[run.name]) for run in done])

    def command(self) -> str:
        """Returns the command that goes on with it."""
        return shlex.join(["limner", "sweep", str(self.grid.recipe), *self.grid.words])

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it as plain values, for JSON."""
        runs = [
            {
                "name": run.name,
                "settings": dict(run.settings),
                "state": self.outcomes[run.name].state,
                "message": self.outcomes[run.name].message,
                "numbers": {one.measure.title: one.value for one in self.numbers.get(run.name, [])},
            }
            for run in self.grid.runs
        ]
        return {
            "limner": limner.__version__,
            "command": self.command(),
            "out": str(self.out),
            "axes": {axis.key: list(axis.values) for axis in self.grid.axes},
            "interrupted": self.interrupted,
            "runs": runs,
            "measures": [table.as_dict() for table in self.tables()],
        }

    def write(self) -> None:
        """Writes sweep.json and the page, each whole or not at all."""
        write_json(self.out / RECORD, self.as_dict())
        states = [(run.name, self.outcomes[run.name]) for run in self.grid.runs]
        todo = self.command() if self.count("finished") < len(self.grid.runs) else ""
        write_atomic(self.page, page(self.out.name, self.grid.axes, states, self.tables(), todo=todo).encode())


def sweep(recipe: Path, words: Sequence[str], *, progress: Progress | None = None) -> SweepResult:
    """Trains a recipe with every combination of the values in ``words``, and compares the settings.

    Runs that are finished are taken as they are, others continued or started. A run that fails is told, and the others
    go on. Raises UserError before the first run for whatever can be known by then. A program that calls this needs
    the usual ``if __name__ == "__main__":``, as each run is a process of its own.
    """
    progress = progress or Silent()
    refuse_several_processes()
    grid = read_grid(recipe, words)
    home = RunDir(grid.out)
    if home.metrics.exists() or home.checkpoints.exists():
        raise UserError("holds a run.", where=str(grid.out), fix="Choose another folder with out=...")
    done = {run.name for run in grid.runs if is_finished(run)}
    result = SweepResult(grid, {run.name: Outcome("finished" if run.name in done else "waiting") for run in grid.runs})
    result.numbers = {run.name: numbers_of(run.rundir) for run in grid.runs if run.name in done}
    with home.locked():
        progress.table("sweep", _rows(result))
        _train_all(result, progress)
        result.write()
    for table in result.tables():
        progress.table(table.measure.title, table.rows())
        if verdict := table.verdict():
            progress.say(verdict)
    for name, message in result.failed:
        progress.warn(f"{name} failed: {message}")
    return result


def _train_all(result: SweepResult, progress: Progress) -> None:
    """Takes the runs that are not finished, one after another, and writes the report after each."""
    runs, states = result.grid.runs, result.outcomes
    with terminated_as_interrupted(), graceful_stop() as stop:
        for number, run in enumerate(runs, start=1):
            if states[run.name].state == "finished":
                continue
            if stop.signal is not None:
                result.interrupted = stop.signal
                return
            resume = bool(run.rundir.checkpoint_steps())
            progress.say(f"run {number} of {len(runs)}: {run.name}{', continued' if resume else ''}")
            outcome = train_apart(run, resume=resume, stop=stop, progress=progress)
            if outcome.state == "finished":
                result.numbers[run.name] = numbers_of(run.rundir)
            elif outcome.state == "failed":
                progress.warn(f"{run.name} failed: {outcome.message}")
            states[run.name] = outcome
            result.write()
            if outcome.signal is not None:
                result.interrupted = outcome.signal
                return


def is_finished(run: Planned) -> bool:
    """Returns whether a run is there to its end; raises UserError where it is, but with another config."""
    try:
        state = json.loads(run.rundir.status.read_bytes())["state"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        raise UserError("is damaged.", where=str(run.rundir.status), fix="Move that folder away.") from None
    if state != "finished":
        return False
    changed = list(_differences(plain(load_config(run.rundir.config)), plain(run.config)))
    if changed:
        more = len(changed) - _MOST_DIFFERENCES
        told = "; ".join(changed[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(
            f"was finished with other settings: {told}.",
            where=str(run.rundir.path),
            fix="Give the settings that it was made with, or another folder with out=...",
        )
    return True


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    old, new = flat(there), flat(wanted)
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)!r}, wanted {new.get(key)!r}"


def _rows(result: SweepResult) -> list[tuple[str, str]]:
    """Returns what is going to be done, for people."""
    axes = [(axis.key, ", ".join(axis.values)) for axis in result.grid.axes]
    return [*axes, ("runs", f"{len(result.grid.runs)}: {result.standing()}"), ("folder", str(result.out))]

"""The numbers of a finished run, and what each was measured on, so that unlike is not compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics
from limner.measuring import AFTER, TABLE

LAST_STEPS = 20
Unit = Literal["loss", "percent", "points", "steps", "seconds", "number"]


@dataclass(frozen=True)
class Measure:
    """What is measured of each run."""

    title: str
    unit: Unit
    better: Literal["lower", "higher", ""] = ""
    """Which of two is better; empty where neither is."""

    def text(self, value: float) -> str:
        """Returns a value for people."""
        if self.unit == "percent":
            return f"{100 * value:.2f} %"
        if self.unit == "points":
            return f"{100 * value:+.2f} points"
        if self.unit == "number":
            return f"{value:.3g}"
        return f"{value:.5f}" if self.unit == "loss" else f"{value:,.1f}"


@dataclass(frozen=True)
class Value:
    """A measure of one run."""

    measure: Measure
    value: float
    basis: frozenset[str] = frozenset()
    """What it was measured on, told in one or more ways; two values that share none are not compared."""


TRAINING = Measure("training loss, mean of the last steps", "loss", "lower")
VALIDATION = Measure("validation loss, the best", "loss", "lower")
VALIDATION_CHANGE = Measure("validation loss, change from the base model's", "percent")
BEST_STEP = Measure("step of the best validation loss", "steps")
CHANGE = Measure("change of the prediction from the base model's", "number")
SECONDS = Measure("seconds of the steps", "seconds")
_SEEN: tuple[str, ...] = ("data", "held_out", "base.", "precision", "config.images", "config.captions", "config.masks")
_SEEN += ("config.objective", "config.validation.share", "config.validation.draws")
"""Parts of a run's identity that decide what a loss is the loss of."""


def numbers_of(run: RunDir) -> list[Value]:
    """Returns what a finished run measured; raises UserError where its files are gone or damaged."""
    try:
        result = _read(run.result)
        seen = _basis(result["identity"])
        lines = read_metrics(run.metrics)
        last = [line["loss"] for line in lines if not line.get("skipped", False)][-LAST_STEPS:]
        found = [
            Value(TRAINING, sum(last) / len(last), frozenset([seen])),
            *_validation(run, seen),
            Value(CHANGE, result["change"]),
            *_metrics(run),
        ]
        return [*found, Value(SECONDS, sum(line["seconds"] for line in lines))]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"is a finished run, but its numbers cannot be read ({error}).",
            where=str(run.path),
            fix="Move that folder away: the run is taken again.",
        ) from None


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _basis(identity: dict[str, Any]) -> str:
    seen = _SEEN
    if identity["config.objective.kind"] == "contrastive":  # the batch is what a caption is told apart from
        seen = (*seen, "config.train.batch_size")
    return json.dumps({key: value for key, value in sorted(identity.items()) if key.startswith(seen)})


def _validation(run: RunDir, seen: str) -> list[Value]:
    if not run.best.exists():
        return []
    best = _read(run.best)
    loss, base = best["best_loss"], best["base_loss"]
    # equal to the last bit before training: the same pictures, noise and base, whatever else differs
    basis = frozenset([seen, f"base model's loss {base!r}"])
    change = [Value(VALIDATION_CHANGE, loss / base - 1, basis)] if base else []
    return [Value(VALIDATION, loss, basis), *change, Value(BEST_STEP, best["best_step"])]


def _metrics(run: RunDir) -> list[Value]:
    if not (run.metrics_report / TABLE).exists():
        return []
    found = []
    tables = zip(_read(run.metrics_report / TABLE)["metrics"], _read(run.metrics_report / AFTER), strict=True)
    for compared, after in tables:
        basis = frozenset([after["content"]])
        for number in compared["numbers"]:
            title = f"{compared['metric']}: {number['name']}"
            found.append(Value(Measure(title, "percent", "higher"), number["after"], basis))
            found.append(Value(Measure(f"{title}, change", "points"), number["change"]["value"], basis))
    return found

"""The course of the validation loss: what was measured, which step is the best, when waiting for a better one ends."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics, write_atomic, write_json
from limner.training.validation import Validation

Weights = Literal["the running average", "the trained weights", "the base model's weights"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The validation loss after ``step`` optimizer steps; that of step 0 is the base model's."""

    step: int
    loss: float
    by_timestep: tuple[float, ...]
    """The means of equal parts of the timesteps, the least noisy first; empty where the loss has no timesteps."""
    weights: Weights
    """Which weights were measured; the base model's at step 0, and after steps that fp16's scaler all skipped."""

    @property
    def trained(self) -> bool:
        """Whether an update had moved the weights."""
        return self.step > 0 and self.weights != "the base model's weights"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run's validation came to."""

    base_loss: float
    best_step: int
    best_loss: float
    last_step: int
    last_loss: float
    weights: Weights
    ended: str | None
    """Why the run ended; None while it goes on and where it was interrupted."""
    exported_step: int | None
    """The step whose checkpoint is exported; None as long as none is."""

    def sentence(self) -> str:
        """Returns the numbers for people."""
        exported = "" if self.exported_step is None else f"; exported: step {self.exported_step}"
        ended = "" if self.ended is None else f"; ended: {self.ended}"
        return (
            f"validation loss {self.best_loss:.5f} at step {self.best_step}, the best "
            f"({change(self.best_loss, self.base_loss)}), {self.last_loss:.5f} at step {self.last_step}, the last"
            f"{ended}{exported}"
        )


@dataclasses.dataclass
class Course:
    """The measurements of a run. They stand in validation.jsonl; all else that is said of them follows from them."""

    rundir: RunDir
    settings: Validation
    measurements: list[Measurement] = dataclasses.field(default_factory=list)

    def restore(self, step: int) -> None:
        """Reads what was measured up to ``step``, that of the checkpoint, and drops what was measured after it."""
        path = self.rundir.validation
        kept = [_measurement(line, path) for line in read_metrics(path) if line["step"] <= step]
        due = {at for at in range(0, step + 1, self.settings.every) if at > 0 or step > 0}
        lost = sorted(due - {measurement.step for measurement in kept})
        if lost:
            raise UserError(
                f"does not hold the measurement of step {lost[0]}.",
                where=str(path),
                fix="It was changed or lost: bring it back, or start again with another out=...",
            )
        self.measurements = kept
        self._write()
        self.record()

    def add(self, measurement: Measurement) -> None:
        """Takes in a measurement and writes it down for good; :meth:`record` follows once its checkpoint is there."""
        self.measurements.append(measurement)
        self._write()

    def measured(self, step: int) -> bool:
        """Returns whether there is a measurement of that step."""
        return any(measurement.step == step for measurement in self.measurements)

    @property
    def best(self) -> Measurement | None:
        """The lowest loss of a trained model, the first of equals; None before the first one."""
        trained = (measurement for measurement in self.measurements if measurement.trained)
        return min(trained, key=lambda measurement: (measurement.loss, measurement.step), default=None)

    def patience_is_over(self) -> str | None:
        """Returns why the run should end now, or None. The base model's loss is the first to beat."""
        patience, margin = self.settings.patience, self.settings.min_improvement
        if patience is None or not self.measurements:
            return None
        beaten, waited = self.measurements[0], 0
        for measurement in self.measurements:
            if not measurement.trained:
                continue
            waited += 1
            if measurement.loss < beaten.loss * (1 - margin):
                beaten, waited = measurement, 0
        if waited < patience:
            return None
        by = f" by {margin:.3g} of it" if margin else ""
        return f"patience: {waited} measurements without a lower loss{by} since step {beaten.step}"

    def verdict(self, *, ended: str | None = None, exported_step: int | None = None) -> Verdict | None:
        """Returns what the measurements say; None before a trained model was measured."""
        best = self.best
        if best is None:
            return None
        base, last = self.measurements[0], self.measurements[-1]
        return Verdict(
            base.loss,
            best.step,
            best.loss,
            last.step,
            last.loss,
            last.weights,
            ended=ended,
            exported_step=exported_step,
        )

    def record(self, *, ended: str | None = None, exported_step: int | None = None) -> Verdict | None:
        """Writes the verdict into best.json, with why the run ended and what was exported if it has; returns it."""
        verdict = self.verdict(ended=ended, exported_step=exported_step)
        if verdict is None:
            self.rundir.best.unlink(missing_ok=True)
            return None
        exported = None if exported_step is None else self._name(exported_step)
        places = {"best_checkpoint": self._name(verdict.best_step), "exported_checkpoint": exported}
        write_json(self.rundir.best, {**dataclasses.asdict(verdict), **places})
        return verdict

    def _write(self) -> None:
        lines = (json.dumps(dataclasses.asdict(measurement)) + "\n" for measurement in self.measurements)
        write_atomic(self.rundir.validation, "".join(lines).encode())

    def _name(self, step: int) -> str:
        return self.rundir.checkpoint(step).relative_to(self.rundir.path).as_posix()


def change(loss: float, base: float) -> str:
    """Returns the difference to the base model's loss, for people."""
    if base == 0:
        return f"the base's is {base:.5f}"
    return f"{loss / base - 1:+.2%} against the base's {base:.5f}"


def _measurement(line: dict[str, Any], path: Path) -> Measurement:
    names = {field.name for field in dataclasses.fields(Measurement)}
    if line.keys() != names or not isinstance(line["loss"], float) or not isinstance(line["by_timestep"], list):
        raise UserError(
            f"the line of step {line['step']} is damaged.", where=str(path), fix="Mend it, or start again elsewhere."
        )
    return Measurement(line["step"], line["loss"], tuple(line["by_timestep"]), line["weights"])

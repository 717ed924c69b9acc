"""The folder of a run: the only thing that training, evaluation and the studio share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from limner.core.errors import UserError

_CHECKPOINT = re.compile(r"step_(\d{6,})")


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a file whole or not at all: temporary name in the same folder, fsync, rename.

    ``durable=False`` skips the fsync, for caches whose entries are checked when they are read.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes ``value`` as indented JSON, whole or not at all."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True)
class RunDir:
    """The names inside a run folder. Making one touches nothing on the disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def metrics_report(self) -> Path:
        return self.path / "metrics_report"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of the checkpoint that was written after ``step`` optimizer steps."""
        return self.checkpoints / f"step_{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Returns the steps of the whole checkpoints, oldest first. Half-written ones have other names."""
        if not self.checkpoints.is_dir():
            return []
        found = (_CHECKPOINT.fullmatch(entry.name) for entry in self.checkpoints.iterdir() if entry.is_dir())
        return sorted(int(match.group(1)) for match in found if match)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run folder for this process; a second process is refused. The kernel frees it at any death."""
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another limner process is training in this folder.",
                    where=str(self.path),
                    fix="Wait for it, stop it, or choose another folder with out=...",
                ) from None
            yield


class MetricsLog:
    """Appends one JSON line per step to metrics.jsonl; a reader sees every line as soon as it is written."""

    def __init__(self, path: Path, *, keep_to_step: int) -> None:
        """Opens the log and drops what stands after ``keep_to_step``: those steps will be taken again."""
        kept = [line for line in read_metrics(path) if line["step"] <= keep_to_step]
        if [line["step"] for line in kept] != list(range(1, keep_to_step + 1)):
            raise UserError(
                f"does not hold the steps 1 to {keep_to_step} that were taken.",
                where=str(path),
                fix="It was changed or lost: bring it back, or start again with another out=...",
            )
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends one line. ``line`` must hold ``step`` and finite numbers."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Writes the log through to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes the log through to the disk and closes it."""
        self.sync()
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a metrics.jsonl; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    metrics = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict) or not isinstance(values.get("step"), int):
            raise UserError("is damaged.", where=f"{path}:{number}", fix="Mend or remove that line.")
        metrics.append(values)
    return metrics


@dataclass
class RunStatus:
    """Writes status.json, from which others see how far a run is."""

    path: Path
    step: int = 0
    steps: int = 0
    validation: Mapping[str, Any] | None = None
    """The losses on the held-out part, where there is one."""
    _written: float = 0.0

    def write(self, state: str, message: str = "") -> None:
        """Writes it now; ``state`` is starting, running, finished, stopped or failed."""
        self._written = time.monotonic()
        value = {"state": state, "step": self.step, "steps": self.steps, "pid": os.getpid(), "message": message}
        held_out = {} if self.validation is None else {"validation": dict(self.validation)}
        write_json(self.path, {**value, **held_out, "time": time.time()})

    def at(self, step: int, steps: int) -> None:
        """Takes note of the step, and writes it if the last time is two seconds ago."""
        self.step, self.steps = step, steps
        if time.monotonic() - self._written > 2:
            self.write("running")


@contextlib.contextmanager
def reported(rundir: RunDir) -> Iterator[RunStatus]:
    """Gives the status of a run, and says what became of the run if an error or a signal leaves the block.

    A run that was refused before it began (its status still has no steps) gets its old status back.
    """
    before = rundir.status.read_bytes() if rundir.status.exists() else None
    status = RunStatus(rundir.status)
    status.write("starting")
    try:
        yield status
    except BaseException as error:
        if before is not None and status.steps == 0:
            write_atomic(rundir.status, before)
        elif isinstance(error, Exception):
            status.write("failed", str(error) or type(error).__name__)
        else:
            status.write("stopped")
        raise

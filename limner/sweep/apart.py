"""One run of a sweep, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from limner.config import RunConfig
from limner.core.config import Origins
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir
from limner.sweep.grid import Planned
from limner.training.stop import Stop

State = Literal["finished", "failed", "stopped", "waiting"]
_LISTENING_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    state: State
    message: str = ""
    """Why it failed."""
    signal: int | None = None
    """What stopped it."""


def train_apart(run: Planned, *, resume: bool, stop: Stop, progress: Progress) -> Outcome:
    """Trains in a new process, which tells ``progress`` what it does; a request to stop is handed on to it.

    Only a process that ends gives back all its memory, of the GPU too, and takes no other run with it if it crashes.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_train, args=(run.config, run.origins, resume, dict(os.environ), sender), name=run.name
    )
    process.start()
    sender.close()
    said: Outcome | None = None
    try:
        for kind, values in _messages(receiver, process, stop):
            if kind == "outcome":
                said = Outcome(*values)
            else:
                _tell(progress, kind, values, run.name)
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
            process.join()
    if said is not None:
        return said
    if stop.signal is not None:
        return Outcome("stopped", signal=stop.signal)
    return Outcome("failed", _end_of(process, run.rundir))


def _messages(receiver: Connection, process: BaseProcess, stop: Stop) -> Any:
    """Yields what the process tells until it ends; the first request to stop is handed on to it once."""
    handed_on = False
    while True:
        if stop.signal is not None and not handed_on:
            handed_on = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, stop.signal)
        if receiver.poll(_LISTENING_SECONDS):
            try:
                yield receiver.recv()
            except EOFError:
                return


def _tell(progress: Progress, kind: str, values: Sequence[Any], name: str) -> None:
    if kind == "say":
        progress.say(*values)
    elif kind == "warn":
        progress.warn(*values)
    elif kind == "table":
        progress.table(*values)
    elif kind == "stage":
        progress.stage(*values)
    else:
        line, steps = values
        progress.step({**line, "run": name}, steps)


def _end_of(process: BaseProcess, rundir: RunDir) -> str:
    """Returns for people how a process ended that said nothing."""
    code = process.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as a machine does that is out of memory" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}."
    try:
        status = json.loads(rundir.status.read_bytes())
    except (FileNotFoundError, ValueError):
        status = {}
    message = status.get("message") if status.get("state") == "failed" else ""
    return message or f"its process ended with code {code}."


# ------------------------------------------------------------------------------------------------- in the new process
def _train(
    config: RunConfig, origins: Origins, resume: bool, environment: Mapping[str, str], connection: Connection
) -> None:
    """Trains, and sends what happens; a run whose sweep is gone stops as if it had been asked to."""
    os.environ.update(environment)  # that of the sweep now, not of the first run that this program started
    os.setpgid(0, 0)  # Ctrl-C reaches the sweep alone, which hands it on once: a second one would save nothing
    listener = _Sender(connection)
    try:
        from limner.run import finetune

        result = finetune(config, resume=resume, progress=listener, origins=origins)
    except (UserError, OSError) as error:
        listener.send("outcome", "failed", str(error))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    else:
        stopped = result.interrupted
        listener.send("outcome", "finished" if stopped is None else "stopped", "", stopped)


class _Sender:
    """Sends what a run says to the sweep; where there is none any more it asks the run to stop, once."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    def send(self, kind: str, *values: Any) -> None:
        if self._connection is None:
            return
        try:
            self._connection.send((kind, values))
        except BrokenPipeError:
            self._connection = None
            signal.raise_signal(signal.SIGTERM)

    def say(self, text: str) -> None:
        self.send("say", text)

    def warn(self, text: str) -> None:
        self.send("warn", text)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        self.send("table", title, list(rows))

    def stage(self, name: str, done: int, total: int) -> None:
        self.send("stage", name, done, total)

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        self.send("step", dict(line), steps)

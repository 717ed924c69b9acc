"""Where the numbers of each step go: metrics.jsonl always, TensorBoard if asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from limner.core.rundir import MetricsLog, RunDir


@dataclass(frozen=True)
class Loggers:
    """``write`` logs the line of one step, ``sync`` brings the log to the disk."""

    write: Callable[[Mapping[str, Any]], None]
    sync: Callable[[], None]


@contextlib.contextmanager
def loggers(rundir: RunDir, *, step: int, tensorboard: bool) -> Iterator[Loggers]:
    """Gives the logs of a run; lines after ``step``, of a run that is taken up again, are dropped."""
    log = MetricsLog(rundir.metrics, keep_to_step=step)
    board = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(rundir.tensorboard), purge_step=step + 1)

    def write(line: Mapping[str, Any]) -> None:
        log.write(line)
        if board is not None:
            parts = [name for name in line if name.startswith("loss_")]
            for name in ("loss", *parts, "lr", "grad_norm", "images_per_second", "validation_loss"):
                if name in line:
                    board.add_scalar(name, line[name], line["step"])

    try:
        yield Loggers(write, log.sync)
    finally:
        log.close()
        if board is not None:
            board.close()

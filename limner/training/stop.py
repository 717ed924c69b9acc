"""Stopping at the end of a step when somebody asks for it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """``signal`` is that of the request (2 Ctrl-C, 15 SIGTERM), or None."""

    signal: int | None = None


class Terminated(SystemExit):
    """SIGTERM arrived where there is nothing to save yet; the exit code is 143."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Turns SIGTERM into an exception, as SIGINT is one, so that status and temporary files are put right."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one acts at once.

    Only the main thread may handle signals; elsewhere nobody asks.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()

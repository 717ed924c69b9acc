"""A file of JSON lines in which runs remember what they have found out, by the content that it was found out from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

from limner.core.errors import UserError

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """A file with one line per value, keyed by content and by the settings that matter; a context manager.

    Lines are only ever appended, each in one piece, so that several processes may share the file and a kill costs one
    line at most. A line that cannot be understood, or that has other settings, is passed over.
    """

    def __init__(
        self,
        path: Path | None,
        settings: str,
        *,
        write: Callable[[Key, Value], dict[str, Any]],
        read: Callable[[dict[str, Any]], tuple[Key, Value]],
    ) -> None:
        """Opens and reads the file; ``path=None`` remembers nothing.

        ``write`` gives the fields of a line, ``read`` takes them and raises ValueError, KeyError or TypeError for a
        damaged one.
        """
        self._settings, self._write, self._read = settings, write, read
        self._known: dict[Key, Value] = {}
        self._path = path
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)
                self._read_all(path.read_bytes())
            except OSError as error:
                raise _unwritable(path, error) from None

    def get(self, key: Key) -> Value | None:
        """Returns what is known of the content with this key."""
        return self._known.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Remembers what is not known yet."""
        if self._path is None or self._file is None or key in self._known:
            return
        self._known[key] = value
        line = {"settings": self._settings, **self._write(key, value)}
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _read_all(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            try:
                value = json.loads(line)
                if value["settings"] == self._settings:
                    key, found = self._read(value)
                    self._known[key] = found
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        if data and not data.endswith(b"\n") and self._file is not None:
            self._file.write(b"\n")  # the end of a line that a kill cut short

    def __enter__(self) -> Remembered[Key, Value]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot be written: {error.strerror}.", where=str(path), fix="Set cache.folder to another folder."
    )

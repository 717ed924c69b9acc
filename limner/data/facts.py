"""What decoding a picture told about it, remembered by the content of its file."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig, Size
from limner.data.duplicates import Signature

FACTS_VERSION = 1
"""Raise it when decoding, notes or signatures change: older lines are then passed over."""


@dataclass(frozen=True)
class Facts:
    """A picture that can be used. Of others nothing is remembered: they are tried again, they may have been mended."""

    size: Size
    """Upright, in the file."""
    notes: tuple[str, ...]
    signature: Signature


class FactsCache:
    """A file with one line per picture, keyed by its bytes and by the settings that matter; a context manager.

    Lines are only ever appended, each in one piece, so that several processes may share the file and a kill costs one
    line at most. A line that cannot be understood is passed over, and its picture decoded again.
    """

    def __init__(self, path: Path | None, images: ImageConfig) -> None:
        """Opens and reads the file; ``path=None`` remembers nothing."""
        import PIL

        self._settings = f"{FACTS_VERSION} pillow {PIL.__version__} {images.background} {images.max_pixels}"
        self._known: dict[str, Facts] = {}
        self._path = path
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)
                self._read(path.read_bytes())
            except OSError as error:
                raise _unwritable(path, error) from None

    def get(self, sha256: str) -> Facts | None:
        """Returns what is known of the picture whose bytes have this hash."""
        return self._known.get(sha256)

    def put(self, sha256: str, facts: Facts) -> None:
        """Remembers a picture that is not known yet."""
        if self._path is None or self._file is None or sha256 in self._known:
            return
        self._known[sha256] = facts
        line = {
            "settings": self._settings,
            "sha256": sha256,
            "size": facts.size,
            "notes": facts.notes,
            "dhash": f"{facts.signature.dhash:016x}",
            "thumbnail": base64.b64encode(facts.signature.thumbnail).decode(),
        }
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _read(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            try:
                value = json.loads(line)
                if value["settings"] == self._settings:
                    self._known[value["sha256"]] = _facts(value)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        if data and not data.endswith(b"\n") and self._file is not None:
            self._file.write(b"\n")  # the end of a line that a kill cut short

    def __enter__(self) -> FactsCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot be written: {error.strerror}.", where=str(path), fix="Set cache.folder to another folder."
    )


def _facts(value: dict[str, Any]) -> Facts:
    width, height = value["size"]
    thumbnail = base64.b64decode(value["thumbnail"], validate=True)
    notes, dhash = tuple(value["notes"]), int(value["dhash"], 16)
    if not (type(width) is type(height) is int and min(width, height) > 0):
        raise ValueError("no size")
    if not (0 <= dhash < 2**64 and len(thumbnail) == 192 and all(isinstance(note, str) for note in notes)):
        raise ValueError("no signature or no notes")
    return Facts((width, height), notes, Signature(dhash, thumbnail))

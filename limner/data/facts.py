"""What decoding a picture told about it, remembered by the content of its file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from limner.data.buckets import ImageConfig, Size
from limner.data.duplicates import Signature
from limner.data.remembered import Remembered

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

    A picture whose line cannot be understood is decoded again.
    """

    def __init__(self, path: Path | None, images: ImageConfig) -> None:
        """Opens and reads the file; ``path=None`` remembers nothing."""
        import PIL

        settings = f"{FACTS_VERSION} pillow {PIL.__version__} {images.background} {images.max_pixels}"
        self._lines = Remembered[str, Facts](path, settings, write=_line, read=_facts)

    def get(self, sha256: str) -> Facts | None:
        """Returns what is known of the picture whose bytes have this hash."""
        return self._lines.get(sha256)

    def put(self, sha256: str, facts: Facts) -> None:
        """Remembers a picture that is not known yet."""
        self._lines.put(sha256, facts)

    def __enter__(self) -> FactsCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.__exit__(kind, error, at)


def _line(sha256: str, facts: Facts) -> dict[str, Any]:
    return {
        "sha256": sha256,
        "size": facts.size,
        "notes": facts.notes,
        "dhash": f"{facts.signature.dhash:016x}",
        "thumbnail": base64.b64encode(facts.signature.thumbnail).decode(),
    }


def _facts(value: dict[str, Any]) -> tuple[str, Facts]:
    width, height = value["size"]
    thumbnail = base64.b64decode(value["thumbnail"], validate=True)
    notes, dhash = tuple(value["notes"]), int(value["dhash"], 16)
    if not (type(width) is type(height) is int and min(width, height) > 0):
        raise ValueError("no size")
    if not (0 <= dhash < 2**64 and len(thumbnail) == 192 and all(isinstance(note, str) for note in notes)):
        raise ValueError("no signature or no notes")
    return value["sha256"], Facts((width, height), notes, Signature(dhash, thumbnail))

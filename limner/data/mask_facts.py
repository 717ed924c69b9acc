"""What decoding a mask told about it, remembered by the content of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limner.data.buckets import ImageConfig, Size
from limner.data.remembered import Remembered

MASK_FACTS_VERSION = 1
"""Raise it when decoding masks, the grid of crops or what counts as inside changes: older lines are passed over."""

MaskKey = tuple[str, Size]
"""The sha256 of the file that holds the mask, and the bucket of its picture."""


@dataclass(frozen=True)
class MaskFacts:
    """A mask that could be decoded. Of others nothing is remembered: they are tried again."""

    size: Size
    """Upright, in the file."""
    inside: float
    """The share of the whole that is inside, in [0, 1]; grey counts as its part."""
    empty: int
    """Crops of the bucket that see nothing of the inside."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class NoMask:
    """The file is a picture without an alpha channel."""


MaskMemory = Remembered[MaskKey, MaskFacts | NoMask]


def mask_memory(path: Path | None, images: ImageConfig, source: Literal["alpha", "files"]) -> MaskMemory:
    """Returns what is known of masks from the file ``path`` under these settings; ``path=None`` remembers nothing.

    Which crops there are follows from the size, the bucket and ``images.crop``; no other setting changes the facts.
    """
    import PIL

    settings = f"{MASK_FACTS_VERSION} pillow {PIL.__version__} {source} {images.max_pixels} crop {images.crop}"
    return Remembered(path, settings, write=_line, read=_facts)


def _line(key: MaskKey, facts: MaskFacts | NoMask) -> dict[str, Any]:
    return {"sha256": key[0], "bucket": key[1], "mask": None if isinstance(facts, NoMask) else vars(facts)}


def _facts(value: dict[str, Any]) -> tuple[MaskKey, MaskFacts | NoMask]:
    key = value["sha256"], _size(value["bucket"])
    mask = value["mask"]
    if mask is None:
        return key, NoMask()
    inside, empty, notes = mask["inside"], mask["empty"], tuple(mask["notes"])
    if not (type(inside) is float and 0 <= inside <= 1 and type(empty) is int and empty >= 0):
        raise ValueError("no share inside or no number of crops")
    if not all(isinstance(note, str) for note in notes):
        raise ValueError("no notes")
    return key, MaskFacts(_size(mask["size"]), inside, empty, notes)


def _size(value: Any) -> Size:
    width, height = value
    if not (type(width) is type(height) is int and min(width, height) > 0):
        raise ValueError("no size")
    return width, height

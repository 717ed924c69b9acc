"""What a data set is made of: examples, and the files that were left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Role = Literal["instance", "class"]


class ImageSource(Protocol):
    """Something that gives the bytes of an encoded picture (JPEG, PNG, ...)."""

    def read(self) -> bytes:
        """Returns the encoded bytes; raises OSError if they cannot be read."""


@dataclass(frozen=True)
class FileImage:
    """A picture in a file of its own."""

    path: Path

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class BytesImage:
    """A picture that came inside another file (a parquet row)."""

    data: bytes

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Example:
    """One picture with its captions."""

    id: str
    """Its name inside the data set, the same on every machine: a relative POSIX path or file#row."""
    image: ImageSource
    captions: tuple[str, ...]
    """At least one; one of them is drawn per visit."""
    weight: float = 1.0
    """Factor of its loss."""
    repeats: int = 1
    """Visits per epoch."""
    role: Role = "instance"
    mask: ImageSource | None = None
    """Its mask, where that is a file of its own."""
    group: str | None = None
    """What it shows, in a word, where the data set says so: the label of its class."""


@dataclass(frozen=True)
class LeftOut:
    """A file that was found and is not used, and why."""

    id: str
    reason: str
    mask: Path | None = None
    """Where it lies, for a file that is a mask by its name."""


@dataclass(frozen=True)
class Reading:
    """What a data set's ``read()`` found: nothing is dropped without a row in ``left_out``."""

    layout: str
    """For people: 'Flickr8k, Kaggle layout'."""
    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What should be said once, at the top."""
    awaited: int = 0
    """Visits per epoch of pictures that are not there yet: they are drawn before training."""

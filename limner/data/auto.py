"""The layout recognised from the files that are there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.captions_file import DEFAULT_NAME, CaptionsFile
from limner.data.cifar10 import LABELS, Cifar10, holds_cifar10
from limner.data.example import Reading
from limner.data.flickr import FLICKR8K_CAPTIONS, FLICKR30K_CAPTIONS, Flickr8k, Flickr30k
from limner.data.flickr_captions import form_of
from limner.data.folder import Folder
from limner.data.hub import HubDataset
from limner.data.listing import Listing, list_folder, no_images
from limner.data.sidecars import find_caption_files, find_sidecars
from limner.data.table import STANDARD_NAMES, Table
from limner.data.text import counted, first_few, read_lines

Layout = Folder | CaptionsFile | Table | Flickr8k | Flickr30k | Cifar10


class AutoDataset(Config):
    """The layout is recognised from the files in a folder, and said; it must be named where two are possible."""

    kind: Literal["auto"] = "auto"
    path: Path
    """The folder, or a data set of the Hub as owner/name."""
    caption: str | None = None
    """One caption for every picture, where the folder holds no captions."""

    @field_validator("caption")
    @classmethod
    def _caption_says_something(cls, caption: str | None) -> str | None:
        if caption is not None and not caption.strip():
            raise ValueError("is empty. To train without captions use kind: folder with uncaptioned: empty.")
        return caption

    def read(self) -> Reading:
        """Returns what the recognised layout reads, with a note that names it; raises UserError if it is not clear."""
        if self._is_on_the_hub():
            if self.caption is not None:
                raise UserError(
                    "one caption for all is not possible with a data set of the Hub, which has its own.",
                    where="dataset.caption",
                    fix="Leave it out.",
                )
            return _read(HubDataset(id=self.path.as_posix()), f"{str(self.path)!r} is no folder here")
        if self.caption is not None:
            return _read(Folder(path=self.path, caption=self.caption), "caption is set")
        return _read(*recognised(self.path))

    def _is_on_the_hub(self) -> bool:
        """A path that is not there is a name on the Hub, unless its first part is a folder: then it is a slip."""
        looks_so = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.path.as_posix()) is not None
        return looks_so and not self.path.exists() and not self.path.parent.exists()


def recognised(path: Path) -> tuple[Layout, str]:
    """Returns the layout that the files in a folder speak for, and why; raises UserError if it is not clear."""
    listing = list_folder(path)
    found = _recognise(path, listing)
    if len(found) > 1:
        known = "; ".join(f"kind: {layout.kind} ({evidence})" for layout, evidence in found)
        raise UserError(f"{str(path)!r} can be read as {known}.", where="dataset.kind", fix="Name one of them.")
    if not found:
        raise _not_recognised(path, listing)
    return found[0]


def _recognise(path: Path, listing: Listing) -> list[tuple[Layout, str]]:
    """Returns the layouts that the files speak for, each with the file that does."""
    found: list[tuple[Layout, str]] = []
    if name := _caption_file(listing, FLICKR8K_CAPTIONS, ("csv", "token")):
        found.append((Flickr8k(path=path), f"{name} names photos and captions"))
    if name := _caption_file(listing, FLICKR30K_CAPTIONS, ("results", "token")):
        found.append((Flickr30k(path=path), f"{name} names photos and captions"))
    if _caption_file(listing, (DEFAULT_NAME,), ("",)):
        found.append((CaptionsFile(path=path), f"{DEFAULT_NAME} has one caption per line"))
    parquet = [id for id in listing.others if re.fullmatch(r"(data/|plain_text/)?[^/]*\.parquet", id)]
    of_cifar10 = [id for id in parquet if holds_cifar10(listing.others[id])]
    if evidence := (of_cifar10 or _cifar10_files(listing)):
        found.append((Cifar10(path=path), f"{evidence[0]} is there"))
    tables = [id for id in listing.others if id in STANDARD_NAMES] or parquet
    if tables and not of_cifar10:
        found.append((Table(path=path), f"{tables[0]} is there"))
    if sidecars := find_sidecars(listing):
        found.append((Folder(path=path), f"{first_few(next(iter(sidecars.values())))} lies beside its picture"))
    return found


def _caption_file(listing: Listing, names: tuple[str, ...], forms: tuple[str, ...]) -> str:
    """Returns the first of ``names`` that is there and whose first line has one of ``forms``, or ""."""
    for name in names:
        if name in listing.others and form_of("".join(read_lines(listing.others[name])[:1])) in forms:
            return name
    return ""


def _cifar10_files(listing: Listing) -> list[str]:
    batches = [name for name in ("batches.meta", "cifar-10-batches-py/batches.meta") if name in listing.others]
    classes = (f"{split}/{label}/" for split in ("train", "test") for label in LABELS)
    return batches + [folder for folder in classes if any(id.startswith(folder) for id in listing.images)]


def _not_recognised(path: Path, listing: Listing) -> UserError:
    if not listing.images:
        return no_images(listing)
    what = f"{str(path)!r} has {counted(len(listing.images), 'picture')} and no captions that are recognised."
    files = find_caption_files(listing, {})
    if files:
        what += f" There is {first_few(files)}: its name, place or form is not a usual one."
    elif (listing.root.parent / DEFAULT_NAME).is_file():
        what += f" There is {DEFAULT_NAME} beside the folder: perhaps set dataset.path to {str(path.parent)!r}."
    return UserError(
        what,
        where="dataset.path",
        fix="Write the caption of photo.jpg into photo.txt beside it, or set dataset.caption to one caption for all, "
        "or name the layout: kind: folder with uncaptioned: empty trains without captions, kind: dreambooth on one "
        "subject.",
    )


def _read(layout: Layout | HubDataset, evidence: str) -> Reading:
    try:
        reading = layout.read()
    except UserError as error:
        fix = f"{error.fix} (Recognised as kind: {layout.kind}, because {evidence}; name it to set its other options.)"
        raise UserError(error.what, where=error.where, fix=fix) from None
    return replace(reading, notes=(f"Recognised as kind: {layout.kind}, because {evidence}.", *reading.notes))

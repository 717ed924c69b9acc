"""Pictures in a folder, with captions beside them, one caption for all, or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.example import Example, FileImage, Reading
from limner.data.listing import Listing, list_images
from limner.data.sidecars import (
    find_caption_files,
    find_sidecars,
    looks_misnamed,
    one_sidecar_each,
    refuse_unused_captions,
)
from limner.data.text import counted, first_few, one_line, read_text
from limner.data.uncaptioned import Uncaptioned, settle

MAX_SIDECAR_BYTES = 1_000_000


class Folder(Config):
    """A folder of pictures; the caption of photo.jpg stands in photo.txt or photo.caption beside it."""

    kind: Literal["folder"] = "folder"
    path: Path
    """The folder; pictures in the folders inside it belong to the data set too."""
    caption: str | None = None
    """One caption for every picture, in place of caption files."""
    ignore_sidecars: bool = False
    """Go on although captions lie in the folder that are not used, because caption is set or no caption is wanted."""
    uncaptioned: Uncaptioned = "stop"
    """What to do with a picture without a caption: stop, leave it out, or train on it with an empty caption."""
    caption_lines: Literal["whole", "each"] = "whole"
    """A caption file is one caption (whole), or each of its lines is one (each); a visit then draws one of them."""

    @model_validator(mode="after")
    def _one_source_of_captions(self) -> Folder:
        if self.caption is not None:
            if not self.caption.strip():
                raise ValueError("caption is empty. To train without captions set uncaptioned: empty.")
            for name, value, default in (
                ("uncaptioned", self.uncaptioned, "stop"),
                ("caption_lines", self.caption_lines, "whole"),
            ):
                if value != default:
                    raise ValueError(f"{name}: {value} does nothing where caption is set. Leave one of them out.")
        elif self.ignore_sidecars and self.uncaptioned != "empty":
            raise ValueError("ignore_sidecars leaves no caption. Set caption, or uncaptioned: empty.")
        return self

    def read(self) -> Reading:
        """Returns the pictures with their captions; raises UserError where captions are missing or would be unused."""
        listing = list_images(self.path)
        if self.caption is not None:
            return self._same_for_all(listing, one_line(self.caption), f"caption is {one_line(self.caption)!r}")
        if self.ignore_sidecars:
            return self._same_for_all(listing, "", "ignore_sidecars is set")
        return self._beside_pictures(listing)

    def _same_for_all(self, listing: Listing, caption: str, instead: str) -> Reading:
        if not self.ignore_sidecars:
            fix = "Leave caption out to use them, or use kind: folder with ignore_sidecars: true."
            refuse_unused_captions(listing, find_sidecars(listing), where="dataset.caption", instead=instead, fix=fix)
        examples = tuple(Example(id, FileImage(path), (caption,)) for id, path in listing.images.items())
        layout = "image folder, one caption for all" if caption else "image folder, no captions"
        return Reading(layout, examples, tuple(listing.rows()), listing.notes())

    def _beside_pictures(self, listing: Listing) -> Reading:
        found = find_sidecars(listing)
        files = find_caption_files(listing, found)
        if files:
            raise UserError(
                f"{str(self.path)!r} holds captions in {first_few(files)}, and kind: folder does not read them.",
                where="dataset.kind",
                fix="Use kind: table, captions_file, flickr8k or flickr30k, or move the file out of the folder.",
            )
        sidecars = one_sidecar_each(listing, found, where="dataset.path")
        texts = {id: read_text(listing.others[name], limit=MAX_SIDECAR_BYTES) for id, name in sidecars.items()}
        examples, left_out, notes = settle(
            ((id, FileImage(path), self._captions(texts.get(id, ""))) for id, path in listing.images.items()),
            self.uncaptioned,
            stop=lambda without: self._no_captions(listing, without, sidecars),
        )
        several = [sidecars[id] for id, text in texts.items() if "\n" in text.strip()]
        if several and self.caption_lines == "whole":
            notes.append(
                f"{counted(len(several), 'caption file')} of several lines, each read as one caption "
                f"({first_few(several)}); set dataset.caption_lines: each if every line is a caption of its own."
            )
        return Reading(
            "image folder, captions beside the pictures" if sidecars else "image folder, no captions",
            tuple(examples),
            (*left_out, *listing.rows(set(sidecars.values()))),
            (*listing.notes(), *notes),
        )

    def _captions(self, text: str) -> tuple[str, ...]:
        parts = text.split("\n") if self.caption_lines == "each" else [text]
        return tuple(caption for caption in map(one_line, parts) if caption)

    def _no_captions(self, listing: Listing, without: Sequence[str], sidecars: Collection[str]) -> UserError:
        empty = [id for id in without if id in sidecars]
        of_them = f" (for {counted(len(empty), 'picture')} the file is empty: {first_few(empty)})" if empty else ""
        have = "has" if len(without) == 1 else "have"
        return UserError(
            f"{len(without):,} of {counted(len(listing.images), 'picture')} in {str(self.path)!r} {have} no caption: "
            f"{first_few(without)}{of_them}. {looks_misnamed(listing, without)}".strip(),
            where="dataset.path",
            fix="Write the caption of photo.jpg into photo.txt beside it, or set dataset.caption to one caption for "
            "all, or dataset.uncaptioned to leave_out or empty.",
        )

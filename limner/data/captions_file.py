"""Pictures in a folder, and a text file with one caption per line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.example import Example, FileImage, Reading
from limner.data.listing import Listing, find_file, list_images, open_folder
from limner.data.sidecars import find_sidecars, refuse_unused_captions
from limner.data.text import counted, first_few, one_line, read_lines

DEFAULT_NAME = "captions.txt"


class CaptionsFile(Config):
    """A folder of pictures and a text file: line n is the caption of the n-th picture by name, 2 before 10."""

    kind: Literal["captions_file"] = "captions_file"
    path: Path
    """The folder that holds the pictures, directly or in one folder inside it."""
    captions: Path | None = None
    """The text file, relative to path. Unset: captions.txt in path or beside it."""

    def read(self) -> Reading:
        """Returns the pictures, each with its line; raises UserError unless there is one line for each picture."""
        file = self._find_captions()
        listing = list_images(self.path)
        folders = sorted({id.rpartition("/")[0] for id in listing.images})
        if len(folders) > 1:
            raise UserError(
                f"{str(self.path)!r} has pictures in {len(folders)} folders, so the n-th picture is not well defined: "
                f"{first_few([f'{folder}/' if folder else str(self.path) for folder in folders])}.",
                where="dataset.path",
                fix="Name one folder, or use kind: folder with a caption file beside each picture.",
            )
        used = {id for id, path in listing.others.items() if path == file}
        sidecars = {id: found for id, found in find_sidecars(listing).items() if not used.intersection(found)}
        refuse_unused_captions(
            _without(listing, used),
            sidecars,
            where="dataset.kind",
            instead=f"{file.name} is read",
            fix="Use the kind that reads them, or move them away.",
        )
        lines = [one_line(line) for line in read_lines(file)]
        _check_lines(file, lines, listing)
        captions = dict(zip(listing.images, lines, strict=True))
        examples = tuple(Example(id, FileImage(path), (captions[id],)) for id, path in listing.images.items())
        notes = (*listing.notes(), *_order_notes(list(captions.items())))
        return Reading("image folder, one caption per line", examples, tuple(listing.rows(used)), notes)

    def _find_captions(self) -> Path:
        folder = open_folder(self.path, where="dataset.path")
        if self.captions is not None:
            named = folder / self.captions
            return named.resolve() if named.is_file() else named
        places = (folder, folder.parent)
        found = [file for place in places if (file := find_file(place, DEFAULT_NAME, where="dataset.captions"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                f"there are two: {found[0]} and {found[1]}.",
                where="dataset.captions",
                fix=f"Set dataset.captions to {DEFAULT_NAME} or ../{DEFAULT_NAME}.",
            )
        raise UserError(
            f"found no text file with captions. Looked for {DEFAULT_NAME} in {' and '.join(map(str, places))}.",
            where="dataset.captions",
            fix="Set dataset.captions to the file, relative to dataset.path.",
        )


def _check_lines(file: Path, lines: list[str], listing: Listing) -> None:
    """Raises UserError unless every line is a caption, one for each picture."""
    names = {id.rpartition("/")[2].lower() for id in listing.images}
    for number, line in enumerate(lines, start=1):
        if not line:
            raise UserError(
                "is a blank line, so what follows would belong to the wrong picture.",
                where=f"{file}:{number}",
                fix="Take it out, or write the caption.",
            )
        beginnings = {
            re.split(separators, line.lower(), maxsplit=1)[0].strip() for separators in (r"[,;|#]", r"[,;|:# ]")
        }
        if beginnings & names or (number == 1 and re.fullmatch(r"\w+ ?, ?captions?", line.lower())):
            raise UserError(
                f"begins with the name of a picture or a column: {line[:60]!r}. Here a line is a caption only.",
                where=f"{file}:{number}",
                fix="Use kind: flickr8k (image,caption) or kind: table (metadata.csv), or take the names out.",
            )
    images = list(listing.images)
    if len(lines) != len(images):
        unmatched = images[len(lines) :] or [f"line {n + 1} ({lines[n]!r})" for n in range(len(images), len(lines))]
        raise UserError(
            f"has {counted(len(lines), 'line')} for {counted(len(images), 'picture')} in {listing.name!r}. "
            f"Without a partner: {first_few(unmatched)}. {' '.join(listing.notes())}".strip(),
            where=str(file),
            fix="Give each picture one line, in the order of the names.",
        )


def _without(listing: Listing, used: set[str]) -> Listing:
    others = {id: path for id, path in listing.others.items() if id not in used}
    return Listing(listing.root, listing.name, listing.images, others, listing.left_out)


def _order_notes(captions: list[tuple[str, str]]) -> list[str]:
    """Says which line went to which picture: no program can see that the writer counted in another order."""
    ids = [id for id, _ in captions]
    (first, first_caption), (last, _) = captions[0], captions[-1]
    notes = [f"Line 1 ({first_caption[:60]!r}) belongs to {first}, line {len(ids)} to {last}."]
    alphabetical = sorted(ids)
    if ids != alphabetical:
        n = next(n for n, pair in enumerate(zip(ids, alphabetical, strict=True)) if pair[0] != pair[1])
        notes.append(
            f"Pictures are counted 2 before 10: line {n + 1} is {ids[n]}, in alphabetical order {alphabetical[n]}."
        )
    return notes

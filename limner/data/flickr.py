"""Flickr8k and Flickr30k: photos with five captions each, in the layouts in which they are passed on."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.example import Example, FileImage, LeftOut, Reading
from limner.data.flickr_captions import Captions, read_captions
from limner.data.listing import IMAGE_SUFFIXES, find_file, list_images, open_folder, split_suffix
from limner.data.text import counted, first_few, read_lines

FLICKR8K_CAPTIONS = ("captions.txt", "Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
FLICKR8K_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset")  # Flicker is the original's spelling
FLICKR30K_CAPTIONS = ("results.csv", "flickr30k_images/results.csv", "results_20130124.token")
FLICKR30K_FOLDERS = ("flickr30k_images", "flickr30k-images", "Images", "images")


class Flickr8k(Config):
    """Flickr8k: captions.txt and Images/, or the original Flickr8k.token.txt and Flicker8k_Dataset/."""

    kind: Literal["flickr8k"] = "flickr8k"
    path: Path
    """The folder that holds the captions and the folder of photos."""
    images: Path | None = None
    """The folder of photos, relative to path. Unset: Images, images, Flicker8k_Dataset or Flickr8k_Dataset."""
    captions: Path | None = None
    """The caption file, relative to path. Unset: captions.txt, else Flickr8k.token.txt."""
    split: Literal["all", "train", "dev", "test"] = "all"
    """Which photos: all, or those of an original list, such as Flickr_8k.trainImages.txt."""

    def read(self) -> Reading:
        """Returns the photos that have captions, each with all of its captions."""
        root = open_folder(self.path, where="dataset.path")
        captions = _read_captions(root, self.captions, FLICKR8K_CAPTIONS)
        folder = _image_folder(root, self.images, FLICKR8K_FOLDERS)
        if self.split == "all":
            return _pair(f"Flickr8k, {captions.layout}", folder, captions)
        layout = f"Flickr8k, {captions.layout}, {self.split} split"
        return _pair(layout, folder, captions, split=self._split_names(root))

    def _split_names(self, root: Path) -> set[str]:
        name = f"Flickr_8k.{self.split}Images.txt"
        for place in (name, f"Flickr8k_text/{name}"):
            if file := find_file(root, place, where="dataset.split"):
                return {unicodedata.normalize("NFC", line.strip()) for line in read_lines(file)} - {""}
        raise UserError(
            f"the list {name} is not in {str(self.path)!r} or its folder Flickr8k_text.",
            where="dataset.split",
            fix="Put the original list there, or set dataset.split: all.",
        )


class Flickr30k(Config):
    """Flickr30k: results.csv and flickr30k_images/, or the original results_20130124.token."""

    kind: Literal["flickr30k"] = "flickr30k"
    path: Path
    """The folder that holds the captions and the folder of photos."""
    images: Path | None = None
    """The folder of photos, relative to path. Unset: flickr30k_images, flickr30k-images, Images or images."""
    captions: Path | None = None
    """The caption file, relative to path. Unset: results.csv, else results_20130124.token."""

    def read(self) -> Reading:
        """Returns the photos that have captions, each with all of its captions."""
        root = open_folder(self.path, where="dataset.path")
        captions = _read_captions(root, self.captions, FLICKR30K_CAPTIONS)
        return _pair(f"Flickr30k, {captions.layout}", _image_folder(root, self.images, FLICKR30K_FOLDERS), captions)


def _read_captions(root: Path, named: Path | None, usual: Sequence[str]) -> Captions:
    if named is not None:
        return read_captions(root / named)
    found = [file for name in usual if (file := find_file(root, name, where="dataset.path"))]
    if not found:
        raise UserError(
            f"{str(root)!r} holds no captions. Looked for {', '.join(usual)}.",
            where="dataset.path",
            fix="Set dataset.captions to the file, relative to dataset.path.",
        )
    captions = read_captions(found[0])
    if len(found) == 1:
        return captions
    others = ", ".join(path.relative_to(root).as_posix() for path in found[1:])
    note = f"Captions are read from {found[0].name}; {others} is there too and not read."
    return replace(captions, notes=(*captions.notes, note))


def _image_folder(root: Path, named: Path | None, usual: Sequence[str]) -> Path:
    """Returns the one folder of photos; Kaggle's archives unpack to a folder inside one of the same name."""
    if named is not None:
        return open_folder(root / named, where="dataset.images")
    found: list[Path] = []
    for folder in [root, *(root / name for name in usual), *(root / name / name for name in usual)]:
        if _has_pictures(folder) and not any(folder.samefile(other) for other in found):
            found.append(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"photos lie in several folders: {first_few([str(folder) for folder in found])}.",
            where="dataset.images",
            fix="Set dataset.images to one of them, relative to dataset.path.",
        )
    raise UserError(
        f"{str(root)!r} has no folder of photos. Looked for {', '.join(usual)}.",
        where="dataset.images",
        fix="Set dataset.images to the folder, relative to dataset.path.",
    )


def _has_pictures(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = (path.name for path in open_folder(folder, where="dataset.images").iterdir())
    return any(split_suffix(name)[1] in IMAGE_SUFFIXES for name in names if not name.startswith("."))


def _pair(layout: str, folder: Path, captions: Captions, *, split: set[str] | None = None) -> Reading:
    """Returns the photos of ``folder`` with their captions; only those that ``split`` names, unless it is None."""
    listing = list_images(folder, where="dataset.images")
    by_name = captions.by_name
    examples, left_out = [], []
    for id, path in listing.images.items():
        if split is not None and id not in split:
            left_out.append(LeftOut(id, "it is not in the split"))
        elif id in by_name:
            examples.append(Example(id, FileImage(path), by_name[id]))
        else:
            left_out.append(LeftOut(id, "no caption names it"))
    if not examples:
        raise UserError(
            f"no photo of {folder} is named by the captions{'' if split is None else ' and the split'}. "
            f"Photos: {first_few(list(listing.images))}. Captions name: {first_few(list(by_name))}.",
            where="dataset.images",
            fix="Name the folder and the caption file that belong together in dataset.images and dataset.captions.",
        )
    notes = [*listing.notes(), *captions.notes]
    without = [row.id for row in left_out if row.reason == "no caption names it"]
    if without:
        notes.append(f"{counted(len(without), 'photo')} without a caption left out ({first_few(without)}).")
    wanted = by_name if split is None else split
    absent = [name for name in wanted if name not in listing.images]
    if absent:
        unused = sum(len(by_name.get(name, ())) for name in absent)
        list_name = "captions" if split is None else "split"
        photos = f"{counted(len(absent), 'photo')} of the {list_name} not in {folder.name}"
        notes.append(f"{photos}: {counted(unused, 'caption')} unused.")
        rows = (LeftOut(id, f"{counted(len(by_name.get(id, ())), 'caption')} and no photo") for id in sorted(absent))
        left_out += rows
    return Reading(layout, tuple(examples), (*left_out, *listing.rows()), tuple(notes))

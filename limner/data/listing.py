"""The files of a data folder: which are pictures and in which order, and which are left out, and why."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from limner.core.errors import UserError
from limner.data.example import LeftOut
from limner.data.text import counted, first_few

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jfif")

_CONVERT_FIRST = frozenset((
    ".heic", ".heif", ".hif", ".svg", ".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".pdf", ".raw", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".jp2", ".j2k", ".jxl", ".exr", ".hdr", ".tga", ".ico",
    ".ppm", ".pgm",
))  # fmt: skip
"""Pictures in formats that Limner does not open."""

_MASK_ENDINGS = (".mask", "-masklabel")  # ours, and that of OneTrainer

_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar"))

_SYSTEM_FILES = frozenset((
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information",
))  # fmt: skip
"""What file managers put into folders; like names that begin with a dot they are nobody's data."""


_WITH_A_ROW = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"))


@dataclass(frozen=True)
class Listing:
    """The regular files under one folder, hidden and system files aside.

    An id is the path below ``root``, POSIX, in Unicode form NFC: the same on every machine.
    """

    root: Path
    """Absolute, without symbolic links."""
    name: str
    """The folder as the user named it, for messages."""
    images: dict[str, Path]
    """By id, in natural order."""
    others: dict[str, Path]
    """By id, in natural order."""
    left_out: tuple[LeftOut, ...]
    """Masks, symbolic links that lead elsewhere, and what is no regular file."""
    quiet: tuple[LeftOut, ...] = ()
    """Left out, and no word need be said of it: what file managers put there."""

    def rows(self, used: Collection[str] = ()) -> list[LeftOut]:
        """Returns a row for each file that is no picture and is not ``used``."""
        unused = [LeftOut(id, _why_no_picture(id)) for id in self.others if id not in used]
        return [*self.left_out, *unused, *self.quiet]

    def notes(self) -> tuple[str, ...]:
        """Returns what should be said about files that the user may take for pictures of the data set."""
        suffixes = Counter(suffix for id in self.others if (suffix := split_suffix(id)[1]) in _CONVERT_FIRST)
        said = [
            f"{counted(count, suffix + ' file')} left out: convert to JPEG or PNG."
            for suffix, count in suffixes.items()
        ]
        unusable = [row for row in self.left_out if row.mask is None]
        if unusable:
            said.append(f"{counted(len(unusable), 'file')} left out, {unusable[0].id}: {unusable[0].reason}.")
        return tuple(said)


def list_folder(path: Path, *, where: str = "dataset.path") -> Listing:
    """Returns the files under ``path``, at any depth. Links to folders are not followed, so that no walk is endless."""
    root = open_folder(path, where=where)
    images: dict[str, Path] = {}
    others: dict[str, Path] = {}
    left_out: list[LeftOut] = []
    quiet: list[LeftOut] = []
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        for entry in _scan(folder):
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
                if entry.name.lower() in _WITH_A_ROW and entry.is_file(follow_symlinks=False):
                    quiet.append(LeftOut(prefix + _portable(entry.name), "written by a file manager"))
                continue
            id = prefix + _portable(entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), f"{id}/"))
                continue
            reason = _why_unusable(entry, root)
            if reason:
                left_out.append(LeftOut(id, reason))
                continue
            if masked_stem(id) is not None:
                left_out.append(LeftOut(id, "a mask by its name", mask=Path(entry.path)))
                continue
            group = images if split_suffix(id)[1] in IMAGE_SUFFIXES else others
            if id in group:
                raise UserError(
                    f"two files have the name {id!r}, in different Unicode forms.",
                    where=where,
                    fix="Rename one of them.",
                )
            group[id] = Path(entry.path)
    rows = [tuple(sorted(group, key=lambda row: row.id)) for group in (left_out, quiet)]
    return Listing(root, str(path), _sorted(images), _sorted(others), *rows)


def list_images(path: Path, *, where: str = "dataset.path") -> Listing:
    """Returns the files under ``path``; raises UserError if none of them is a picture."""
    listing = list_folder(path, where=where)
    if not listing.images:
        raise no_images(listing, where=where)
    return listing


def no_images(listing: Listing, *, where: str = "dataset.path") -> UserError:
    """Returns the error for a folder without a picture; it says what was found there instead."""
    masks = [row.id for row in listing.left_out if row.mask is not None]
    found = " ".join([*listing.notes(), *([f"These are masks by their names: {first_few(masks)}."] if masks else [])])
    if not found:
        found = f"Found {first_few(list(listing.others))}." if listing.others else "The folder is empty."
    looked = f"Looked for {', '.join(IMAGE_SUFFIXES)} in {listing.name}/ and the folders in it."
    return UserError(
        f"{listing.name!r} has no images. {looked} {found}", where=where, fix=f"Put images there or set {where}."
    )


def open_folder(path: Path, *, where: str) -> Path:
    """Returns the folder, absolute and without symbolic links; raises UserError if there is none."""
    try:
        folder = path.expanduser().resolve(strict=True)
        is_folder = folder.is_dir()
    except FileNotFoundError:
        raise UserError(
            f"{str(path)!r} does not exist{_similar_name(path)}", where=where, fix=f"Set {where}."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # no right to look, a loop of links, ~nobody, a NUL byte
        raise UserError(f"{str(path)!r} cannot be opened: {error}.", where=where, fix=f"Set {where}.") from None
    if not is_folder:
        fix = (
            "Unpack it, and name the folder." if path.suffix.lower() in _ARCHIVES else "Name the folder that holds it."
        )
        raise UserError(f"{str(path)!r} is a file, not a folder.", where=where, fix=fix)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{str(path)!r} may not be listed.", where=where, fix="Allow yourself to read it.")
    return folder


def find_file(folder: Path, name: str, *, where: str) -> Path | None:
    """Returns the file of a usual name in ``folder`` (absolute), None if there is none.

    Raises UserError for a link that leads out of the folder: nobody named that file.
    """
    try:
        path = (folder / name).resolve(strict=True)
        is_file = path.is_file()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder / name} cannot be opened: {error}.", where=where, fix="Mend or remove it.") from None
    if is_file and not path.is_relative_to(folder):
        raise UserError(f"{folder / name} is a link that leads out of the folder.", where=where, fix="Copy the file.")
    return path if is_file else None


def id_below(folder: str, name: str) -> str | None:
    """Returns the id that ``name``, found in a file of ``folder`` (an id, "" for the root), means.

    None if it is absolute or leads out of the root.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    if name.startswith("/") or re.match(r"[A-Za-z]:/", name) or "\0" in name:
        return None
    parts = folder.split("/") if folder else []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def split_suffix(id: str) -> tuple[str, str]:
    """Returns the id without its suffix, and the suffix in lower case: ``a/b.JPG`` gives ``a/b`` and ``.jpg``."""
    dot = id.rfind(".")
    if dot <= id.rfind("/") + 1:
        return id, ""
    return id[:dot], id[dot:].lower()


def masked_stem(id: str) -> str | None:
    """Returns the id, without its suffix, of the picture whose mask this file is by its name; None if it is none.

    ``a/b.mask.png`` and ``a/b-masklabel.png`` give ``a/b``.
    """
    stem, suffix = split_suffix(id)
    for ending in _MASK_ENDINGS:
        if suffix in IMAGE_SUFFIXES and stem.lower().endswith(ending):
            return stem[: -len(ending)]
    return None


def natural_key(id: str) -> tuple[list[list[str | int]], str]:
    """Sorts 2 before 10, folder by folder; names that differ only in leading zeros by their letters."""
    return [[int(p) if i % 2 else p for i, p in enumerate(re.split(r"([0-9]+)", part))] for part in id.split("/")], id


def _sorted(files: dict[str, Path]) -> dict[str, Path]:
    return {id: files[id] for id in sorted(files, key=natural_key)}


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"cannot be listed: {error.strerror}.",
            where=str(folder),
            fix="Allow yourself to read it, or move it out of the data set.",
        ) from None


def _portable(name: str) -> str:
    """Returns a file name in one Unicode form; bytes that are no UTF-8 are written as escapes."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _why_unusable(entry: os.DirEntry[str], root: Path) -> str:
    """Returns why a directory entry is not used, or "" for a regular file of the data set."""
    try:
        if entry.is_symlink():
            target = Path(entry.path).resolve(strict=True)
            if target.is_dir():
                return "a link to a folder; links to folders are not followed"
            if not target.is_relative_to(root):
                return "a link that leads out of the data set's folder; copy the file instead"
            return "" if target.is_file() else "no regular file"
        if not entry.is_file():
            return "no regular file"
    except (OSError, RuntimeError):  # a loop is a RuntimeError up to Python 3.12
        return "a link that leads nowhere"
    return ""


def _why_no_picture(id: str) -> str:
    suffix = split_suffix(id)[1]
    if suffix in _CONVERT_FIRST:
        return f"{suffix} files cannot be read; convert it to JPEG or PNG"
    if suffix in _ARCHIVES:
        return "an archive; unpack it"
    if suffix in (".txt", ".caption"):
        return "a text file without a picture of the same name"
    return "not a picture"


def _similar_name(path: Path) -> str:
    try:
        names = [entry.name for entry in path.expanduser().parent.iterdir()]
    except (OSError, RuntimeError, ValueError):
        return "."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f". Did you mean {str(path.parent / close[0])!r}?" if close else "."

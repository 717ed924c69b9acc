"""Where captions are written: files beside the pictures, or a table. What is there is never lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from limner.core.errors import UserError
from limner.core.rundir import write_atomic
from limner.data.columns import CAPTION_COLUMNS, captions_in, find_caption_column
from limner.data.folder import MAX_SIDECAR_BYTES
from limner.data.listing import Listing, id_below, split_suffix
from limner.data.metadata import read_metadata
from limner.data.sidecars import find_caption_files, find_sidecars, one_sidecar_each
from limner.data.table import FILE_NAME
from limner.data.text import first_few, one_line, read_text

Kind = Literal["sidecars", "table"]
TABLE = "metadata.jsonl"


class Store(Protocol):
    """Captions of the pictures of one folder."""

    captioned: dict[str, str]
    """By picture, the file in which its caption stands; pictures without one are not in it."""

    def write(self, captions: Mapping[str, str]) -> None:
        """Writes captions by id, each file whole or not at all."""


class Sidecars:
    """``photo.txt`` beside ``photo.jpg``, as the dataset ``folder`` reads it."""

    def __init__(self, listing: Listing, *, replace: bool) -> None:
        """Finds the captions that are there; raises UserError where one could not be told from another."""
        found = find_sidecars(listing)
        files = find_caption_files(listing, found)
        if files:
            raise UserError(
                f"{listing.name!r} holds captions in {first_few(files)}; files beside the pictures would hide them.",
                where="--write",
                fix="Use --write table, which adds to metadata.jsonl, or move that file out of the folder.",
            )
        self._files = {id: listing.others[name] for id, name in one_sidecar_each(listing, found, where="DIR").items()}
        texts = {id: read_text(path, limit=MAX_SIDECAR_BYTES) for id, path in self._files.items()}
        self.captioned = {id: self._files[id].name for id, text in texts.items() if one_line(text)}
        self._images = listing.images
        stems = Counter(split_suffix(id)[0] for id in listing.images)
        for id in listing.images:
            if replace or id not in self.captioned:
                self._refuse_sharing(id, shared=stems[split_suffix(id)[0]] > 1)

    def _refuse_sharing(self, id: str, *, shared: bool) -> None:
        target = self._target(id)
        if shared or (id not in self._files and (target.exists() or target.is_symlink())):
            other = "another picture of that name" if shared else target.name
            raise UserError(
                f"{id!r} cannot get a caption file of its own: {other} is there too.",
                where="DIR",
                fix="Rename one of them.",
            )

    def write(self, captions: Mapping[str, str]) -> None:
        for id, caption in captions.items():
            target = self._target(id)
            if id in self.captioned:
                keep_copy(target)
            put(target, f"{caption}\n".encode())
            self._files[id] = target

    def _target(self, id: str) -> Path:
        return self._files.get(id) or self._images[id].with_suffix(".txt")


class MetadataTable:
    """``metadata.jsonl`` in the folder, as the dataset ``table`` reads it."""

    def __init__(self, listing: Listing) -> None:
        """Reads the table that is there; raises UserError where captions lie elsewhere too."""
        self._path = listing.root / TABLE
        sidecars = find_sidecars(listing)
        others = [id for id in find_caption_files(listing, sidecars) if id != TABLE]
        if others or sidecars:
            found = others or [name for several in sidecars.values() for name in several]
            raise UserError(
                f"{listing.name!r} holds captions in {first_few(found)}; a table would hide them.",
                where="--write",
                fix="Use --write sidecars, or move them out of the folder.",
            )
        self._rows: list[dict[str, Any]] = []
        self._column = CAPTION_COLUMNS[0]
        self.captioned: dict[str, str] = {}
        self._copied = False
        if TABLE in listing.others:
            self._read(listing)

    def _read(self, listing: Listing) -> None:
        columns, rows = read_metadata(listing.others[TABLE])
        self._column = find_caption_column([name for name in columns if name != FILE_NAME], None, where=TABLE)
        for where, cells in rows:
            self._rows.append(cells)
            id = _id(cells)
            if id in listing.images and captions_in(cells.get(self._column), where=where):
                self.captioned[id] = TABLE

    def write(self, captions: Mapping[str, str]) -> None:
        if not self._copied and any(id in self.captioned for id in captions):
            keep_copy(self._path)
            self._copied = True
        rows: list[dict[str, Any]] = []
        placed: set[str] = set()
        for cells in self._rows:
            id = _id(cells)
            if id not in captions:
                rows.append(cells)
            elif id not in placed:
                placed.add(id)
                rows.append({**cells, self._column: captions[id]})
        rows += [{FILE_NAME: id, self._column: text} for id, text in captions.items() if id not in placed]
        self._rows = rows
        lines = (json.dumps(cells, ensure_ascii=False) + "\n" for cells in self._rows)
        put(self._path, "".join(lines).encode())


def open_store(kind: Kind, listing: Listing, *, replace: bool) -> Store:
    """Returns where the captions of a folder are, and shall be."""
    return Sidecars(listing, replace=replace) if kind == "sidecars" else MetadataTable(listing)


def _id(cells: Mapping[str, Any]) -> str:
    name = cells.get(FILE_NAME)
    return (id_below("", name) or "") if isinstance(name, str) else ""


def keep_copy(path: Path) -> Path:
    """Keeps a file as ``NAME.bak``, ``NAME.bak2`` and so on, the first that is free."""
    number, copy = 1, path.with_name(f"{path.name}.bak")
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.bak{number}")
    put(copy, path.read_bytes())
    return copy


def put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; raises UserError where it cannot be written."""
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror}.", where=str(path), fix="Allow yourself to write there, or make room."
        ) from None

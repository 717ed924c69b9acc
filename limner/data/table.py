"""Pictures named in a table (metadata.jsonl, .csv, .parquet), and pictures inside parquet files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.columns import captions_in, find_caption_column, suggest
from limner.data.example import BytesImage, FileImage, LeftOut, Reading
from limner.data.listing import Listing, id_below, list_folder, split_suffix
from limner.data.metadata import SUFFIXES, read_metadata
from limner.data.parquet import image_columns, read_pictures, read_schema
from limner.data.text import counted, first_few
from limner.data.uncaptioned import Picture, Uncaptioned, settle

FILE_NAME = "file_name"
STANDARD_NAMES = tuple(f"metadata{suffix}" for suffix in SUFFIXES)


class Table(Config):
    """The Hub's image folder: metadata.jsonl, .csv or .parquet with file_name and a caption; or pictures in parquet."""

    kind: Literal["table"] = "table"
    path: Path
    """The folder that holds the table and the pictures."""
    file: str | None = None
    """The table, relative to path; a pattern such as train-*.parquet names several. Unset: metadata.jsonl, .csv or
    .parquet, else every parquet file in path or path/data."""
    column: str | None = None
    """The column that holds the captions. Unset: the one named text, caption, captions, prompt or description."""
    image_column: str | None = None
    """The column that holds the pictures, where parquet files have several."""
    missing: Literal["stop", "leave_out"] = "stop"
    """What to do with a row whose picture is not there: stop, or leave it out."""
    uncaptioned: Uncaptioned = "stop"
    """What to do with a picture whose caption is empty: stop, leave it out, or train on it with an empty caption."""

    def read(self) -> Reading:
        """Returns the pictures that the table names; raises UserError for rows that cannot be used as they stand."""
        listing = list_folder(self.path)
        tables = find_tables(listing, self.file)
        embedded = {id: image_columns(read_schema(listing.others[id])) for id in tables if id.endswith(".parquet")}
        if len(embedded) == len(tables) and all(embedded.values()):
            return self._inside_parquet(listing, tables)
        if len(tables) > 1:
            raise UserError(
                f"found several tables: {first_few(tables)}.", where="dataset.file", fix="Name one of them."
            )
        if self.image_column is not None:
            raise UserError(f"{tables[0]} holds no pictures.", where="dataset.image_column", fix="Leave it out.")
        return self._named(listing, tables[0])

    def _named(self, listing: Listing, table: str) -> Reading:
        """Reads a table that names files."""
        columns, rows = read_metadata(listing.others[table])
        if FILE_NAME not in columns:
            raise UserError(
                f"has no column {FILE_NAME}{suggest(FILE_NAME, columns)}",
                where=str(listing.others[table]),
                fix=f"Call the column with the pictures' file names {FILE_NAME}; columns are separated by commas.",
            )
        column = find_caption_column([name for name in columns if name != FILE_NAME], self.column, where=table)
        captions: dict[str, list[str]] = {}
        missing: dict[str, LeftOut] = {}
        absences = _known_absences(listing)
        for where, cells in rows:
            id = _file_id(table, cells.get(FILE_NAME), where)
            if id in listing.images:
                captions.setdefault(id, []).extend(captions_in(cells.get(column), where=where))
            else:
                missing[id] = LeftOut(id, f"{_why_missing(absences, id)} ({where})")
        self._check_missing(list(missing.values()), len(captions), where=str(listing.others[table]))
        pictures = [(id, FileImage(path), tuple(captions[id])) for id, path in listing.images.items() if id in captions]
        notes = []
        if len(rows) > len(captions) + len(missing):
            several = f"{counted(len(rows), 'row')} for {counted(len(captions) + len(missing), 'picture')}"
            notes.append(f"{table} names pictures more than once, {several}; each of their captions is used.")
        return self._reading(f"table {table}", listing, pictures, list(missing.values()), notes, used={table})

    def _inside_parquet(self, listing: Listing, tables: Sequence[str]) -> Reading:
        """Reads parquet files that hold the pictures themselves."""
        files = {id: listing.others[id] for id in tables}
        image_column, column = self._parquet_columns(files)
        pictures: list[Picture] = []
        missing: list[LeftOut] = []
        for id, data, cell in read_pictures(files, image_column, column):
            if data is None:
                missing.append(LeftOut(id, f"column {image_column} holds no bytes"))
            else:
                pictures.append((id, BytesImage(data), captions_in(cell, where=id)))
        if not pictures and not missing:
            raise UserError("has no rows.", where=first_few(tables), fix="Download it again.")
        self._check_missing(missing, len(pictures), where=first_few(tables))
        return self._reading("pictures in parquet files", listing, pictures, missing, [], used=set(tables))

    def _parquet_columns(self, files: dict[str, Path]) -> tuple[str, str]:
        (first, path), *_ = files.items()
        images = image_columns(read_schema(path))
        if self.image_column is None and len(images) > 1:
            what = f"{first} has several columns of pictures: {', '.join(images)}."
            raise UserError(what, where="dataset.image_column", fix="Name one of them.")
        if self.image_column is not None and self.image_column not in images:
            what = f"{first} has no pictures in {self.image_column!r}{suggest(self.image_column, images)}"
            raise UserError(what, where="dataset.image_column", fix="Name a column of pictures.")
        image_column = self.image_column or images[0]
        names = [name for name in read_schema(path).names if name not in images]
        column = find_caption_column(names, self.column, where=first)
        for id, other in files.items():
            if not {image_column, column} <= set(read_schema(other).names):
                what = f"{id} lacks the columns {image_column} and {column} of {first}."
                raise UserError(what, where="dataset.file", fix="Name files of one kind.")
        return image_column, column

    def _check_missing(self, missing: Sequence[LeftOut], usable: int, *, where: str) -> None:
        if missing and (self.missing == "stop" or not usable):
            raise UserError(
                f"{counted(len(missing), 'picture')} of {len(missing) + usable:,} cannot be used. "
                f"{first_few([f'{row.id}: {row.reason}' for row in missing])}.",
                where=where,
                fix="File names are relative to the table. Put the pictures there, or set dataset.missing: leave_out.",
            )

    def _reading(
        self,
        layout: str,
        listing: Listing,
        pictures: Sequence[Picture],
        missing: list[LeftOut],
        notes: list[str],
        *,
        used: set[str],
    ) -> Reading:
        examples, without, said = settle(pictures, self.uncaptioned, stop=_no_captions)
        notes = [*listing.notes(), *notes, *said]
        if missing:
            notes.append(f"{counted(len(missing), 'picture')} left out ({missing[0].id}: {missing[0].reason}).")
        taken = {id for id, _, _ in pictures}
        unnamed = [LeftOut(id, "the table does not name it") for id in listing.images if id not in taken]
        if unnamed:
            some = first_few([row.id for row in unnamed])
            notes.append(f"{counted(len(unnamed), 'picture')} left out, the table does not name them ({some}).")
        known = {row.id for row in missing}
        others = [row for row in listing.rows(used) if row.id not in known]
        return Reading(layout, tuple(examples), (*without, *missing, *unnamed, *others), tuple(notes))


def find_tables(listing: Listing, file: str | None = None) -> list[str]:
    """Returns the ids of the tables that ``file`` names, or of those with the usual names."""
    if file is not None:
        return _named_tables(listing, file)
    named = [id for id in listing.others if id in STANDARD_NAMES]
    if named:
        return named
    for folder in ("", "data/"):
        shards = [id for id in listing.others if re.fullmatch(rf"{folder}[^/]*\.parquet", id)]
        splits = sorted({re.split(r"[-.]", id.removeprefix(folder), maxsplit=1)[0] for id in shards})
        if len(splits) > 1:
            what = f"there are parquet files of several splits: {', '.join(splits)}."
            raise UserError(what, where="dataset.file", fix=f"Name one, as in {folder}{splits[-1]}-*.parquet.")
        if shards:
            return shards
    raise _no_table(listing)


def _named_tables(listing: Listing, file: str) -> list[str]:
    pattern = id_below("", file)
    found = [id for id in listing.others if pattern and fnmatchcase(id, pattern)]
    if not found:
        known = [id for id in listing.others if split_suffix(id)[1] in SUFFIXES]
        what = f"{listing.name!r} has no {file!r}{suggest(file, known or ['no table'])}"
        raise UserError(what, where="dataset.file", fix="Name the table, relative to dataset.path.")
    wrong = [id for id in found if split_suffix(id)[1] not in SUFFIXES]
    if wrong:
        what = f"{first_few(wrong)}: a table ends in {', '.join(SUFFIXES)}."
        raise UserError(what, where="dataset.file", fix="Rename or convert it; .jsonl has one JSON object per line.")
    return found


def _no_table(listing: Listing) -> UserError:
    deeper = [id for id in listing.others if id.rpartition("/")[2] in STANDARD_NAMES]
    similar = [id for id in listing.others if re.match(r"meta[^/]*\.(json|nd|csv|tsv|parquet)", id, re.IGNORECASE)]
    what = f"{listing.name!r} has no table. Looked for {', '.join(STANDARD_NAMES)} and *.parquet."
    fix = "Set dataset.path to the folder that holds it, or dataset.file to its name."
    if deeper:
        what += f" There is {first_few(deeper)}."
        fix = "Set dataset.path to that folder: file names are relative to the table."
    elif similar:
        what += f" There is {first_few(similar)}."
        fix = "Rename it to metadata.jsonl (one JSON object per line), metadata.csv or metadata.parquet."
    return UserError(what, where="dataset.path", fix=fix)


def _file_id(table: str, name: object, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"has no {FILE_NAME}.", where=where, fix="Every row names its picture.")
    id = id_below(table.rpartition("/")[0], name)
    if id is None:
        raise UserError(
            f"the file name {name!r} leads out of the data set's folder.",
            where=where,
            fix="Use names relative to the table, and keep the pictures under dataset.path.",
        )
    return id


def _known_absences(listing: Listing) -> dict[str, str]:
    """Returns why a name may not be among the pictures, by its id, or by its id in lower case."""
    similar = {id.lower(): f"it is not there, but {id} is" for id in listing.images}
    return (
        similar | dict.fromkeys(listing.others, "it is no picture") | {row.id: row.reason for row in listing.left_out}
    )


def _why_missing(known: dict[str, str], id: str) -> str:
    if re.match(r"https?:", id):
        return "it is a web address; download it"
    return known.get(id) or known.get(id.lower()) or "it is not there"


def _no_captions(without: Sequence[str]) -> UserError:
    return UserError(
        f"{counted(len(without), 'picture')} without a caption: {first_few(without)}.",
        where="dataset.column",
        fix="Write captions, name another column, or set dataset.uncaptioned to leave_out or empty.",
    )

"""A data set of the Hugging Face Hub, through the package datasets, which the extra limner[hub] installs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.columns import captions_in, find_caption_column, suggest
from limner.data.example import Reading
from limner.data.text import counted, first_few
from limner.data.uncaptioned import Uncaptioned, settle

if TYPE_CHECKING:
    import datasets

SAFE_BUILDERS = ("imagefolder", "parquet", "json", "csv")
"""Readers of plain data. Others of the package run code that a data set brings along: `pandas` reads pickles."""

CACHED = "cache"
"""The reader of what was downloaded before, which the package takes where the Hub cannot be reached."""

MAX_PICTURE_BYTES = 500_000_000

_ZIP = "zip://"


@dataclass(frozen=True, eq=False)
class HubImage:
    """A picture in a row of a data set, still encoded."""

    rows: datasets.Dataset
    """With this one column, not decoded."""
    column: str
    row: int
    roots: tuple[Path, ...]
    """A row may name a file instead of holding bytes; it must lie in one of these folders."""

    def read(self) -> bytes:
        """Returns the encoded bytes; raises OSError if there are none or if they are not where they may be."""
        cell = self.rows[self.row][self.column] or {}
        if cell.get("bytes"):
            return bytes(cell["bytes"])
        name = cell.get("path")
        if not name:
            raise OSError(f"row {self.row} holds no picture")
        if not name.startswith(_ZIP):
            return self._allowed(name).read_bytes()
        member, _, archive = name.removeprefix(_ZIP).partition("::")
        try:
            with zipfile.ZipFile(self._allowed(archive)) as file:
                if file.getinfo(member).file_size > MAX_PICTURE_BYTES:
                    raise OSError(f"{member} is too large for a picture")
                return file.read(member)
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"{name}: {error}") from None

    def _allowed(self, name: str) -> Path:
        resolved = Path(name).resolve(strict=True)
        if not any(resolved.is_relative_to(root.resolve()) for root in self.roots):
            raise OSError(f"row {self.row} names {name}, a file outside of the data set")
        return resolved


class HubDataset(Config):
    """A data set of the Hugging Face Hub with a column of pictures and a column of captions."""

    kind: Literal["hub"] = "hub"
    id: str = Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$")
    """The data set, as owner/name."""
    subset: str | None = None
    """The subset (its configuration), where the data set has several."""
    split: str = "train"
    """The split."""
    revision: str | None = None
    """Branch, tag or commit. Unset: the newest."""
    image_column: str | None = None
    """The column that holds the pictures. Unset: the only one that does."""
    caption_column: str | None = None
    """The column that holds the captions. Unset: the one named text, caption, captions, prompt or description."""
    uncaptioned: Uncaptioned = "stop"
    """What to do with a picture whose caption is empty: stop, leave it out, or train on it with an empty caption."""

    def read(self) -> Reading:
        """Downloads the data set, unless it was before, and returns the pictures of the split."""
        if Path(self.id).exists():
            raise UserError(
                f"{self.id!r} is a folder here as well as a name on the Hub.",
                where="dataset.id",
                fix="For the folder use kind: auto with dataset.path; for the Hub start from another folder.",
            )
        return self.read_from(f"hf://datasets/{self.id}", roots=())

    def read_from(self, source: str, *, roots: Sequence[Path]) -> Reading:
        """Reads what ``source`` names to the package datasets; ``roots`` are folders of pictures beside its caches."""
        rows, notes = self._load(source)
        import datasets
        from huggingface_hub import constants

        pictures = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        image_column = self._image_column(pictures, rows.column_names)
        others = [name for name in rows.column_names if name not in pictures]
        caption_column = find_caption_column(
            others, self.caption_column, where=self.id, option="dataset.caption_column"
        )
        images = rows.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        folders = (Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE), *roots)
        examples, left_out, said = settle(
            (
                (id, HubImage(images, image_column, row, folders), captions_in(cell, where=f"{self.id} {id}"))
                for row, cell in enumerate(rows[caption_column])
                for id in [f"{self.split}#{row}"]
            ),
            self.uncaptioned,
            stop=self._no_captions,
        )
        if not examples:
            raise UserError(
                f"{self.id!r} has no rows in {self.split!r}.", where="dataset.split", fix="Name another split."
            )
        return Reading(f"Hub data set {self.id}, {self.split}", tuple(examples), tuple(left_out), (*notes, *said))

    def _load(self, source: str) -> tuple[datasets.Dataset, list[str]]:
        """Returns the rows of the split, and notes. The builder is looked at before anything is downloaded."""
        try:
            import datasets
        except ModuleNotFoundError:
            raise UserError(
                "kind: hub needs the package datasets, which is not installed.",
                where="dataset.kind",
                fix='Install it: pip install "limner[hub]".',
            ) from None
        try:
            builder = datasets.load_dataset_builder(source, name=self.subset, revision=self.revision)
            notes = self._check_builder(builder)
            builder.download_and_prepare()
            splits = list(builder.info.splits or ())
            if self.split.partition("[")[0] not in splits:
                raise UserError(
                    f"{self.id!r} has no split {self.split!r}{suggest(self.split, splits)}",
                    where="dataset.split",
                    fix="Name one of them.",
                )
            return builder.as_dataset(split=self.split), notes
        except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError, LookupError) as error:
            raise UserError(
                f"{self.id!r} cannot be loaded: {' '.join(str(error).split())[:400]}",
                where="dataset.id",
                fix="Look at its page on the Hub: does it exist, may you see it, which subsets and splits has it?",
            ) from None

    def _check_builder(self, builder: datasets.DatasetBuilder) -> list[str]:
        name = type(builder).__module__.rpartition(".")[2]
        if type(builder).__module__ != f"datasets.packaged_modules.{name}.{name}" or name not in (
            *SAFE_BUILDERS,
            CACHED,
        ):
            raise UserError(
                f"{self.id!r} is read by {name!r}, and only {', '.join(SAFE_BUILDERS)} are known to be safe.",
                where="dataset.id",
                fix="Download it, and turn it into pictures with a metadata.jsonl (kind: table).",
            )
        if name != CACHED:
            return []
        if self.revision is not None and not str(builder.hash).startswith(self.revision):
            raise UserError(
                f"the Hub cannot be reached, and the copy on this machine is {builder.hash}, not {self.revision!r}.",
                where="dataset.revision",
                fix="Try again with a connection, or name that commit.",
            )
        return [f"The Hub cannot be reached: the copy of {self.id} on this machine is used, commit {builder.hash}."]

    def _image_column(self, pictures: Sequence[str], columns: Sequence[str]) -> str:
        wanted = self.image_column
        if wanted is not None and wanted not in pictures:
            what = f"{self.id!r} has no pictures in {wanted!r}{suggest(wanted, pictures or columns)}"
        elif wanted is None and len(pictures) != 1:
            what = (
                f"{self.id!r} has {counted(len(pictures), 'column')} of pictures; its columns are {', '.join(columns)}."
            )
        else:
            return wanted or pictures[0]
        raise UserError(what, where="dataset.image_column", fix="Name the column that holds the pictures.")

    def _no_captions(self, without: Sequence[str]) -> UserError:
        return UserError(
            f"{counted(len(without), 'picture')} of {self.id!r} without a caption: {first_few(without)}.",
            where="dataset.caption_column",
            fix="Name another column, or set dataset.uncaptioned to leave_out or empty.",
        )

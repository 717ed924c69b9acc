"""CIFAR-10 in its three forms: the original Python batches, class folders, parquet files. Labels become prompts."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.example import BytesImage, Example, FileImage, ImageSource, LeftOut, Reading
from limner.data.listing import list_images, natural_key, open_folder
from limner.data.parquet import image_columns, read_pictures, read_schema
from limner.data.pickled import ByteArray, read_batch
from limner.data.prompts import article, check_template, fill
from limner.data.text import first_few

if TYPE_CHECKING:
    import pyarrow

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROW_BYTES = 3 * 32 * 32

Labelled = tuple[str, ImageSource, str]
"""A picture's id, its bytes and its label."""


@dataclass(frozen=True)
class Cifar10Image:
    """A row of an original batch: 1,024 bytes of red, then green, then blue, each line by line."""

    row: bytes

    def read(self) -> bytes:
        """Returns a PNG file, not compressed, so that its bytes are equal on every machine and with every zlib."""
        pixels = bytearray(ROW_BYTES)
        for channel in range(3):
            pixels[channel::3] = self.row[channel * 1024 : (channel + 1) * 1024]
        lines = b"".join(b"\0" + pixels[line * 96 : (line + 1) * 96] for line in range(32))  # filter 0: as it is
        size = len(lines)
        stored = (
            b"\x78\x01\x01" + struct.pack("<HH", size, size ^ 0xFFFF) + lines + struct.pack(">I", zlib.adler32(lines))
        )
        header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)  # 8 bits, RGB
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", stored) + _chunk(b"IEND", b"")


class Cifar10(Config):
    """CIFAR-10, 32 x 32 pixels; the caption of a picture is made from its label."""

    kind: Literal["cifar10"] = "cifar10"
    path: Path
    """The folder that holds cifar-10-batches-py (or its files), or train/airplane/... and test/airplane/..., or
    train-*.parquet and test-*.parquet."""
    split: Literal["train", "test"] = "train"
    """Which pictures."""
    templates: tuple[str, ...] = Field(default=("an image of {article} {label}",), min_length=1)
    """Captions, with {label} for the class and {article} for its a or an; with several, a visit draws one."""
    per_class: int | None = Field(default=None, ge=1)
    """Use only the first so many pictures of each class. Unset: all."""

    @field_validator("templates")
    @classmethod
    def _templates_name_the_label(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            check_template(template, allowed={"label", "article"}, required={"label"}, name="template")
        return templates

    def read(self) -> Reading:
        """Returns the pictures of the split; raises UserError for files that are not those of CIFAR-10."""
        form, pictures, left_out = self._find()
        examples, seen = [], Counter[str]()
        for id, image, label in pictures:
            seen[label] += 1
            if self.per_class is not None and seen[label] > self.per_class:
                left_out.append(LeftOut(id, f"beyond the first {self.per_class} of its class"))
            else:
                examples.append(Example(id, image, self._captions(label), group=label))
        if not examples:
            raise UserError(
                f"{str(self.path)!r} has no pictures.", where="dataset.path", fix="Download the data set again."
            )
        absent = [label for label in LABELS if label not in seen]
        notes = (f"No pictures of these classes: {', '.join(absent)}.",) if absent else ()
        return Reading(f"CIFAR-10 {self.split}, {form}", tuple(examples), tuple(left_out), notes)

    def _captions(self, label: str) -> tuple[str, ...]:
        words = {"label": label, "article": article(label)}
        return tuple(fill(template, words) for template in self.templates)

    def _find(self) -> tuple[str, Iterator[Labelled], list[LeftOut]]:
        """Returns the form that lies in path, its pictures and the files that are not used."""
        root = open_folder(self.path, where="dataset.path")
        inner = root / "cifar-10-batches-py"
        batches = open_folder(inner, where="dataset.path") if inner.is_dir() else root
        if (batches / "batches.meta").is_file():
            return "Python batches", _from_batches(batches, self.split), []
        if (root / self.split).is_dir():
            pictures, left_out = _from_class_folders(root / self.split, self.split)
            return "class folders", pictures, left_out
        shards = [
            path
            for folder in (root, root / "data", root / "plain_text")
            for path in sorted(folder.glob(f"{self.split}*.parquet"), key=lambda path: natural_key(path.name))
            if re.fullmatch(rf"{self.split}(-.*)?\.parquet", path.name)
        ]
        if shards:
            files = {path.relative_to(root).as_posix(): path for path in shards}
            return "parquet files", _from_parquet(files), []
        archives = [path.name for path in sorted(root.glob("cifar-10*.tar*"))]
        raise UserError(
            f"{str(self.path)!r} does not hold CIFAR-10's {self.split} pictures. Looked for "
            f"cifar-10-batches-py/batches.meta, {self.split}/<class>/ and {self.split}-*.parquet.",
            where="dataset.path",
            fix=f"Unpack {archives[0]} there."
            if archives
            else "Set dataset.path to the folder that holds one of them.",
        )


def _from_batches(folder: Path, split: str) -> Iterator[Labelled]:
    names = read_batch(folder / "batches.meta").get("label_names")
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(LABELS):
        raise UserError(
            "does not name the ten classes of CIFAR-10.", where=str(folder / "batches.meta"), fix="Download it again."
        )
    files = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{', '.join(absent)} not there.", where=str(folder), fix="Download the data set again.")
    for file in files:
        batch = read_batch(folder / file)
        array, labels = batch.get("data"), batch.get("labels")
        if (
            not isinstance(array, ByteArray)
            or not isinstance(labels, list)
            or array.shape != (len(labels), ROW_BYTES)
            or any(type(label) is not int or not 0 <= label < len(names) for label in labels)
        ):
            raise UserError(
                f"does not hold rows of {ROW_BYTES:,} bytes with a label for each.",
                where=str(folder / file),
                fix="Download the data set again.",
            )
        for row, label in enumerate(labels):
            yield f"{file}#{row}", Cifar10Image(array.data[row * ROW_BYTES : (row + 1) * ROW_BYTES]), names[label]


def _from_class_folders(folder: Path, split: str) -> tuple[Iterator[Labelled], list[LeftOut]]:
    listing = list_images(folder)
    wrong = sorted({first for id in listing.images if (first := id.partition("/")[0]) not in LABELS})
    if wrong:
        raise UserError(
            f"{folder} has {first_few(wrong)}, which is no class of CIFAR-10. The classes are {', '.join(LABELS)}.",
            where="dataset.path",
            fix="Name the folders after the classes; kind: folder reads other pictures.",
        )
    pictures = ((f"{split}/{id}", FileImage(path), id.partition("/")[0]) for id, path in listing.images.items())
    return pictures, [LeftOut(f"{split}/{row.id}", row.reason) for row in listing.rows()]


def _from_parquet(files: dict[str, Path]) -> Iterator[Labelled]:
    first, path = next(iter(files.items()))
    schema = read_schema(path)
    images = image_columns(schema)
    if len(images) != 1 or "label" not in schema.names:
        raise UserError(
            f"{first} has the columns {', '.join(schema.names)}; CIFAR-10 has img and label.",
            where="dataset.kind",
            fix="Use kind: table for parquet files with captions.",
        )
    names = _label_names(schema) or LABELS
    if sorted(names) != sorted(LABELS):
        raise UserError(
            f"names the classes {first_few(names)}, which are not those of CIFAR-10.",
            where=str(path),
            fix="Use kind: table for parquet files with captions.",
        )
    for id, data, label in read_pictures(files, images[0], "label"):
        if data is None or type(label) is not int or not 0 <= label < len(names):
            raise UserError(
                f"has no picture, or the label {label!r} that is not 0 to {len(names) - 1}.",
                where=id,
                fix="Download it again.",
            )
        yield id, BytesImage(data), names[label]


def holds_cifar10(path: Path) -> bool:
    """Returns whether a parquet file is one of CIFAR-10, by its columns and the class names noted in it."""
    schema = read_schema(path)
    return len(image_columns(schema)) == 1 and sorted(_label_names(schema)) == sorted(LABELS)


def _label_names(schema: pyarrow.Schema) -> list[str]:
    """Returns the class of each number, as the Hub notes it in a parquet file; none if it does not."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

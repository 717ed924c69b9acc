"""Parquet files, through pyarrow, which the extra limner[parquet] installs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError

if TYPE_CHECKING:
    import pyarrow

MAX_EMBEDDED_BYTES = 8_000_000_000
"""Pictures inside parquet files are held in memory; larger data sets belong into files of their own."""


def read_schema(path: Path) -> pyarrow.Schema:
    """Returns the columns of a parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(
            "is a parquet file, and the package pyarrow is not installed.",
            where=str(path),
            fix='Install it: pip install "limner[parquet]".',
        ) from None
    try:
        return parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(path, error) from None


def read_rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a parquet file as dicts of these columns."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken(path, error) from None


def image_columns(schema: pyarrow.Schema) -> list[str]:
    """Returns the columns that hold pictures as the Hub stores them: a struct with a binary field ``bytes``."""
    from pyarrow import types

    found = []
    for field in schema:
        if types.is_struct(field.type):
            position = field.type.get_field_index("bytes")
            kind = field.type.field(position).type if position >= 0 else None
            if kind is not None and (types.is_binary(kind) or types.is_large_binary(kind)):
                found.append(field.name)
    return found


def read_pictures(
    files: Mapping[str, Path], image_column: str, column: str
) -> Iterator[tuple[str, bytes | None, object]]:
    """Yields the id (file#row, from 0), the picture's encoded bytes (None without one) and the cell of ``column``."""
    total = 0
    for name, path in files.items():
        for row, cells in enumerate(read_rows(path, [image_column, column])):
            data = (cells[image_column] or {}).get("bytes") or None
            total += len(data or b"")
            if total > MAX_EMBEDDED_BYTES:
                raise UserError(
                    f"the pictures in the parquet files have more than {MAX_EMBEDDED_BYTES / 1e9:.0f} GB, "
                    "and they are read into memory.",
                    where=str(path),
                    fix="Name fewer parquet files, or write the pictures into files beside a metadata.jsonl.",
                )
            yield f"{name}#{row}", data, cells[column]


def _broken(path: Path, error: BaseException) -> UserError:
    words = " ".join(str(error).split())[:200]
    return UserError(f"is no parquet file that can be read: {words}.", where=str(path), fix="Download it again.")

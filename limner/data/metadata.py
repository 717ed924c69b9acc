"""Tables beside pictures: metadata.jsonl, metadata.csv and metadata.parquet, row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.data.parquet import read_rows, read_schema
from limner.data.text import read_csv, read_lines

SUFFIXES = (".jsonl", ".csv", ".parquet")

Row = tuple[str, dict[str, Any]]
"""Where it stands (file:line, or file#row in parquet), and its cells by column."""


def read_metadata(path: Path) -> tuple[list[str], list[Row]]:
    """Returns the columns of a table and its rows; ``path`` ends in one of SUFFIXES."""
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    columns, rows = readers[path.suffix.lower()](path)
    if len(set(columns)) < len(columns):
        raise UserError(f"has a column twice: {', '.join(columns)}.", where=str(path), fix="Rename one of them.")
    if not rows:
        raise UserError("has no rows.", where=str(path), fix="Each row names a picture and its caption.")
    return columns, rows


def _read_jsonl(path: Path) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(
                f"is not valid JSON: {reason}.", where=where, fix="Write one JSON object per line."
            ) from None
        if not isinstance(cells, dict):
            raise UserError(
                f"holds a {type(cells).__name__}, no JSON object.",
                where=where,
                fix='Write one object per line: {"file_name": "a.jpg", "text": "a dog"}.',
            )
        rows.append((where, cells))
    return list(dict.fromkeys(name for _, cells in rows for name in cells)), rows


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    header, rows = read_csv(path)
    return header, [(f"{path}:{line}", dict(zip(header, fields, strict=True))) for line, fields in rows]


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    columns: Sequence[str] = read_schema(path).names
    return list(columns), [(f"{path}#{row}", cells) for row, cells in enumerate(read_rows(path, list(columns)))]

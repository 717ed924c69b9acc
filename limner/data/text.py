"""Text files that people and other programs wrote: read whole, strictly, with the place of every fault."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from limner.core.errors import UserError

MAX_TEXT_BYTES = 64_000_000
"""Flickr30k's captions take 14 MB; a text file of more than this is no list of captions."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, *, limit: int = MAX_TEXT_BYTES) -> str:
    r"""Returns the text of a file with ``\n`` at its line ends. UTF-8, or what its byte order mark says."""
    if not path.is_file():
        raise UserError("is no file.", where=str(path), fix="Name a text file.")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}.", where=str(path), fix="Allow yourself to read it."
        ) from None
    if len(data) > limit:
        raise UserError(
            f"is larger than {limit // 1_000_000} MB, too much for captions.", where=str(path), fix="Name another file."
        )
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"is not {encoding.upper().removesuffix('-SIG')} text: byte {error.start} is 0x{data[error.start]:02x}.",
            where=f"{path}:{line}",
            fix="Save it as UTF-8.",
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError("has a NUL byte, so it is no text.", where=f"{path}:{line}", fix="Save it as UTF-8 text.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file; blank ones at its end are no lines."""
    lines = read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header of a comma-separated file (RFC 4180) and its rows, each with the line on which it begins.

    Every row has as many fields as the header; blank lines are no rows.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            if fields:
                rows.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"the row that begins here is broken: {error}.",
            where=f"{path}:{line}",
            fix='Look for a quotation mark that is not closed; one inside a quoted field is written "".',
        ) from None
    if not rows:
        raise UserError("is empty.", where=str(path), fix="It needs a header and rows.")
    (_, header), *body = rows
    for line, fields in body:
        if len(fields) != len(header):
            raise UserError(
                f"has {len(fields)} fields, and the header has {len(header)}.",
                where=f"{path}:{line}",
                fix='A field that holds a comma stands in quotation marks: a.jpg,"a dog, running".',
            )
    return [name.strip() for name in header], body


def one_line(text: str) -> str:
    """Returns the text with every run of blanks, tabs and line ends made one blank."""
    return " ".join(text.split())


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Returns 'a.jpg, b.jpg, c.jpg and 9 more'; what cannot be printed is escaped."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:count])
    rest = len(names) - count
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def counted(count: int, noun: str) -> str:
    """Returns '1 picture' or '2,000 pictures'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

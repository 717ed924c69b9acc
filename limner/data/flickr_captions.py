"""The three forms in which the captions of Flickr8k and Flickr30k go round, told apart by their first line."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from limner.core.errors import UserError
from limner.data.text import counted, one_line, read_csv, read_lines

LAYOUTS = {"csv": "Kaggle layout", "results": "Kaggle layout", "token": "original layout"}


@dataclass(frozen=True)
class Captions:
    """What a caption file holds."""

    layout: str
    """For people: one of LAYOUTS."""
    by_name: dict[str, tuple[str, ...]]
    """The captions of each file name, in the order of the file."""
    notes: tuple[str, ...]
    """What was mended."""


_TOKEN_ROW = re.compile(r"([^\t]+)#\d+\t(.*)")
_NO_SECOND_BAR = re.compile(r"\s*\d+\s+(\S.*)")


def form_of(first_line: str) -> str:
    """Returns 'csv' (image,caption), 'results' (image_name| comment_number| comment), 'token' (name#n, tab) or ''."""
    columns = [name.strip().lower() for name in re.split(r"[,|]", first_line)]
    if columns == ["image", "caption"] and "," in first_line:
        return "csv"
    if columns == ["image_name", "comment_number", "comment"] and "|" in first_line:
        return "results"
    return "token" if _TOKEN_ROW.fullmatch(first_line) else ""


def read_captions(path: Path) -> Captions:
    """Returns the captions of a file in one of the three forms; raises UserError for a row in none of them."""
    lines = read_lines(path)
    form = form_of(lines[0]) if lines else ""
    if form == "csv":
        pairs = [(f"{path}:{line}", name, caption) for line, (name, caption) in read_csv(path)[1]]
        notes: list[str] = []
    elif form == "results":
        pairs, notes = _read_results(path, lines)
    elif form == "token":
        pairs, notes = _read_token(path, lines), []
    else:
        raise UserError(
            f"begins with {lines[0][:60]!r}, which is no caption file of Flickr8k or Flickr30k."
            if lines
            else "is empty.",
            where=str(path),
            fix="It begins with image,caption, with image_name| comment_number| comment, or with a.jpg#0 and a tab.",
        )
    by_name: dict[str, list[str]] = {}
    for where, name, caption in pairs:
        name, caption = unicodedata.normalize("NFC", name.strip()), one_line(caption)
        if not name or not caption:
            missing = "caption" if name else "file name"
            raise UserError(f"has no {missing}.", where=where, fix="Mend the row, or take it out.")
        by_name.setdefault(name, []).append(caption)
    if not by_name:
        raise UserError("has a header and no rows.", where=str(path), fix="Download it again.")
    return Captions(LAYOUTS[form], {name: tuple(several) for name, several in by_name.items()}, tuple(notes))


def _read_token(path: Path, lines: list[str]) -> list[tuple[str, str, str]]:
    rows = []
    for number, line in enumerate(lines, start=1):
        match = _TOKEN_ROW.fullmatch(line)
        if match is None:
            raise UserError(
                f"is not name#number, a tab, a caption: {line[:80]!r}.", where=f"{path}:{number}", fix="Mend the row."
            )
        rows.append((f"{path}:{number}", match[1], match[2]))
    return rows


def _read_results(path: Path, lines: list[str]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Flickr30k's table has blanks around its bars, quotation marks as they are, and one row with a bar less."""
    rows, mended = [], []
    for number, line in enumerate(lines[1:], start=2):
        name, *rest = line.split("|", maxsplit=2)
        where = f"{path}:{number}"
        if len(rest) == 2 and rest[0].strip().isdigit():
            rows.append((where, name, rest[1]))
        elif len(rest) == 1 and (match := _NO_SECOND_BAR.fullmatch(rest[0])):
            rows.append((where, name, match[1]))
            mended.append(number)
        else:
            raise UserError(
                f"is not name| number| caption: {line[:80]!r}.", where=where, fix="Mend the row, or take it out."
            )
    if not mended:
        return rows, []
    numbers = ", ".join(map(str, mended[:5]))
    return rows, [f"{path.name}: {counted(len(mended), 'row')} without a second | read as meant (line {numbers})."]

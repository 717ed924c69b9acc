"""Columns of tables: which one holds the captions, and what a cell of it says."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from limner.core.errors import UserError
from limner.data.text import one_line

CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description")
"""Names under which the captions are found without being told."""


def find_caption_column(
    columns: Sequence[str], wanted: str | None, *, where: str, option: str = "dataset.column"
) -> str:
    """Returns the column that holds the captions; ``where`` names the table, ``option`` the config key."""
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise UserError(
            f"{where} has no column {wanted!r}{suggest(wanted, columns)}", where=option, fix=f"Set {option}."
        )
    found = [name for name in CAPTION_COLUMNS if name in columns]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"{where} has several columns that may be the captions: {', '.join(found)}."
    else:
        usual = f"{', '.join(CAPTION_COLUMNS[:-1])} or {CAPTION_COLUMNS[-1]}"
        what = f"{where} has no column {usual}. It has: {', '.join(columns)}."
    raise UserError(what, where=option, fix=f"Set {option} to the one that holds the captions.")


def suggest(name: str, columns: Sequence[str]) -> str:
    """Returns the end of a sentence that names a similar column, or all of them."""
    close = difflib.get_close_matches(name.lower(), [column.lower() for column in columns], n=1)
    similar = [column for column in columns if column.lower() in close]
    return f". Did you mean {similar[0]!r}?" if similar else f". It has: {', '.join(columns)}."


def captions_in(cell: object, *, where: str) -> tuple[str, ...]:
    """Returns the captions of a cell, a text or a list of texts; none for an empty one."""
    texts = cell if isinstance(cell, list) else [] if cell is None else [cell]
    captions = []
    for text in texts:
        if not isinstance(text, str):
            raise UserError(
                f"the caption is no text but {type(text).__name__}: {str(text)[:60]}.",
                where=where,
                fix="Name the column that holds the captions.",
            )
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise UserError(
                f"the caption has characters that are no text: {ascii(text)[:80]}.", where=where, fix="Write it again."
            )
        captions.append(one_line(text))
    return tuple(caption for caption in captions if caption)

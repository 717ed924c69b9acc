"""Text between two markers of a page: what a command writes and writes anew, while a person writes the rest."""

from __future__ import annotations

from pathlib import Path

from limner.core.errors import UserError
from limner.core.rundir import write_atomic


def around(page: Path, begin: str, end: str) -> tuple[str, str]:
    """Returns what stands before and after the markers; raises UserError unless each is there once, in this order."""
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "is not there.", where=str(page), fix=f"Write the page, with {begin} and {end} in it."
        ) from None
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(
            f"does not hold {begin} and then {end}, each once.",
            where=str(page),
            fix="Put them back, each on a line of its own, or choose another page.",
        )
    return text[: text.index(begin)], text[text.index(end) + len(end) :]


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replaces what stands between the markers; ``text`` ends its own last line."""
    before, after = around(page, begin, end)
    write_atomic(page, f"{before}{begin}\n{text}{end}{after}".encode())

"""Text of a user's inside Markdown: as it is, whatever it is, and never a part of the page's structure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_SIGNS = {sign: f"&#{ord(sign)};" for sign in "\\`*_[]<>#|~$&"}
"""What has a meaning inside a line of Markdown or HTML. A numeric reference is text and never structure (CommonMark,
section 2.5), a backslash before a sign is not in every reader's tables."""
_BREAKING = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control signs, halves of signs, and separators of lines."""


def plain(text: str) -> str:
    """Returns a text as one line of Markdown that shows it; blanks are one blank, signs that cannot be seen are too."""
    seen = "".join(" " if unicodedata.category(sign) in _BREAKING else sign for sign in text)
    return "".join(_SIGNS.get(sign, sign) for sign in " ".join(seen.split()))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

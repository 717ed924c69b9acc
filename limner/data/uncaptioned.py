"""What becomes of pictures without a caption: said by the user, never decided silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from limner.core.errors import UserError
from limner.data.example import Example, ImageSource, LeftOut
from limner.data.text import counted, first_few

Uncaptioned = Literal["stop", "leave_out", "empty"]

Picture = tuple[str, ImageSource, tuple[str, ...]]
"""Its id, its bytes and its captions, of which there may be none."""


def settle(
    pictures: Iterable[Picture], uncaptioned: Uncaptioned, *, stop: Callable[[Sequence[str]], UserError]
) -> tuple[list[Example], list[LeftOut], list[str]]:
    """Returns examples, rows for what is left out, and notes.

    ``stop`` makes the error from the ids without a caption; it is raised as well if nothing would be left.
    """
    examples: list[Example] = []
    without: list[str] = []
    for id, image, captions in pictures:
        if not captions:
            without.append(id)
        if captions or uncaptioned == "empty":
            examples.append(Example(id, image, captions or ("",)))
    if not without:
        return examples, [], []
    if uncaptioned == "stop" or not examples:
        raise stop(without)
    done = "left out" if uncaptioned == "leave_out" else "used with an empty caption"
    note = f"{counted(len(without), 'picture')} without a caption: {done} ({first_few(without)})."
    return examples, [LeftOut(id, "it has no caption") for id in without] if uncaptioned == "leave_out" else [], [note]

"""Every word that a caption of the picture world may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

from limner.builtin.world import captions
from limner.builtin.world.colours import COLOURS
from limner.builtin.world.scenes import STYLES
from limner.builtin.world.things import KINDS

_OTHERS = "a an and to from between two three"


def vocabulary() -> tuple[str, ...]:
    """Returns the words in alphabetical order; those of the held-out style are not among them."""
    return tuple(sorted({word for text in _texts() for word in re.findall(r"[a-z]+", text)}))


def _texts() -> Iterator[str]:
    yield _OTHERS
    yield from KINDS
    yield from (captions.PLURALS.get(kind, f"{kind}s") for kind in KINDS)
    yield from COLOURS
    for words in (
        captions.SIZE_WORDS,
        captions.BACKGROUND_WORDS,
        captions.PLACE_WORDS,
        captions.BEFORE,
        captions.AFTER,
    ):
        yield from (text for texts in words.values() for text in texts)
    for words in (captions.STYLE_PREFIXES, captions.STYLE_SUFFIXES):
        yield from (text for style in STYLES for text in words[style])
    yield from (text for texts in captions.STANDING.values() for text in texts)
    yield "left to right"

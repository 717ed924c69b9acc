"""What a tokenizer makes of a word, and whether the word is a common one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

COMMON_BELOW = 40_000
"""A whole word with a lower number in CLIP's vocabulary counts as common.

The vocabulary was learned by merging the most frequent pair again and again, and its numbers are in this order: ``dog``
is 1929, ``zebra`` 22548, ``kimono`` about 40000, ``sks`` 48136 of 49408. Rare words follow each other above; some of
them mean something too, so the number is always told."""
_WHOLE_VOCABULARY = 49_408
_THE = 518
"""The number of ``the`` in CLIP's vocabulary, by which it is recognised."""


@dataclass(frozen=True)
class Word:
    """A word as the text encoder reads it."""

    pieces: tuple[tuple[str, int], ...]
    """Each with its number."""
    why_common: str
    """By what the word counts as a common one; "" where it does not."""

    def told(self) -> str:
        """Returns the pieces and their numbers for people: 'zw 2394, x 343'."""
        return ", ".join(f"{piece} {number}" for piece, number in self.pieces)


def look_up(word: str, tokenizer: CLIPTokenizer) -> Word:
    """Returns what the tokenizer makes of ``word``.

    In CLIP's own vocabulary a low number means a common word. A smaller one (the built-in model's) has just the words
    that its model learned, so each whole word counts; words that were added, as textual inversion does, never count.
    """
    ids = tokenizer(word, add_special_tokens=False, truncation=False, verbose=False).input_ids
    texts = tokenizer.convert_ids_to_tokens(ids)
    pieces = tuple((text.removesuffix("</w>"), number) for text, number in zip(texts, ids, strict=True))
    return Word(pieces, _why_common(word, pieces, tokenizer))


def _why_common(word: str, pieces: tuple[tuple[str, int], ...], tokenizer: CLIPTokenizer) -> str:
    if len(pieces) != 1 or word.strip() in tokenizer.added_tokens_encoder:
        return ""
    number = pieces[0][1]
    if len(tokenizer) >= _WHOLE_VOCABULARY and tokenizer.convert_tokens_to_ids("the</w>") == _THE:
        in_order = f"number {number} of {_WHOLE_VOCABULARY} in CLIP's vocabulary, which has frequent words first"
        return in_order if number < COMMON_BELOW else ""
    return f"number {number} of the {len(tokenizer)} pieces that this small vocabulary was made of"

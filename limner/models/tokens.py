"""How many tokens a prompt has, as the text encoder will read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.models.words import Word, look_up

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of captions as the model's text encoder will read them."""

    tokenizer: CLIPTokenizer
    limit: int
    """Tokens that the text encoder reads, the two special ones included."""
    size_multiple: int
    """Both sides of a picture must be multiples of this many pixels."""

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Returns the tokens of each prompt, the two special ones included, before any cut."""
        if not prompts:
            return []
        texts = spell_out(prompts, self.tokenizer)
        return [len(ids) for ids in self.tokenizer(texts, truncation=False, padding=False, verbose=False).input_ids]

    def look_up(self, word: str) -> Word:
        """Returns what the tokenizer makes of a word."""
        return look_up(word, self.tokenizer)


def spell_out(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> list[str]:
    """Returns the prompts with each placeholder of several vectors written out, "<cat>" as "<cat> <cat>_1 <cat>_2".

    This is diffusers' convention for textual inversion; its pipelines do the same before they read a prompt. A prompt
    where they are written out already stays as it is.
    """
    added = tokenizer.added_tokens_encoder
    texts = list(prompts)
    for token in added:
        rest: list[str] = []
        while f"{token}_{len(rest) + 1}" in added:
            rest.append(f"{token}_{len(rest) + 1}")
        if rest:
            whole = " ".join([token, *rest])
            texts = [_replace(text, token, whole, tokenizer) for text in texts]
    return texts


def _replace(text: str, token: str, whole: str, tokenizer: CLIPTokenizer) -> str:
    if whole in text or token not in tokenizer.tokenize(text):
        return text
    return text.replace(token, whole)

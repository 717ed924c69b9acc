"""Captions made from words: templates with ``{names}``, and the English article."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

_PLACE = re.compile(r"\{([^{}]*)\}")


def check_template(template: str, *, allowed: Set[str], required: Set[str], name: str) -> None:
    """Raises ValueError, for config validators, if a template has unknown places or lacks a required one."""
    if re.search(r"[{}]", _PLACE.sub("", template)):
        raise ValueError(f"{name} {template!r} has a curly bracket without its partner.")
    places = set(_PLACE.findall(template))
    known = ", ".join(f"{{{word}}}" for word in sorted(allowed))
    for place in sorted(places - allowed):
        raise ValueError(f"{name} {template!r} has {{{place}}}; it can have {known}.")
    for place in sorted(required - places):
        raise ValueError(f"{name} {template!r} lacks {{{place}}}, so every picture would get the same caption.")


def fill(template: str, words: Mapping[str, str]) -> str:
    """Returns the template with every ``{name}`` replaced by its word."""
    return _PLACE.sub(lambda place: words[place[1]], template)


def has_word(text: str, word: str) -> bool:
    """Returns whether a word, or several, stand in a text and are no part of a longer word; capitals do not matter."""
    return _whole(word).search(text) is not None


def without_word(text: str, word: str) -> str:
    """Returns the text with every place of the word left out, and no commas or spaces left where it stood."""
    parts = (" ".join(part.split()) for part in _whole(word).sub(" ", text).split(","))
    return ", ".join(part for part in parts if part)


def _whole(word: str) -> re.Pattern[str]:
    word = word.strip()
    left = r"(?<!\w)" if re.match(r"\w", word) else ""
    right = r"(?!\w)" if re.search(r"\w$", word) else ""
    return re.compile(left + re.escape(word) + right, re.IGNORECASE)


def article(noun: str) -> str:
    """Returns 'an' before a vowel letter, else 'a'."""
    return "an" if noun[:1].lower() in tuple("aeiou") else "a"

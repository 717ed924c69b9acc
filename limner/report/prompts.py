"""What the compared models are asked to draw: the recipe's prompts, captions, and prompts about something else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from limner.data.several import subjects

if TYPE_CHECKING:
    from limner.config import RunConfig
    from limner.data.caption_tools import CaptionTools
    from limner.data.ledger import Ledger, Prepared

Group = Literal["recipe", "held out", "learned from", "class", "unrelated"]
GROUPS: dict[Group, str] = {
    "recipe": "What the recipe asks for",
    "held out": "Captions of pictures that were held out",
    "learned from": "Captions of pictures that it learned from",
    "class": "The class of the subject, without its word",
    "unrelated": "Prompts about something else",
}
"""What each group is called on the page, in the order in which they are drawn."""
MOST_CAPTIONS = 4
"""Captions of each part of the pictures."""


@dataclass(frozen=True)
class Asked:
    """One prompt; the pictures of prompt k have seeds of their own, from ``samples.seed`` + k times the count."""

    prompt: str
    group: Group


def asked(
    config: RunConfig, ledger: Ledger, tools: CaptionTools, unrelated: Sequence[str], extra: Sequence[str] = ()
) -> tuple[Asked, ...]:
    """Returns the prompts, each once, in the first group that has it: the recipe's are first, so that their noise is
    that of the samples. ``extra`` are the user's own, for this comparison."""
    learned = [picture for picture in ledger.prepared if picture.example.role == "instance"]
    classes = [dataset.class_caption for _, dataset in subjects(config.dataset)]
    words = _words([tools.fixed(picture.example) for picture in learned])
    others = [prompt for prompt in unrelated if not words & _words([prompt])] or list(unrelated)
    prompts: dict[Group, Iterable[str]] = {
        "recipe": (*config.samples.prompts, *extra),
        "held out": _captions(ledger.held_out, tools),
        "learned from": _captions(learned, tools),
        "class": classes,
        "unrelated": others[:MOST_CAPTIONS],
    }
    found: dict[str, Group] = {}
    for group in GROUPS:
        for prompt in prompts[group]:
            found.setdefault(prompt, group)
    return tuple(Asked(prompt, group) for prompt, group in found.items())


def _captions(pictures: Sequence[Prepared], tools: CaptionTools) -> list[str]:
    """Returns some captions that differ, evenly spread over the pictures by id."""
    texts = list(dict.fromkeys(tools.fixed(p.example) for p in sorted(pictures, key=lambda p: p.example.id)))
    count = min(MOST_CAPTIONS, len(texts))
    return [texts[number * len(texts) // count] for number in range(count)]


def _words(texts: Iterable[str]) -> set[str]:
    """Returns the longer words of texts: those that may name what a picture shows."""
    return {word for text in texts for word in text.lower().replace(",", " ").split() if len(word) > 3}

"""What the compared models are asked to draw: the recipe's prompts, captions, and prompts about something else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from limner.core.rng import stream
from limner.data.prompts import has_word, without_word
from limner.data.several import subjects

if TYPE_CHECKING:
    from limner.builtin.world import Scene
    from limner.config import RunConfig
    from limner.data.caption_tools import CaptionTools
    from limner.data.ledger import Ledger, Prepared
    from limner.models.sd1 import SD1Model

Group = Literal["recipe", "held out", "learned from", "without", "unrelated"]
GROUPS: dict[Group, str] = {
    "recipe": "What the recipe asks for",
    "held out": "Captions of pictures that were held out",
    "learned from": "Captions of pictures that it learned from",
    "without": "The same without the word that calls it",
    "unrelated": "Prompts about something else",
}
"""What each group is called on the page, in the order in which they are drawn."""
SUBJECT: tuple[Group, ...] = ("recipe", "held out", "learned from")
"""Those that ask for what was to be learned."""
MOST_CAPTIONS = 6
"""Captions of each part of the pictures."""
SCENES, SCENES_SEED = 8, 90
"""Scenes of the built-in world that its model is asked for, of those that it was never trained on."""


@dataclass(frozen=True)
class Asked:
    """One prompt; the pictures of prompt k have seeds of their own, from ``samples.seed`` + k times the count."""

    prompt: str
    group: Group
    scene: Scene | None = None
    """What a picture of the built-in world must show."""


def about_something_else(model: SD1Model) -> tuple[Asked, ...]:
    """Returns fixed prompts that fit the model's words; the built-in world's with the scenes that they tell."""
    from limner.builtin.world import SIDE, caption, scene_at
    from limner.evaluation.hidden_states import WORLD_NAME, fitting_prompts

    about, prompts = fitting_prompts(model.tokenizer)
    if about != WORLD_NAME or model.default_size != SIDE:
        return tuple(Asked(prompt, "unrelated") for prompt in prompts)
    scenes = [scene_at(SCENES_SEED, place, split="test") for place in range(SCENES)]
    return tuple(
        Asked(caption(scene, stream(SCENES_SEED, place, "asked"), complete=True), "unrelated", scene)
        for place, scene in enumerate(scenes)
    )


def asked(
    config: RunConfig, ledger: Ledger, tools: CaptionTools, others: Sequence[Asked], extra: Sequence[str] = ()
) -> tuple[Asked, ...]:
    """Returns the prompts, each once, in the first group that has it: the recipe's are first, so that their noise is
    that of the samples. ``others`` are about something else, ``extra`` the user's own, for this comparison.

    A picture of what calls the subject is asked for without its word too, to see whether it comes uncalled: the class
    of a DreamBooth subject, and captions without the trigger word.
    """
    learned = [picture for picture in ledger.prepared if picture.example.role == "instance"]
    captions = _captions(learned, tools)
    classes = [dataset.class_caption for _, dataset in subjects(config.dataset)]
    words = _words([tools.fixed(picture.example) for picture in learned])
    foreign = [one for one in others if one.scene is not None or not words & _words([one.prompt])] or list(others)
    most = len(foreign) if any(one.scene for one in foreign) else MOST_CAPTIONS
    prompts: dict[Group, Iterable[str]] = {
        "recipe": (*config.samples.prompts, *extra),
        "held out": _captions(ledger.held_out, tools),
        "learned from": captions,
        "without": [*classes, *_uncalled(captions, config.trigger_word)],
    }
    given = [Asked(prompt, group) for group, texts in prompts.items() for prompt in texts]
    found: dict[str, Asked] = {}
    for one in [*given, *foreign[:most]]:
        found.setdefault(one.prompt, one)
    return tuple(found.values())


def _uncalled(captions: Sequence[str], word: str | None) -> list[str]:
    """Returns the captions that hold the word, without it."""
    if word is None:
        return []
    texts = [without_word(caption, word) for caption in captions if has_word(caption, word)]
    return [text for text in dict.fromkeys(texts) if text]


def _captions(pictures: Sequence[Prepared], tools: CaptionTools) -> list[str]:
    """Returns some captions that differ, evenly spread over the pictures by id."""
    texts = list(dict.fromkeys(tools.fixed(p.example) for p in sorted(pictures, key=lambda p: p.example.id)))
    count = min(MOST_CAPTIONS, len(texts))
    return [texts[number * len(texts) // count] for number in range(count)]


def _words(texts: Iterable[str]) -> set[str]:
    """Returns the longer words of texts: those that may name what a picture shows."""
    return {word for text in texts for word in text.lower().replace(",", " ").split() if len(word) > 3}

"""Captions from a grammar: many wordings of one scene, all of them true."""

from __future__ import annotations

import random
from itertools import groupby

from limner.builtin.world.facts import alike, place, sides
from limner.builtin.world.scenes import Arrangement, Scene, Thing

PLURALS = {"fish": "fish", "butterfly": "butterflies"}
SIZE_WORDS = {"small": ("small", "little"), "medium": ("",), "large": ("large", "big")}
BACKGROUND_WORDS = {
    "plain": ("on a plain background", "on plain paper", "before a plain wall"),
    "stripes": ("on a striped background", "on stripes", "before a striped wall"),
    "dots": ("on a dotted background", "on polka dots", "before a dotted wall"),
    "sky": ("in the sky", "in a cloudy sky", "among the clouds"),
    "meadow": ("on a meadow", "in the grass", "in a grassy field"),
    "night": ("at night", "on a starry night", "under the moon and stars"),
    "beach": ("on the beach", "by the sea", "at the seaside"),
    "snow": ("in the snow", "on a snowy day", "in a snowy field"),
}
STYLE_PREFIXES = {
    "flat": ("a flat picture of", "a flat illustration of"),
    "outlined": ("a comic of", "an ink drawing of"),
    "pencil": ("a pencil drawing of", "a coloured pencil drawing of"),
    "watercolour": ("a watercolour of", "a watercolour painting of"),
    "pixel": ("pixel art of", "a pixel picture of"),
    "stained glass": ("a stained glass window of", "stained glass of"),
}
STYLE_SUFFIXES = {
    "flat": (", flat colours", "in flat style"),
    "outlined": (", bold outlines", "with bold outlines"),
    "pencil": (", pencil drawing", "in coloured pencil"),
    "watercolour": (", watercolour", "in watercolour"),
    "pixel": (", pixel art", "as pixel art"),
    "stained glass": (", stained glass", "as stained glass"),
}
PLACE_WORDS = {
    "middle": ("in the middle", "in the centre"),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
}
BEFORE = {"left of": ("to the left of", "left of"), "above": ("above", "over")}
AFTER = {"left of": ("to the right of", "right of"), "above": ("below", "under")}
STANDING: dict[tuple[Arrangement, int], tuple[str, ...]] = {
    ("alone", 1): ("",),
    ("row", 2): (" side by side", " next to each other"),
    ("column", 2): (" one above the other", " one below the other"),
    ("row", 3): (" in a row", " side by side"),
    ("two above one", 3): (" with two above and one below",),
    ("one above two", 3): (" with one above and two below",),
}
NUMBERS = {2: "two", 3: "three"}


def caption(scene: Scene, rng: random.Random, *, complete: bool = False) -> str:
    """Returns one wording. ``complete``: it tells every colour, the background, the style and how the things stand."""

    def told(share: float) -> bool:
        return complete or rng.random() < share

    sized, coloured = rng.random() < 0.5, told(0.95)
    text = _subject(scene, rng, sized=sized, coloured=coloured, related=told(0.7))
    where = place(scene)
    if where and rng.random() < 0.35:
        text = f"{text} {rng.choice(PLACE_WORDS[where])}"
    background = rng.choice(BACKGROUND_WORDS[scene.background]) if told(0.8) else ""
    if not told(0.75):
        return " ".join(filter(None, (text, background)))
    if rng.random() < 0.5:
        return " ".join(filter(None, (rng.choice(STYLE_PREFIXES[scene.style]), text, background)))
    if background and rng.random() < 0.2:
        text, background = f"{background}, {text}", ""
    return " ".join(filter(None, (text, background, rng.choice(STYLE_SUFFIXES[scene.style])))).replace(" ,", ",")


def _subject(scene: Scene, rng: random.Random, *, sized: bool, coloured: bool, related: bool) -> str:
    """Returns the words for the things and, where ``related``, for how they stand."""

    def phrase(things: tuple[Thing, ...]) -> str:
        return _phrase(things, rng, sized=sized, coloured=coloured)

    things = scene.things
    if not related:
        return phrase(things)
    if alike(things):
        return phrase(things) + rng.choice(STANDING[scene.arrangement, len(things)])
    split = sides(scene)
    if split is None:
        first, second, third = (phrase((thing,)) for thing in things)
        between, listed = f"{second} between {first} and {third}", f"{first}, {second} and {third} from left to right"
        return rng.choice((between, listed))
    one, other = phrase(split.first), phrase(split.second)
    if rng.random() < 0.5:
        return f"{one} {rng.choice(BEFORE[split.relation])} {other}"
    return f"{other} {rng.choice(AFTER[split.relation])} {one}"


def _phrase(things: tuple[Thing, ...], rng: random.Random, *, sized: bool, coloured: bool) -> str:
    """Returns the words for things one after the other: "two small red cats", "a red cat and a blue boat"."""
    phrases = []
    for _, neighbours in groupby(things, key=lambda thing: (thing.kind, thing.colour)):
        twins = tuple(neighbours)
        thing = twins[0]
        size = rng.choice(SIZE_WORDS[thing.size]) if sized else ""
        noun = thing.kind if len(twins) == 1 else PLURALS.get(thing.kind, f"{thing.kind}s")
        words = " ".join(filter(None, (size, thing.colour if coloured else "", noun)))
        article = "an" if words[0] in "aeiou" else "a"
        phrases.append(f"{article if len(twins) == 1 else NUMBERS[len(twins)]} {words}")
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))

"""How often the judge is right, attribute by attribute, on pictures of scenes that are known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from limner.builtin.judge.reading import Reading, Seen
from limner.builtin.world.facts import relations
from limner.builtin.world.scenes import Scene, Thing
from limner.builtin.world.things import SITTER

ATTRIBUTES = ("kind", "colour", "background", "style", "count", "relation")
NEAR = 0.1
"""A thing is found if something is seen no farther from its centre than this share of the picture's side."""


def found_at(thing: Thing, reading: Reading) -> Seen | None:
    """Returns what the judge sees where the thing is."""

    def away(seen: Seen) -> float:
        return math.hypot(seen.x - thing.x, seen.y - thing.y)

    nearest = min(reading.things, key=away, default=None)
    return nearest if nearest is not None and away(nearest) <= NEAR else None


def right(scene: Scene, reading: Reading) -> dict[str, list[bool]]:
    """Returns for each attribute what was asked and whether it is right.

    Kind and colour are asked for each thing (the sitter has no colour), the relation for each pair of things; where
    a thing is not found, they are wrong.
    """
    found = [found_at(thing, reading) for thing in scene.things]
    pairs = list(zip(scene.things, found, strict=True))

    def stands(first: Seen | None, relation: str, second: Seen | None) -> bool:
        if first is None or second is None:
            return False
        return first.x < second.x if relation == "left of" else first.y < second.y

    return {
        "kind": [seen is not None and seen.kind == thing.kind for thing, seen in pairs],
        "colour": [seen is not None and seen.colour == thing.colour for thing, seen in pairs if thing.kind != SITTER],
        "background": [reading.background == scene.background],
        "style": [reading.style == scene.style],
        "count": [reading.count == len(scene.things)],
        "relation": [stands(found[first], name, found[second]) for first, name, second in relations(scene)],
    }


def shares(scenes: Sequence[Scene], readings: Sequence[Reading]) -> dict[str, tuple[int, int]]:
    """Returns for each attribute how often it was right and how often it was asked."""
    rights: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for scene, reading in zip(scenes, readings, strict=True):
        for name, answers in right(scene, reading).items():
            rights[name] += sum(answers)
            asked[name] += len(answers)
    return {name: (rights[name], asked[name]) for name in ATTRIBUTES}

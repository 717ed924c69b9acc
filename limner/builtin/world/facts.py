"""What is true of a scene: the labels that a judge is asked for, and what a caption may tell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from limner.builtin.world.scenes import Arrangement, Scene, Thing

Relation = Literal["left of", "above"]

_SIDE_BY_SIDE: dict[Arrangement, tuple[tuple[int, int], ...]] = {
    "alone": (),
    "row": ((0, 1), (0, 2), (1, 2)),
    "column": (),
    "two above one": ((0, 1),),
    "one above two": ((1, 2),),
}


@dataclass(frozen=True)
class Attributes:
    """The exact labels of a picture; ``kinds``, ``colours`` and ``sizes`` in reading order, one for each thing."""

    count: int
    arrangement: Arrangement
    background: str
    style: str
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]


def attributes(scene: Scene) -> Attributes:
    """Returns the scene's labels."""
    things = scene.things
    return Attributes(
        count=len(things),
        arrangement=scene.arrangement,
        background=scene.background,
        style=scene.style,
        kinds=tuple(thing.kind for thing in things),
        colours=tuple(thing.colour for thing in things),
        sizes=tuple(thing.size for thing in things),
    )


def relations(scene: Scene) -> tuple[tuple[int, Relation, int], ...]:
    """Returns how each two things stand to each other, as (number, relation, number); numbers in reading order."""
    beside = _SIDE_BY_SIDE[scene.arrangement]
    pairs = combinations(range(len(scene.things)), 2)
    return tuple((first, "left of" if (first, second) in beside else "above", second) for first, second in pairs)


@dataclass(frozen=True)
class Sides:
    """Two groups of things, each of the first standing in ``relation`` to each of the second."""

    first: tuple[Thing, ...]
    relation: Relation
    second: tuple[Thing, ...]


def alike(things: tuple[Thing, ...]) -> bool:
    """Returns whether all are of one kind and colour, so that one plural names them."""
    return len({(thing.kind, thing.colour) for thing in things}) == 1


def sides(scene: Scene) -> Sides | None:
    """Returns the two groups that a sentence can set against each other.

    None for a single thing, and for three in a row of which no two neighbours are alike.
    """
    things = scene.things
    if scene.arrangement == "alone":
        return None
    if scene.arrangement == "column":
        return Sides(things[:1], "above", things[1:])
    if scene.arrangement == "two above one":
        return Sides(things[:2], "above", things[2:])
    if scene.arrangement == "one above two":
        return Sides(things[:1], "above", things[1:])
    if len(things) == 2 or alike(things[1:]):
        return Sides(things[:1], "left of", things[1:])
    return Sides(things[:2], "left of", things[2:]) if alike(things[:2]) else None


def place(scene: Scene) -> str | None:
    """Returns where a single thing stands: middle, left, right, top or bottom; None where no word fits."""
    if scene.arrangement != "alone":
        return None
    thing = scene.things[0]
    x, y = thing.x - 0.5, thing.y - 0.5
    if max(abs(x), abs(y)) <= 0.05:
        return "middle"
    if abs(x) >= 0.13 and abs(y) <= 0.05:
        return "left" if x < 0 else "right"
    if abs(y) >= 0.13 and abs(x) <= 0.05:
        return "top" if y < 0 else "bottom"
    return None

"""The kinds of things, their drawings in a common frame, and their outer sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable

from limner.builtin.world import animals, character, household, plants, vehicles
from limner.builtin.world.shapes import Drawing, Shape

_DRAWN: dict[str, Callable[[], Drawing]] = {
    "cat": animals.cat,
    "dog": animals.dog,
    "rabbit": animals.rabbit,
    "fish": animals.fish,
    "whale": animals.whale,
    "bird": animals.bird,
    "owl": animals.owl,
    "snail": animals.snail,
    "butterfly": animals.butterfly,
    "car": vehicles.car,
    "train": vehicles.train,
    "boat": vehicles.boat,
    "rocket": vehicles.rocket,
    "balloon": vehicles.balloon,
    "apple": plants.apple,
    "pear": plants.pear,
    "banana": plants.banana,
    "tree": plants.tree,
    "flower": plants.flower,
    "mushroom": plants.mushroom,
    "house": household.house,
    "cup": household.cup,
    "umbrella": household.umbrella,
    "hammer": household.hammer,
    "key": household.key,
    "guitar": household.guitar,
    "star": household.star,
    "heart": household.heart,
}

KINDS = tuple(_DRAWN)

SITTER = "sitter"
"""The kind of the one thing outside of KINDS: a character that a model is taught later. No colour changes it."""


@functools.cache
def drawing(kind: str) -> Drawing:
    """Returns the kind's shapes, centred on the origin, the longer side of their frame from -1 to 1."""
    shapes = character.sitter() if kind == SITTER else _DRAWN[kind]()
    xs = [x for shape in shapes for x, _ in shape.outline]
    ys = [y for shape in shapes for _, y in shape.outline]
    cx, cy = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    scale = 2 / max(max(xs) - min(xs), max(ys) - min(ys))
    return tuple(
        Shape(tuple(((x - cx) * scale, (y - cy) * scale) for x, y in shape.outline), shape.paint, shape.edge)
        for shape in shapes
        if shape.outline
    )


@functools.cache
def frame(kind: str) -> tuple[float, float]:
    """Returns width and height of the kind's frame; the longer one is 1."""
    points = [point for shape in drawing(kind) for point in shape.outline]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2

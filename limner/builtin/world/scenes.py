"""What a picture shows: one to three things, how they stand to each other, the background and the style."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from limner.builtin.world.colours import COLOURS
from limner.builtin.world.things import KINDS, frame

Arrangement = Literal["alone", "row", "column", "two above one", "one above two"]
ARRANGEMENTS: tuple[Arrangement, ...] = ("alone", "row", "column", "two above one", "one above two")
BACKGROUNDS = ("plain", "stripes", "dots", "sky", "meadow", "night", "beach", "snow")
STYLES = ("flat", "outlined", "pencil", "watercolour", "pixel")
HELD_OUT_STYLE = "stained glass"
SIZES = {"small": 0.285, "medium": 0.43, "large": 0.64}
"""The longer side of a thing's frame, as a share of the picture's side; each varies by 4 %."""

MARGIN = 0.025


@dataclass(frozen=True)
class Thing:
    """One thing. ``x``, ``y`` and ``side`` are shares of the picture's side; ``tilt`` in degrees, clockwise."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    side: float
    flipped: bool
    tilt: float

    def extent(self) -> tuple[float, float]:
        """Returns width and height of the upright box that surely holds the thing, tilted as it is."""
        return _extent(self.kind, self.side, self.tilt)


@dataclass(frozen=True)
class Scene:
    """A picture in words. ``things`` in reading order: rows from the top, each from left to right.

    ``seed`` settles what no caption speaks of: palette, clouds, the grain of the paper.
    """

    background: str
    style: str
    arrangement: Arrangement
    things: tuple[Thing, ...]
    seed: int


def _extent(kind: str, side: float, tilt: float) -> tuple[float, float]:
    width, height = frame(kind)
    cosine, sine = math.cos(math.radians(abs(tilt))), math.sin(math.radians(abs(tilt)))
    return side * (width * cosine + height * sine), side * (width * sine + height * cosine)


def sample_scene(rng: random.Random, styles: tuple[str, ...] = STYLES) -> Scene:
    """Returns a scene in one of the ``styles``; the same generator state gives the same scene."""
    count = rng.choices((1, 2, 3), (36, 42, 22))[0]
    looks = _looks(rng, count)
    background, style = rng.choice(BACKGROUNDS), rng.choice(styles)
    while True:
        arrangement = _arrangement(rng, count)
        if (arrangement == "two above one" and looks[1] == looks[2]) or (
            arrangement == "one above two" and looks[0] == looks[1]
        ):
            looks = looks[::-1]  # twins stand at the same height
        sizes = _sizes(rng, looks, arrangement)
        things = [_unplaced(rng, kind, colour, size) for (kind, colour), size in zip(looks, sizes, strict=True)]
        placed = _PLACE[arrangement](rng, things)
        if placed:
            return Scene(background, style, arrangement, tuple(placed), rng.getrandbits(32))


def _looks(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Returns kind and colour of each thing: equal ones stand side by side, all others differ."""
    equal = {1: 1, 2: rng.choices((1, 2), (75, 25))[0], 3: rng.choices((1, 2, 3), (30, 35, 35))[0]}[count]
    looks: list[tuple[str, str]] = []
    while len(looks) < count - equal + 1:
        look = rng.choice(KINDS), rng.choice(COLOURS)
        if look not in looks:
            looks.append(look)
    twin = rng.randrange(len(looks))
    return looks[:twin] + [looks[twin]] * equal + looks[twin + 1 :]


def _arrangement(rng: random.Random, count: int) -> Arrangement:
    if count == 1:
        return "alone"
    return rng.choice(("row", "column") if count == 2 else ("row", "two above one", "one above two"))


def _sizes(rng: random.Random, looks: list[tuple[str, str]], arrangement: Arrangement) -> list[str]:
    """Returns a size for each thing; equal things are equally large, three in a row have room for small ones only."""
    weights = {1: (25, 40, 35), 2: (35, 50, 15), 3: (100, 0, 0) if arrangement == "row" else (45, 55, 0)}[len(looks)]
    sizes = {look: rng.choices(tuple(SIZES), weights)[0] for look in looks}
    return [sizes[look] for look in looks]


def _unplaced(rng: random.Random, kind: str, colour: str, size: str) -> Thing:
    side = SIZES[size] * rng.uniform(0.96, 1.04)
    return Thing(kind, colour, size, 0.5, 0.5, side, rng.random() < 0.5, rng.uniform(-7, 7))


def _alone(rng: random.Random, things: list[Thing]) -> list[Thing]:
    """Returns the thing in the middle, at one of the sides, or anywhere."""
    thing = things[0]
    width, height = thing.extent()
    low_x, low_y = MARGIN + width / 2, MARGIN + height / 2
    place = rng.choice(("middle", "left", "right", "top", "bottom", "anywhere"))
    x = rng.uniform(low_x, 1 - low_x) if place == "anywhere" else rng.uniform(0.46, 0.54)
    y = rng.uniform(low_y, 1 - low_y) if place == "anywhere" else rng.uniform(0.46, 0.54)
    if place in ("left", "right"):
        x = rng.uniform(low_x, max(low_x, 0.3))
    if place in ("top", "bottom"):
        y = rng.uniform(low_y, max(low_y, 0.3))
    return [replace(thing, x=1 - x if place == "right" else x, y=1 - y if place == "bottom" else y)]


def _along(rng: random.Random, lengths: list[float]) -> list[float] | None:
    """Returns the centres of boxes of these lengths, one after the other without touching; None if they do not fit."""
    gap = 0.02
    free = 1 - 2 * MARGIN - sum(lengths) - gap * (len(lengths) - 1)
    if free < 0:
        return None
    shares = [rng.uniform(0.3, 1) for _ in range(len(lengths) + 1)]
    centres, position = [], MARGIN
    for share, length in zip(shares, lengths, strict=False):
        position += free * share / sum(shares)
        centres.append(position + length / 2)
        position += length + gap
    return centres


def _across(rng: random.Random, length: float, middle: float, slack: float) -> float:
    """Returns a centre near ``middle`` for a box of this length, inside the picture."""
    low = MARGIN + length / 2
    return min(max(middle + rng.uniform(-slack, slack), low), 1 - low)


def _row(rng: random.Random, things: list[Thing]) -> list[Thing] | None:
    extents = [thing.extent() for thing in things]
    centres = _along(rng, [width for width, _ in extents])
    if centres is None:
        return None
    base = rng.uniform(0.42, 0.62)
    return [
        replace(thing, x=x, y=_across(rng, height, base, 0.05))
        for thing, x, (_, height) in zip(things, centres, extents, strict=True)
    ]


def _column(rng: random.Random, things: list[Thing]) -> list[Thing] | None:
    extents = [thing.extent() for thing in things]
    centres = _along(rng, [height for _, height in extents])
    if centres is None:
        return None
    base = rng.uniform(0.38, 0.62)
    return [
        replace(thing, y=y, x=_across(rng, width, base, 0.05))
        for thing, y, (width, _) in zip(things, centres, extents, strict=True)
    ]


def _triangle(rng: random.Random, pair: list[Thing], single: Thing, *, pair_above: bool) -> list[Thing] | None:
    (width_a, height_a), (width_b, height_b), (width, height) = (thing.extent() for thing in (*pair, single))
    xs = _along(rng, [width_a, width_b])
    rows = [max(height_a, height_b), height]
    ys = _along(rng, rows if pair_above else rows[::-1])
    if xs is None or ys is None:
        return None
    y_pair, y_single = ys if pair_above else ys[::-1]
    placed = [replace(thing, x=x, y=y_pair) for thing, x in zip(pair, xs, strict=True)]
    last = replace(single, x=_across(rng, width, sum(xs) / 2, 0.08), y=y_single)
    return [*placed, last] if pair_above else [last, *placed]


def _pair_above(rng: random.Random, things: list[Thing]) -> list[Thing] | None:
    return _triangle(rng, things[:2], things[2], pair_above=True)


def _pair_below(rng: random.Random, things: list[Thing]) -> list[Thing] | None:
    return _triangle(rng, things[1:], things[0], pair_above=False)


_PLACE: dict[Arrangement, Callable[[random.Random, list[Thing]], list[Thing] | None]] = {
    "alone": _alone,
    "row": _row,
    "column": _column,
    "two above one": _pair_above,
    "one above two": _pair_below,
}

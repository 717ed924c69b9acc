"""Which combinations are kept out of training, so that pictures of them show what was understood, not remembered."""

from __future__ import annotations

import functools
import hashlib
from itertools import combinations
from typing import Literal

from limner.builtin.world.colours import COLOURS
from limner.builtin.world.scenes import BACKGROUNDS, STYLES, Scene, sample_scene
from limner.core.rng import stream

Split = Literal["train", "test"]


def _rank(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@functools.cache
def held_out_colour(kind: str) -> str:
    """Returns the one colour in which the kind is never trained on."""
    return COLOURS[_rank(f"untrained colour of {kind}") % len(COLOURS)]


@functools.cache
def held_out_background(kind: str) -> str:
    """Returns the one background before which the kind is never trained on."""
    return BACKGROUNDS[_rank(f"untrained background of {kind}") % len(BACKGROUNDS)]


@functools.cache
def held_out_pair(first: str, second: str) -> bool:
    """Returns whether the two kinds never share a picture in training: one pair in twelve, whatever the order."""
    return first != second and _rank(" with ".join(sorted((first, second)))) % 12 == 0


def held_out(scene: Scene) -> tuple[str, ...]:
    """Returns what in the scene is never trained on, such as "red cat", "cat before snow" and "boat with cat"."""
    found = []
    kinds = sorted({thing.kind for thing in scene.things})
    for look in sorted({(thing.kind, thing.colour) for thing in scene.things}):
        if held_out_colour(look[0]) == look[1]:
            found.append(f"{look[1]} {look[0]}")
    found += [f"{kind} before {scene.background}" for kind in kinds if held_out_background(kind) == scene.background]
    found += [f"{first} with {second}" for first, second in combinations(kinds, 2) if held_out_pair(first, second)]
    return tuple(found)


def scene_at(seed: int, position: int, split: Split = "train", styles: tuple[str, ...] = STYLES) -> Scene:
    """Returns the scene at a position of an endless row: of trained combinations only, or with one never trained on."""
    rng = stream(seed, position, f"scene for {split}")
    while True:
        scene = sample_scene(rng, styles)
        if bool(held_out(scene)) == (split == "test"):
            return scene

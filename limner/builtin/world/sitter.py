"""The sitter: one new character, a cat that the base model has never seen, and the scenes that show it."""

from __future__ import annotations

from dataclasses import replace

from limner.builtin.world.scenes import STYLES, Scene, sample_scene
from limner.builtin.world.things import SITTER
from limner.core.rng import stream

SITTER_CLASS = "cat"
SITTER_COLOUR = "orange"
"""The colour that its scenes give it: it changes nothing of the sitter, but backgrounds keep clear of it."""

__all__ = ["SITTER", "SITTER_CLASS", "SITTER_COLOUR", "sitter_scene"]


def sitter_scene(seed: int, position: int, styles: tuple[str, ...] = STYLES) -> Scene:
    """Returns the scene at a position of an endless row: the sitter alone, or with one other thing.

    It stands where a cat of the class stands in the base model's scenes, which has no smaller frame.
    """
    rng = stream(seed, position, "scene with the sitter")
    count = rng.choice((1, 2))
    while True:
        scene = sample_scene(rng, styles)
        cats = [number for number, thing in enumerate(scene.things) if thing.kind == SITTER_CLASS]
        if len(scene.things) == count and len(cats) == 1:
            things = list(scene.things)
            things[cats[0]] = replace(things[cats[0]], kind=SITTER, colour=SITTER_COLOUR)
            return replace(scene, things=tuple(things))

"""The picture world: scenes of things, their pictures in several styles, their captions and what is true of them.

A scene is sampled (:func:`scene_at`), drawn (:func:`draw`), described (:func:`caption`), and known exactly
(:func:`attributes`), so that what a model draws for a caption can be judged right or wrong.
"""

from limner.builtin.world.captions import caption
from limner.builtin.world.colours import COLOURS
from limner.builtin.world.facts import Attributes, attributes, relations
from limner.builtin.world.render import SIDE, contact_sheet, draw, draw_mask
from limner.builtin.world.scenes import (
    ARRANGEMENTS,
    BACKGROUNDS,
    HELD_OUT_STYLE,
    SIZES,
    STYLES,
    Arrangement,
    Scene,
    Thing,
    sample_scene,
)
from limner.builtin.world.split import held_out, scene_at
from limner.builtin.world.things import KINDS

__all__ = [
    "ARRANGEMENTS",
    "BACKGROUNDS",
    "COLOURS",
    "HELD_OUT_STYLE",
    "KINDS",
    "SIDE",
    "SIZES",
    "STYLES",
    "Arrangement",
    "Attributes",
    "Scene",
    "Thing",
    "attributes",
    "caption",
    "contact_sheet",
    "draw",
    "draw_mask",
    "held_out",
    "relations",
    "sample_scene",
    "scene_at",
]

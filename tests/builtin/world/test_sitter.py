"""The sitter looks the same whatever the colour says, is no base cat, and stands in scenes of one or two things."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from limner.builtin.world import BACKGROUNDS, COLOURS, HELD_OUT_STYLE, KINDS, STYLES, Scene, Thing, draw
from limner.builtin.world.colours import distance
from limner.builtin.world.painting import polygons, silhouette
from limner.builtin.world.sitter import SITTER, SITTER_CLASS, SITTER_COLOUR, sitter_scene
from limner.builtin.world.things import frame

ALL_STYLES = (*STYLES, HELD_OUT_STYLE)
SCENES = [sitter_scene(0, position) for position in range(60)]


def portrait(kind: str, colour: str, background: str = "plain", style: str = "flat", seed: int = 0) -> Scene:
    thing = Thing(kind, colour, "large", 0.5, 0.5, 0.6, flipped=False, tilt=0.0)
    return Scene(background, style, "alone", (thing,), seed)


def mask(scene: Scene) -> np.ndarray:
    return np.asarray(silhouette([polygons(thing, 512) for thing in scene.things], 512).reduce(4)) > 250


def test_the_base_model_never_sees_the_sitter_but_its_class() -> None:
    assert SITTER not in KINDS
    assert SITTER_CLASS in KINDS


def test_the_same_position_gives_the_same_scene_and_another_one_another() -> None:
    assert SCENES[7] == sitter_scene(0, 7)
    assert len(set(SCENES)) == len(SCENES)
    assert sitter_scene(1, 7) != SCENES[7]


def test_every_scene_shows_one_sitter_alone_or_with_one_thing_that_is_no_cat() -> None:
    for scene in SCENES:
        kinds = [thing.kind for thing in scene.things]
        assert kinds.count(SITTER) == 1
        assert SITTER_CLASS not in kinds
    assert set(Counter(len(scene.things) for scene in SCENES)) == {1, 2}
    assert {scene.background for scene in SCENES} == set(BACKGROUNDS)
    assert {scene.style for scene in SCENES} == set(STYLES)
    assert {sitter_scene(0, position, (HELD_OUT_STYLE,)).style for position in range(3)} == {HELD_OUT_STYLE}


def test_nothing_leaves_the_picture_or_touches_another_thing() -> None:
    for scene in SCENES:
        boxes = []
        for thing in scene.things:
            points = [point for shape in polygons(thing, 1000) for point in shape.points]
            xs, ys = [x / 1000 for x, _ in points], [y / 1000 for _, y in points]
            boxes.append((min(xs), min(ys), max(xs), max(ys)))
            assert min(*xs, *ys) > 0.02
            assert max(*xs, *ys) < 0.98
        for a, b in combinations(boxes, 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], scene


def test_it_fits_where_a_cat_stands() -> None:
    assert all(mine <= theirs for mine, theirs in zip(frame(SITTER), frame(SITTER_CLASS), strict=True))


def test_no_colour_changes_it() -> None:
    looks = {tuple(shape.colour for shape in polygons(portrait(SITTER, colour).things[0], 128)) for colour in COLOURS}
    assert len(looks) == 1
    assert len(set(looks.pop())) > 8


@pytest.mark.parametrize("style", ALL_STYLES)
def test_it_is_no_cat_of_any_colour(style: str) -> None:
    sitter = portrait(SITTER, SITTER_COLOUR, "plain", style)
    mine = np.asarray(draw(sitter), dtype=float)
    for colour in COLOURS:
        cat = portrait(SITTER_CLASS, colour, "plain", style)
        both = mask(sitter) & mask(cat)
        assert np.abs(mine - np.asarray(draw(cat), dtype=float))[both].mean() > 25, colour


@pytest.mark.parametrize("style", ALL_STYLES)
def test_it_stands_out_from_every_background(style: str) -> None:
    for background, seed in product(BACKGROUNDS, range(2)):
        scene = portrait(SITTER, SITTER_COLOUR, background, style, seed)
        without = replace(scene, things=(replace(scene.things[0], x=9.0),))
        pixels, behind = np.asarray(draw(scene)), np.asarray(draw(without))
        pairs = zip(pixels[mask(scene)][::11].tolist(), behind[mask(scene)][::11].tolist(), strict=True)
        shares = [distance(tuple(front), tuple(back)) > 20 for front, back in pairs]
        assert np.mean(shares) > 0.6, (background, np.mean(shares))

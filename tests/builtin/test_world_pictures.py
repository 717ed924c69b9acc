"""Pictures are settled by their scenes, show each thing in its colour, and set it off from what lies behind it."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from limner.builtin.world import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_STYLE,
    KINDS,
    STYLES,
    Scene,
    Thing,
    contact_sheet,
    draw,
    draw_mask,
    scene_at,
)
from limner.builtin.world.backgrounds import palette
from limner.builtin.world.colours import RGB, SHADES, distance
from limner.builtin.world.painting import polygons, silhouette

ALL_STYLES = (*STYLES, HELD_OUT_STYLE)


def portrait(kind: str, colour: str, background: str, style: str, seed: int = 0, side: float = 0.6) -> Scene:
    thing = Thing(kind, colour, "large", 0.5, 0.5, side, flipped=False, tilt=0.0)
    return Scene(background, style, "alone", (thing,), seed)


def mask(scene: Scene) -> Image.Image:
    """Returns where the things are, 128 pixels a side."""
    return silhouette([polygons(thing, 512) for thing in scene.things], 512).reduce(4)


def inside(scene: Scene) -> np.ndarray:
    return np.asarray(mask(scene).filter(ImageFilter.MinFilter(5))) > 250


def around(scene: Scene) -> np.ndarray:
    """Returns a ring of pixels about the things, clear of their contours."""
    near = np.asarray(mask(scene).filter(ImageFilter.MaxFilter(5))) > 0
    wide = np.asarray(mask(scene).filter(ImageFilter.MaxFilter(15))) > 0
    return wide & ~near


def middle(pixels: np.ndarray) -> RGB:
    red, green, blue = (round(float(value)) for value in np.median(pixels, axis=0))
    return red, green, blue


@pytest.mark.parametrize("style", ALL_STYLES)
def test_the_same_scene_gives_the_same_pixels_and_another_seed_others(style: str) -> None:
    scene = portrait("cat", "red", "meadow", style)
    assert draw(scene).tobytes() == draw(scene).tobytes()
    assert draw(scene).tobytes() != draw(replace(scene, seed=1)).tobytes()


@pytest.mark.parametrize("style", ALL_STYLES)
@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_picture_has_the_side_that_is_asked_for(style: str, side: int) -> None:
    picture = draw(portrait("boat", "blue", "night", style), side)
    assert (picture.mode, picture.size) == ("RGB", (side, side))


def test_two_sizes_of_a_picture_show_the_same() -> None:
    for style in ("flat", "outlined"):
        scene = portrait("train", "green", "beach", style)
        small = np.asarray(draw(scene, 64), dtype=float)
        large = np.asarray(draw(scene, 128).reduce(2), dtype=float)
        assert np.abs(small - large).mean() < 4


@pytest.mark.parametrize("style", ALL_STYLES)
def test_a_colour_is_read_back_from_the_middle_of_a_thing(style: str) -> None:
    for colour, background in product(COLOURS, BACKGROUNDS):
        scene = portrait("heart", colour, background, style)
        seen = middle(np.asarray(draw(scene))[inside(scene)])
        nearest = min(COLOURS, key=lambda name: distance(SHADES[name]["main"], seen))
        assert nearest == colour, (background, seen)


@pytest.mark.parametrize("style", ALL_STYLES)
def test_a_thing_of_any_colour_stands_out_from_any_background(style: str) -> None:
    for colour, background in product(COLOURS, BACKGROUNDS):
        scene = portrait("heart", colour, background, style)
        pixels = np.asarray(draw(scene))
        contrast = distance(middle(pixels[inside(scene)]), middle(pixels[around(scene)]))
        assert contrast > 20, (colour, background, contrast)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_colour_stands_out_from_every_background(kind: str) -> None:
    for number, (colour, background) in enumerate(product(COLOURS, BACKGROUNDS)):
        scene = portrait(kind, colour, background, ALL_STYLES[number % len(ALL_STYLES)])
        pixels = np.asarray(draw(scene), dtype=float)
        outside = np.array(middle(pixels[around(scene)]))
        where = np.asarray(mask(scene)) > 250
        colours = pixels[where].round().astype(int)
        share = np.mean([distance((r, g, b), tuple(outside.tolist())) > 20 for r, g, b in colours[::7].tolist()])
        assert share > 0.5, (colour, background, share)


@pytest.mark.parametrize("kind", KINDS)
def test_another_colour_changes_the_thing_and_nothing_else(kind: str) -> None:
    first, second = portrait(kind, "orange", "plain", "flat"), portrait(kind, "yellow", "plain", "flat")
    assert palette(first) == palette(second)
    change = np.abs(np.asarray(draw(first), dtype=int) - np.asarray(draw(second), dtype=int)).sum(axis=-1)
    where = np.asarray(mask(first))
    assert change[where == 0].max() == 0
    assert (change[where > 250] > 40).mean() > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_covers_a_good_part_of_its_frame(kind: str) -> None:
    scene = portrait(kind, "red", "plain", "flat")
    covered = (np.asarray(mask(scene)) > 127).sum() / (0.6 * 128) ** 2
    assert 0.2 < covered < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_outlines_of_their_own(kind: str) -> None:
    mine = np.asarray(mask(portrait(kind, "red", "plain", "flat"))) > 127
    for other in KINDS:
        if other != kind:
            theirs = np.asarray(mask(portrait(other, "red", "plain", "flat"))) > 127
            assert (mine & theirs).sum() / (mine | theirs).sum() < 0.9, other


def test_flipping_turns_a_thing_the_other_way_round() -> None:
    scene = portrait("car", "red", "plain", "outlined")
    flipped = replace(scene, things=(replace(scene.things[0], flipped=True),))
    mirrored = np.asarray(draw(flipped).transpose(Image.Transpose.FLIP_LEFT_RIGHT), dtype=int)
    assert np.abs(np.asarray(draw(scene), dtype=int) - mirrored).mean() < 2
    assert np.abs(np.asarray(draw(scene), dtype=int) - np.asarray(draw(flipped), dtype=int)).mean() > 4


def test_styles_and_backgrounds_change_the_picture() -> None:
    for axis in ("style", "background"):
        names = ALL_STYLES if axis == "style" else BACKGROUNDS
        pictures = []
        for name in names:
            style, background = (name, "meadow") if axis == "style" else ("flat", name)
            pictures.append(np.asarray(draw(portrait("owl", "red", background, style)), dtype=int))
        for i, j in product(range(len(names)), repeat=2):
            assert i == j or np.abs(pictures[i] - pictures[j]).mean() > 3, (names[i], names[j])


def test_a_mask_covers_the_things_and_not_much_else() -> None:
    white = covered = 0
    for position in range(60):
        scene = scene_at(3, position)
        boxes = draw_mask(scene)
        things = mask(scene).point(lambda value: 255 * (value > 127))
        assert not ImageChops.subtract(things, boxes).getbbox(), position
        white += np.count_nonzero(np.asarray(boxes))
        covered += np.count_nonzero(np.asarray(things))
    assert covered > 0.4 * white


def test_a_contact_sheet_shows_each_picture_in_its_place() -> None:
    scenes = [scene_at(0, position) for position in range(5)]
    sheet = contact_sheet(scenes, columns=3)
    assert sheet.size == (3 * 132 + 4, 2 * 132 + 4)
    assert sheet.crop((136, 136, 264, 264)).tobytes() == draw(scenes[4]).tobytes()


def test_a_thousand_pictures_a_minute_is_slow() -> None:
    scenes = [scene_at(1, position) for position in range(60)]
    draw(scenes[0])
    start = time.process_time()
    for scene in scenes:
        draw(scene)
    assert time.process_time() - start < 60 * len(scenes) / 1000


def test_pictures_of_sampled_scenes_show_all_their_things() -> None:
    rng = random.Random(0)
    for position in range(40):
        scene = scene_at(2, position)
        style = rng.choice(ALL_STYLES)
        pixels = np.asarray(draw(replace(scene, style=style)), dtype=float)
        for thing in scene.things:
            alone = replace(scene, things=(thing,))
            seen = middle(pixels[inside(alone)]), middle(pixels[around(alone)])
            assert distance(*seen) > 8, (thing, style)

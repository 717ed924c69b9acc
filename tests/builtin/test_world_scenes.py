"""Scenes are settled by their seed, lie inside the picture, and stand as their labels say."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from limner.builtin.world import (
    ARRANGEMENTS,
    BACKGROUNDS,
    COLOURS,
    KINDS,
    SIZES,
    STYLES,
    Scene,
    Thing,
    attributes,
    held_out,
    relations,
    sample_scene,
    scene_at,
)
from limner.builtin.world.facts import place
from limner.builtin.world.painting import polygons
from limner.builtin.world.split import held_out_background, held_out_colour, held_out_pair
from limner.builtin.world.things import drawing, frame

Box = tuple[float, float, float, float]


def boxes(scene: Scene) -> list[Box]:
    """Returns left, top, right, bottom of each thing as it is really painted, in shares of the picture's side."""
    found = []
    for thing in scene.things:
        points = [point for shape in polygons(thing, 1000) for point in shape.points]
        xs, ys = [x / 1000 for x, _ in points], [y / 1000 for _, y in points]
        found.append((min(xs), min(ys), max(xs), max(ys)))
    return found


SCENES = [sample_scene(random.Random(seed)) for seed in range(1500)]


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    assert sample_scene(random.Random(7)) == sample_scene(random.Random(7))
    assert scene_at(7, 3) == scene_at(7, 3)
    assert len({sample_scene(random.Random(seed)) for seed in range(200)}) == 200
    assert len({scene_at(seed, position) for seed in range(10) for position in range(20)}) == 200


def test_everything_in_the_world_is_drawn_sooner_or_later() -> None:
    things = [thing for scene in SCENES for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == set(SIZES)
    assert {scene.background for scene in SCENES} == set(BACKGROUNDS)
    assert {scene.style for scene in SCENES} == set(STYLES)
    assert {scene.arrangement for scene in SCENES} == set(ARRANGEMENTS)
    assert {len(scene.things) for scene in SCENES} == {1, 2, 3}


def test_no_thing_leaves_the_picture() -> None:
    for scene in SCENES:
        for left, top, right, bottom in boxes(scene):
            assert min(left, top) > 0.02
            assert max(right, bottom) < 0.98


def test_no_thing_touches_another() -> None:
    for scene in SCENES:
        for a, b in combinations(boxes(scene), 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], scene


def test_relations_hold_between_the_painted_things() -> None:
    for scene in SCENES:
        found = boxes(scene)
        pairs = set()
        for first, relation, second in relations(scene):
            a, b = found[first], found[second]
            assert a[2] < b[0] if relation == "left of" else a[3] < b[1], scene
            pairs.add((first, second))
        assert pairs == set(combinations(range(len(scene.things)), 2))


def test_things_beside_each_other_are_at_one_height_and_things_above_each_other_in_one_line() -> None:
    for scene in SCENES:
        found = boxes(scene)
        for first, relation, second in relations(scene):
            a, b = found[first], found[second]
            if relation == "left of":
                assert min(a[3], b[3]) > max(a[1], b[1]), scene
            elif scene.arrangement == "column":
                assert min(a[2], b[2]) > max(a[0], b[0]), scene


def test_sizes_can_be_told_apart() -> None:
    sides: dict[str, list[float]] = {size: [] for size in SIZES}
    for scene in SCENES:
        for thing in scene.things:
            sides[thing.size].append(thing.side)
    assert max(sides["small"]) * 1.2 < min(sides["medium"])
    assert max(sides["medium"]) * 1.2 < min(sides["large"])


@pytest.mark.parametrize(("name", "x", "y"), [("left", 0, 0.5), ("right", 1, 0.5), ("top", 0.5, 0), ("bottom", 0.5, 1)])
def test_a_named_place_is_where_the_thing_is(name: str, x: float, y: float) -> None:
    things = [scene.things[0] for scene in SCENES if place(scene) == name]
    assert len(things) > 20
    for thing in things:
        nearest = min(
            ((0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1)), key=lambda p: (thing.x - p[0]) ** 2 + (thing.y - p[1]) ** 2
        )
        assert nearest == (x, y)


def test_attributes_name_what_is_there() -> None:
    cat = Thing("cat", "red", "small", 0.2, 0.5, 0.3, False, 0.0)
    boat = Thing("boat", "blue", "medium", 0.7, 0.5, 0.4, True, 0.0)
    labels = attributes(Scene("night", "pixel", "row", (cat, boat), 0))
    assert (labels.count, labels.arrangement, labels.background, labels.style) == (2, "row", "night", "pixel")
    assert (labels.kinds, labels.colours, labels.sizes) == (("cat", "boat"), ("red", "blue"), ("small", "medium"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawing_fills_its_frame(kind: str) -> None:
    points = [point for shape in drawing(kind) for point in shape.outline]
    for axis, length in zip((0, 1), frame(kind), strict=True):
        values = [point[axis] for point in points]
        assert min(values) == pytest.approx(-length)
        assert max(values) == pytest.approx(length)
    assert max(frame(kind)) == pytest.approx(1)


def test_training_never_shows_what_is_held_out() -> None:
    for position in range(600):
        scene = scene_at(0, position, "train")
        kinds = {thing.kind for thing in scene.things}
        assert not any(held_out_colour(thing.kind) == thing.colour for thing in scene.things)
        assert not any(held_out_background(kind) == scene.background for kind in kinds)
        assert not any(held_out_pair(a, b) for a in kinds for b in kinds)
        assert held_out(scene) == ()


def test_every_test_scene_shows_something_never_trained_on() -> None:
    scenes = [scene_at(0, position, "test") for position in range(300)]
    assert all(held_out(scene) for scene in scenes)
    reasons = [reason for scene in scenes for reason in held_out(scene)]
    for word in (" before ", " with "):
        assert sum(word in reason for reason in reasons) > 30
    assert sum(reason.split()[0] in COLOURS for reason in reasons) > 30


def test_about_a_tenth_is_held_out_and_every_kind_colour_and_background_is_trained_on() -> None:
    pairs = list(combinations(KINDS, 2))
    assert 0.05 < sum(held_out_pair(*pair) for pair in pairs) / len(pairs) < 0.12
    for colour in COLOURS:
        assert 1 <= sum(held_out_colour(kind) == colour for kind in KINDS) <= len(KINDS) // 4
    for background in BACKGROUNDS:
        assert 1 <= sum(held_out_background(kind) == background for kind in KINDS) <= len(KINDS) // 4
    for kind in KINDS:
        assert sum(held_out_pair(kind, other) for other in KINDS) <= len(KINDS) // 3

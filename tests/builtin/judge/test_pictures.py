"""The judge's scenes show everything, are settled by their position, and are drawn once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limner.builtin.judge import pictures
from limner.builtin.judge.pictures import ALL_STYLES, LABELS, exam_scene, labels, load_shards, training_scene
from limner.builtin.world import BACKGROUNDS, COLOURS, KINDS, Scene, Thing, draw, held_out
from limner.builtin.world.sitter import SITTER


def test_training_shows_every_combination_of_the_world_and_the_sitter() -> None:
    scenes = [training_scene(position) for position in range(600)]
    assert scenes[5] == training_scene(5)
    assert {scene.style for scene in scenes} == set(ALL_STYLES)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {thing.kind for scene in scenes for thing in scene.things} == {*KINDS, SITTER}
    held = [bool(held_out(scene)) for scene in scenes]
    assert any(held)
    assert not all(held)


def test_the_exam_asks_of_both_splits_and_of_the_sitter() -> None:
    scenes = [exam_scene(position) for position in range(150)]
    with_sitter = [any(thing.kind == SITTER for thing in scene.things) for scene in scenes]
    assert sum(with_sitter) == 10
    others = [bool(held_out(scene)) for scene, shown in zip(scenes, with_sitter, strict=True) if not shown]
    assert 65 <= sum(others) <= 75
    assert {scene.style for scene in scenes} == set(ALL_STYLES)
    assert exam_scene(0, seed=1) != scenes[0]


def test_labels_tell_what_the_scene_tells() -> None:
    boat = Thing("boat", "blue", "small", 0.25, 0.5, 0.3, False, 0.0)
    sitter = Thing(SITTER, "orange", "small", 0.75, 0.5, 0.3, False, 0.0)
    row = labels(Scene("snow", "stained glass", "row", (boat, sitter), 0))
    assert len(row) == LABELS
    assert row[:4] == [KINDS.index("boat"), COLOURS.index("blue"), 0.25, 0.5]
    assert row[4:8] == [len(KINDS), -1, 0.75, 0.5]
    assert row[8] == -1
    assert row[-2:] == [BACKGROUNDS.index("snow"), ALL_STYLES.index("stained glass")]


def test_shards_hold_the_pictures_and_labels_of_their_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SHARD", 3)
    for number in range(2):
        pictures._draw_shard((tmp_path, number))
    found, rows = load_shards(tmp_path, 6)
    assert [len(shard) for shard in found] == [3, 3]
    assert np.array_equal(found[1][2], np.asarray(draw(training_scene(5))))
    assert rows[5].tolist() == pytest.approx(labels(training_scene(5)))
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 4
    times = [path.stat().st_mtime_ns for path in drawn]
    pictures._draw_shard((tmp_path, 0))
    assert [path.stat().st_mtime_ns for path in drawn] == times

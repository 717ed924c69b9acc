from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from limner.builtin.pictures import TABLE, draw_pictures
from limner.builtin.world import caption, draw, draw_mask, held_out, scene_at
from limner.builtin.world.facts import attributes
from limner.core.errors import UserError
from limner.data.masks import Masks, with_masks
from limner.data.table import Table

COUNT, CAPTIONS = 70, 4  # more than one process draws at once


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_pictures(folder, count=COUNT, seed=1, captions=CAPTIONS, side=32)
    return folder


def test_the_number_of_processes_changes_nothing_and_the_seed_everything(drawn: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    draw_pictures(
        tmp_path / "two",
        count=COUNT,
        seed=1,
        captions=CAPTIONS,
        side=32,
        processes=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert bytes_of(tmp_path / "two") == bytes_of(drawn)
    assert told == [(COUNT, COUNT)]
    draw_pictures(tmp_path / "other", count=5, seed=2, captions=CAPTIONS, side=32)
    one, other = bytes_of(drawn), bytes_of(tmp_path / "other")
    assert all(other[name] != one[name] for name in other)


def test_limner_reads_the_table_that_is_written(drawn: Path) -> None:
    reading = Table(path=drawn).read()
    assert len(reading.examples) == COUNT
    assert {row.reason for row in reading.left_out} == {"a mask by its name"}
    assert not reading.notes
    assert [example.id for example in reading.examples][-1] == f"000/{COUNT - 1:06d}.png"
    assert {len(example.captions) for example in reading.examples} == {CAPTIONS}


def test_each_picture_has_its_mask_beside_it(drawn: Path) -> None:
    reading = with_masks(Table(path=drawn).read(), Masks(source="files"))
    assert not reading.left_out
    for position, example in enumerate(reading.examples):
        assert example.mask is not None
        with Image.open(io.BytesIO(example.mask.read())) as mask:
            assert mask.tobytes() == draw_mask(scene_at(1, position), 32).tobytes()


def test_a_call_that_was_stopped_continues(drawn: Path, tmp_path: Path) -> None:
    draw_pictures(tmp_path, count=9, seed=1, captions=1, side=32)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    next(iter(first)).unlink()
    (tmp_path / TABLE).unlink()
    draw_pictures(tmp_path, count=COUNT, seed=1, captions=CAPTIONS, side=32)
    assert bytes_of(tmp_path) == bytes_of(drawn)
    kept = [path for path, time in first.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == 2 * 9 - 1


@pytest.mark.parametrize("change", [{"seed": 2}, {"side": 48}, {"split": "test"}, {"styles": ("stained glass",)}])
def test_pictures_of_another_call_are_not_taken_for_its_own(
    drawn: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    draw_pictures(tmp_path, count=3, seed=1, captions=1, side=32)
    before = bytes_of(tmp_path)
    arguments = {"count": 3, "seed": 1, "captions": 1, "side": 32} | change
    with pytest.raises(UserError, match=r"000000\.png: is another picture than the one that would be drawn"):
        draw_pictures(tmp_path, **arguments)  # type: ignore[arg-type]
    assert bytes_of(tmp_path) == before


def test_training_shows_trained_combinations_only_and_the_test_one_never_trained_on(
    drawn: Path, tmp_path: Path
) -> None:
    draw_pictures(tmp_path, count=6, seed=1, captions=1, split="test", side=32)
    for folder, split, count in ((drawn, "train", COUNT), (tmp_path, "test", 6)):
        for position in range(count):
            scene = scene_at(1, position, split)  # type: ignore[arg-type]
            with Image.open(folder / f"000/{position:06d}.png") as picture:
                assert picture.tobytes() == draw(scene, 32).tobytes()
            assert bool(held_out(scene)) == (split == "test")


def test_distinct_pictures_are_those_whose_complete_captions_differ(tmp_path: Path) -> None:
    everything = [replace(attributes(scene_at(4, position, "test")), sizes=()) for position in range(64)]
    first = [position for position, one in enumerate(everything) if one not in everything[:position]]
    assert len(first) < 64  # some scene comes again, else this shows nothing
    count = len(first)
    draw_pictures(tmp_path, count=count, seed=4, captions=1, split="test", distinct=True, side=32)
    rows = [json.loads(line) for line in (tmp_path / TABLE).read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"000/{number:06d}.png" for number in range(count)]
    for row, position in zip(rows, first, strict=True):
        scene = scene_at(4, position, "test")
        assert row["captions"] == [caption(scene, random.Random(f"4 {position} 0"), complete=True)]
        with Image.open(tmp_path / row["file_name"]) as picture:
            assert picture.tobytes() == draw(scene, 32).tobytes()


def test_every_second_wording_is_complete(drawn: Path) -> None:
    rows = [json.loads(line) for line in (drawn / TABLE).read_text().splitlines()]
    shorter = 0
    for position, row in enumerate(rows):
        assert row["file_name"] == f"000/{position:06d}.png"
        scene = scene_at(1, position)
        for number, wording in enumerate(row["captions"]):
            complete, free = (
                caption(scene, random.Random(f"1 {position} {number}"), complete=whole) for whole in (True, False)
            )
            assert wording == (free if number % 2 else complete)
            shorter += number % 2 == 1 and free != complete
    assert shorter > COUNT // 2

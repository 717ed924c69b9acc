"""The judge reads what hand-made maps say, in reading order, at any size, and refuses weights of another world."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from limner.builtin.judge import Judge, Reading, Seen, load_judge
from limner.builtin.judge.__main__ import blurred
from limner.builtin.judge.examination import shares
from limner.builtin.judge.network import GRID, Maps, judge_network, look
from limner.builtin.judge.pictures import ALL_STYLES, SEEN_KINDS, exam_scene
from limner.builtin.judge.reading import THRESHOLD, WEIGHTS, WORLD, in_reading_order, is_kept, readings_of
from limner.builtin.judge.training import save_weights
from limner.builtin.world import BACKGROUNDS, COLOURS, Scene, draw, scene_at
from limner.core.errors import UserError

LEAST = 0.99
"""What the shipped weights reach at least in each attribute."""


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def seen(x: float, y: float, kind: str = "cat") -> Seen:
    return Seen(kind, "red", x, y, 1.0)


def empty_maps(count: int = 1) -> Maps:
    def cells(channels: int) -> torch.Tensor:
        return torch.zeros(count, channels, GRID, GRID)

    return Maps(
        cells(1) - 9,
        cells(2),
        cells(len(SEEN_KINDS)),
        cells(len(COLOURS)),
        torch.zeros(count, len(BACKGROUNDS)),
        torch.zeros(count, len(ALL_STYLES)),
    )


def put(maps: Maps, row: int, column: int, kind: str, colour: str, heat: float = 4.0) -> None:
    maps.heat[0, 0, row, column] = heat
    maps.kind[0, SEEN_KINDS.index(kind), row, column] = 5
    maps.colour[0, COLOURS.index(colour), row, column] = 5


def test_things_are_put_in_rows_from_the_top_each_from_left_to_right() -> None:
    rows = (seen(0.3, 0.24), seen(0.7, 0.2), seen(0.5, 0.8))
    assert in_reading_order((rows[2], rows[1], rows[0])) == rows
    column = (seen(0.6, 0.2), seen(0.4, 0.8))
    assert in_reading_order(column[::-1]) == column
    row = (seen(0.2, 0.52), seen(0.5, 0.46), seen(0.8, 0.5))
    assert in_reading_order((row[1], row[2], row[0])) == row


def test_the_true_centres_of_scenes_are_in_the_scenes_order() -> None:
    for position in range(300):
        centres = [(thing.x, thing.y) for thing in exam_scene(position).things]
        mixed = [seen(x, y) for x, y in centres]
        random.Random(position).shuffle(mixed)
        assert [(thing.x, thing.y) for thing in in_reading_order(mixed)] == centres


def test_a_peak_is_a_thing_with_what_is_said_at_its_cell() -> None:
    maps = empty_maps()
    put(maps, 3, 8, "boat", "green")
    maps.offset[0, :, 3, 8] = torch.tensor([0.25, -0.5])
    maps.background[0, BACKGROUNDS.index("snow")] = 1
    maps.style[0, ALL_STYLES.index("stained glass")] = 1
    (reading,) = readings_of(maps)
    assert (reading.background, reading.style, reading.count) == ("snow", "stained glass", 1)
    thing = reading.things[0]
    assert (thing.kind, thing.colour, thing.x, thing.y) == ("boat", "green", 8.75 / GRID, 3.0 / GRID)
    assert thing.score == pytest.approx(torch.tensor(4.0).sigmoid().item())


def test_neighbours_of_a_peak_and_faint_peaks_are_no_things() -> None:
    maps = empty_maps()
    put(maps, 5, 5, "cat", "red", heat=4)
    put(maps, 5, 6, "dog", "red", heat=3)
    put(maps, 10, 10, "owl", "red", heat=torch.logit(torch.tensor(THRESHOLD)).item() - 0.01)
    put(maps, 12, 3, "key", "red", heat=torch.logit(torch.tensor(THRESHOLD)).item() + 0.01)
    assert [thing.kind for thing in readings_of(maps)[0].things] == ["cat", "key"]


def test_pictures_of_a_batch_are_kept_apart() -> None:
    maps = empty_maps(2)
    put(maps, 5, 5, "cat", "red")
    first, second = readings_of(maps)
    assert (first.count, second.count) == (1, 0)


def test_the_network_gives_maps_of_the_grid() -> None:
    maps = look(judge_network().eval(), torch.zeros(2, 3, 128, 128))
    assert {name: tuple(value.shape) for name, value in vars(maps).items()} == {
        name: tuple(value.shape) for name, value in vars(empty_maps(2)).items()
    }


def test_no_pictures_no_readings(judge: Judge) -> None:
    assert judge.read([]) == []


def test_a_picture_of_another_size_or_mode_is_read_the_same(judge: Judge) -> None:
    scene = scene_at(5, 3)
    expected = judge.read([draw(scene)])[0]
    alpha = draw(scene).convert("RGBA")
    for other in (draw(scene, 256), draw(scene).resize((320, 320), Image.Resampling.BICUBIC), alpha):
        reading = judge.read([other])[0]
        assert (reading.background, reading.style) == (expected.background, expected.style)
        assert reading.count == expected.count
        for mine, theirs in zip(reading.things, expected.things, strict=True):
            assert (mine.kind, mine.colour) == (theirs.kind, theirs.colour)
            assert (mine.x, mine.y) == pytest.approx((theirs.x, theirs.y), abs=0.02)


def test_how_pictures_are_batched_changes_nothing(judge: Judge) -> None:
    pictures = [draw(scene_at(6, position)) for position in range(5)]
    together, alone = judge.read(pictures, batch_size=2), [judge.read([picture])[0] for picture in pictures]
    for mine, theirs in zip(together, alone, strict=True):
        assert [(thing.kind, thing.colour) for thing in mine.things] == [
            (thing.kind, thing.colour) for thing in theirs.things
        ]
        assert replace(mine, things=()) == replace(theirs, things=())


def test_missing_weights_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights are missing.*python -m limner.builtin.judge"):
        load_judge(tmp_path / "judge.safetensors")


def test_a_file_that_is_no_safetensors_file_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="no safetensors file"):
        load_judge(path)


@pytest.mark.parametrize("name", WORLD)
def test_a_judge_of_another_world_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "judge.safetensors"
    state = {key: value for key, value in judge_network().state_dict().items() if is_kept(key)}
    save_file(state, path, metadata=WORLD)
    load_judge(path)
    save_file(state, path, metadata=WORLD | {name: json.dumps(json.loads(WORLD[name])[::-1])})
    with pytest.raises(UserError, match=f"another world: its {name} are not"):
        load_judge(path)
    save_file(state, path)
    with pytest.raises(UserError, match="another world"):
        load_judge(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    state = {key: value for key, value in judge_network().state_dict().items() if is_kept(key)}
    del state["style.bias"]
    save_file(state, path, metadata=WORLD)
    with pytest.raises(UserError, match="another network"):
        load_judge(path)


def test_saved_weights_give_the_same_readings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = judge_network()
    network["cells"].bias.data[0] = 3
    path = tmp_path / "weights" / "judge.safetensors"
    save_weights(network, path)
    picture = draw(scene_at(7, 0))
    (direct,), (loaded,) = Judge(network).read([picture]), load_judge(path).read([picture])
    assert (loaded.background, loaded.style) == (direct.background, direct.style)
    assert [thing.kind for thing in loaded.things] == [thing.kind for thing in direct.things]
    assert loaded.count > 0


def test_the_shipped_weights_are_small_and_in_half_precision() -> None:
    assert WEIGHTS.stat().st_size <= 3_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def examined(judge: Judge, seed: int, count: int, *, soft: bool) -> dict[str, float]:
    scenes: list[Scene] = [exam_scene(position, seed) for position in range(count)]
    pictures = [blurred(draw(scene)) if soft else draw(scene) for scene in scenes]
    readings: list[Reading] = judge.read(pictures)
    return {name: rights / asked for name, (rights, asked) in shares(scenes, readings).items()}


def test_the_shipped_judge_is_right_on_fresh_pictures(judge: Judge) -> None:
    found = examined(judge, 41, 300, soft=False)
    assert all(share >= LEAST for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
def test_the_shipped_judge_is_right_on_two_thousand_pictures(judge: Judge, soft: bool) -> None:
    found = examined(judge, 42, 2010, soft=soft)
    assert all(share >= LEAST for share in found.values()), found

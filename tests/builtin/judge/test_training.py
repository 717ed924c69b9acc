"""Training: labels move with their pictures, losses fall where the maps are right, a killed run goes on as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from limner.builtin.judge import __main__ as command
from limner.builtin.judge import load_judge, pictures, training
from limner.builtin.judge.network import GRID, Maps
from limner.builtin.judge.pictures import ALL_STYLES, LABELS, SEEN_KINDS, labels, load_shards, training_scene
from limner.builtin.judge.training import (
    Truth,
    changed,
    heat_loss,
    learn,
    load_checkpoint,
    losses,
    positions,
    pupil,
    rate,
    save_checkpoint,
    softened,
    truth,
)
from limner.builtin.world import BACKGROUNDS, COLOURS, SIDE


def spots(count: int) -> tuple[torch.Tensor, Truth]:
    """Returns black pictures with one white spot each, and where it is."""
    rows = np.full((count, LABELS), -1, np.float32)
    pixels = torch.full((count, 3, SIDE, SIDE), -1.0)
    rng = np.random.default_rng(0)
    for index in range(count):
        column, row = rng.integers(20, SIDE - 20, 2)
        pixels[index, :, row - 2 : row + 2, column - 2 : column + 2] = 1
        rows[index, :4] = 0, 0, column / SIDE, row / SIDE
        rows[index, -2:] = 0
    return pixels, truth(rows)


def test_things_stay_where_the_labels_say_when_pictures_are_changed() -> None:
    pixels, true = spots(40)
    seen, new = changed(pixels, true, torch.Generator().manual_seed(0))
    light = (seen.mean(dim=1) + 0.3).clamp(min=0)
    middles = (torch.arange(SIDE) + 0.5) / SIDE
    x = (light.sum(dim=1) * middles).sum(dim=1) / light.sum(dim=(1, 2))
    y = (light.sum(dim=2) * middles).sum(dim=1) / light.sum(dim=(1, 2))
    assert (x - new.x[:, 0]).abs().max() < 0.012
    assert (y - new.y[:, 0]).abs().max() < 0.012
    mirrored = (new.x[:, 0] - (1 - true.x[:, 0])).abs() < (new.x[:, 0] - true.x[:, 0]).abs()
    assert 8 < mirrored.sum() < 32
    assert seen.min() >= -1
    assert seen.max() <= 1


def test_changes_follow_the_generator_alone() -> None:
    pixels, true = spots(4)
    first, again, other = (changed(pixels, true, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_softening_spreads_light_and_keeps_its_sum() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 16, 16] = 1
    soft = softened(pixels, 1.2)
    assert soft.sum().item() == pytest.approx(3, rel=1e-4)
    assert soft[0, 0, 16, 16] < 0.2
    assert torch.allclose(soft, soft.transpose(2, 3))
    assert torch.allclose(softened(torch.full((1, 3, 8, 8), 0.3), 1.2), torch.tensor(0.3))


def right_maps(true: Truth) -> Maps:
    """Returns maps that tell the truth about one thing in each picture."""
    count = len(true.kind)

    def cells(channels: int, chosen: torch.Tensor) -> torch.Tensor:
        return (torch.nn.functional.one_hot(chosen.clamp(min=0), channels) * 20.0)[..., None, None].repeat(
            1, 1, GRID, GRID
        )

    x, y = true.x[:, 0] * GRID, true.y[:, 0] * GRID
    heat = torch.full((count, 1, GRID, GRID), -20.0)
    heat[torch.arange(count), 0, y.long(), x.long()] = 20
    offset = torch.stack([x - x.long() - 0.5, y - y.long() - 0.5], dim=1)[..., None, None].repeat(1, 1, GRID, GRID)
    return Maps(
        heat,
        offset,
        cells(len(SEEN_KINDS), true.kind[:, 0]),
        cells(len(COLOURS), true.colour[:, 0]),
        torch.nn.functional.one_hot(true.background, len(BACKGROUNDS)) * 20.0,
        torch.nn.functional.one_hot(true.style, len(ALL_STYLES)) * 20.0,
    )


def test_right_maps_cost_nothing_and_each_mistake_costs_its_own_loss() -> None:
    _, true = spots(4)
    maps = right_maps(true)
    assert all(value < 1e-4 for value in losses(maps, true).values())
    for name in ("kind", "colour", "background", "style", "offset", "heat"):
        found = losses(replace(maps, **{name: getattr(maps, name).roll(1, dims=1 if name != "heat" else 2)}), true)
        worse = {key for key, value in found.items() if value > 0.01}
        assert worse == {name}, found


def test_the_sitters_colour_is_not_asked_for() -> None:
    _, true = spots(2)
    colour = true.colour.clone()
    colour[0, 0] = -1
    maps = right_maps(true)
    maps.colour[0] = maps.colour[0].roll(1, dims=0)
    assert losses(maps, true)["colour"] > 1
    assert losses(maps, replace(true, colour=colour))["colour"] < 1e-4


def test_missing_a_centre_costs_more_than_a_glow_beside_it() -> None:
    x, y, there = torch.full((1, 1), 8.5), torch.full((1, 1), 8.5), torch.tensor([[True]])
    right = torch.full((1, GRID, GRID), -9.0)
    right[0, 8, 8] = 9
    missed = torch.full((1, GRID, GRID), -9.0)
    glow, far = right.clone(), right.clone()
    glow[0, 8, 9], far[0, 2, 2] = 1.0, 1.0
    costs = [heat_loss(heat, x, y, there).item() for heat in (right, glow, far, missed)]
    assert costs == sorted(costs)
    assert costs[0] < 0.01 < costs[1] < costs[2] / 2


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate(step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert 50 <= top <= 70
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-7


def test_each_pass_shows_every_picture_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "BATCH", 8)
    seen = [index for step in range(5) for index in positions(step, 20)]
    assert Counter(seen[:20]) == Counter(range(20)) == Counter(seen[20:])
    assert seen[:20] != seen[20:]


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a cache with eight pictures, of which a step sees four."""
    monkeypatch.setattr(pictures, "SHARD", 4)
    monkeypatch.setattr(training, "SHARD", 4)
    monkeypatch.setattr(training, "BATCH", 4)
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        pictures._draw_shard((tmp_path / "pictures", number))
    return tmp_path


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(small_world: Path) -> None:
    data = load_shards(small_world / "pictures", 8)
    straight, broken, resumed = pupil(), pupil(), pupil()
    list(learn(straight, *data, steps=4))
    for _ in learn(broken, *data, steps=4):
        if broken.step == 2:
            break
    save_checkpoint(broken, small_world / "checkpoint.safetensors")
    load_checkpoint(resumed, small_world / "checkpoint.safetensors")
    assert len(list(learn(resumed, *data, steps=4))) == 2
    for one, other in ((straight.network, resumed.network), (straight.average, resumed.average)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.slow
def test_learning_lowers_the_losses(small_world: Path) -> None:
    data = load_shards(small_world / "pictures", 8)
    found = [sum(line.values()) for line in learn(pupil(), *data, steps=30)]
    assert np.mean(found[-4:]) < 0.5 * np.mean(found[:4])


def test_the_command_goes_on_from_its_checkpoint_and_writes_weights_that_load(
    small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_world / "judge.safetensors"
    command.train(small_world, 8, 1, out)
    first = load_file(out)
    load_judge(out)
    command.train(small_world, 8, 1, out)
    assert "going on after step 1" in capsys.readouterr().out
    assert all(torch.equal(value, first[name]) for name, value in load_file(out).items())


def test_labels_become_truth() -> None:
    scene = training_scene(1)
    true = truth(np.array([labels(scene)], np.float32))
    there = [SEEN_KINDS[kind] for kind in true.kind[0].tolist() if kind >= 0]
    assert there == [thing.kind for thing in scene.things]
    assert true.x[0, 0].item() == pytest.approx(scene.things[0].x)
    assert (BACKGROUNDS[true.background], ALL_STYLES[true.style]) == (scene.background, scene.style)

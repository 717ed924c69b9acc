from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limner.core.errors import NonFiniteError, UserError
from limner.core.rundir import RunDir
from limner.training.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint
from limner.training.ema import Ema
from limner.training.loop import TrainState
from tests.processes import clean_processes


def state(size: int = 8) -> TrainState:
    torch.manual_seed(0)
    params = {"w": torch.nn.Parameter(torch.randn(size, size)), "b": torch.nn.Parameter(torch.randn(size))}
    optimizer = torch.optim.AdamW([{"params": [params["w"]], "lr": 0.1}, {"params": [params["b"]], "lr": 0.2}])
    return TrainState(params, optimizer, (0.1, 0.2), Ema(params, 0.9), None)


def advance(one: TrainState) -> None:
    for name, parameter in one.params.items():
        parameter.grad = torch.full_like(parameter, 0.1 * len(name)) * (one.step + 1)
    one.optimizer.step()
    one.step += 1
    assert one.ema is not None
    one.ema.update(one.params, one.step)


IDENTITY = {"config.seed": 0, "data": "abc"}


def test_what_is_saved_comes_back_and_goes_on_the_same(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    for _ in range(3):
        advance(one)
    folder = save_checkpoint(run, one, IDENTITY)
    again = state()
    load_checkpoint(folder, again, IDENTITY)
    for each in (one, again):
        advance(each)
    assert again.step == one.step == 4
    assert one.ema is not None
    assert again.ema is not None
    for name in one.params:
        assert torch.equal(one.params[name], again.params[name])
        assert torch.equal(one.ema.averages[name], again.ema.averages[name])


def test_the_averages_are_kept_beside_the_weights(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    advance(one)
    advance(one)
    kept = load_file(save_checkpoint(run, one, IDENTITY) / "ema.safetensors")
    assert one.ema is not None
    assert torch.equal(kept["w"], one.ema.averages["w"])
    assert not torch.equal(kept["w"], one.params["w"])


def test_only_the_newest_stay_and_a_whole_one_is_not_written_again(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    for _ in range(4):
        advance(one)
        save_checkpoint(run, one, IDENTITY)
    prune_checkpoints(run, keep=2)
    assert run.checkpoint_steps() == [3, 4]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step_000003", "step_000004"]
    before = (run.checkpoint(4) / "state.json").stat().st_mtime_ns
    save_checkpoint(run, one, IDENTITY)
    assert (run.checkpoint(4) / "state.json").stat().st_mtime_ns == before


def test_differences_are_all_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    advance(one)
    folder = save_checkpoint(run, one, {**IDENTITY, "old": 1})
    other = state()
    before = other.params["w"].detach().clone()
    with pytest.raises(UserError) as caught:
        load_checkpoint(folder, other, {"config.seed": 1, "data": "abc", "new": True})
    for part in ("config.seed: the checkpoint has 0, this run has 1", "old: the checkpoint has 1", "new:"):
        assert part in str(caught.value)
    assert "data:" not in str(caught.value)
    assert torch.equal(other.params["w"], before)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "step": "x"}', "\x00"]
)
def test_a_damaged_state_file_is_a_sentence(tmp_path: Path, text: str) -> None:
    run, one = RunDir(tmp_path), state()
    advance(one)
    folder = save_checkpoint(run, one, IDENTITY)
    (folder / "state.json").write_text(text)
    with pytest.raises(UserError, match="Remove this folder"):
        load_checkpoint(folder, state(), IDENTITY)


def _save_on_a_full_disk(root: Path, results: Any) -> None:
    run, one = RunDir(root), state(size=64)
    advance(one)
    save_checkpoint(run, one, IDENTITY)
    advance(one)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, 20_000)
    )  # no file may grow beyond: the weights fit, half of Adam
    try:
        save_checkpoint(run, one, IDENTITY)
    except UserError as error:
        results.put(str(error))
    else:
        results.put("saved")


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(tmp_path: Path) -> None:
    context = clean_processes()
    results = context.Queue()
    process = context.Process(target=_save_on_a_full_disk, args=(tmp_path, results))
    process.start()
    message = results.get(timeout=60)
    process.join()
    assert "the checkpoint of step 2 could not be written" in message
    assert "--resume" in message
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]
    again = state(size=64)
    load_checkpoint(RunDir(tmp_path).checkpoint(1), again, IDENTITY)
    assert again.step == 1


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    advance(one)
    one.params["b"].data[0] = float("nan")
    with pytest.raises(NonFiniteError, match="step 1: weights are not finite, the first is b"):
        save_checkpoint(run, one, IDENTITY)
    assert run.checkpoint_steps() == []


def test_what_a_kill_left_half_written_or_half_removed_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    run, one = RunDir(tmp_path), state()
    for rest in (".step_000007.part", ".step_000001.old"):
        (run.checkpoints / rest).mkdir(parents=True)
    advance(one)
    save_checkpoint(run, one, IDENTITY)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_000001"]

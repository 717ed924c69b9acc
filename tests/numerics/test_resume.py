"""A run that was killed and taken up again equals one that never stopped, bit for bit."""

from __future__ import annotations

import json
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics
from limner.models.probe import difference, probe_autoencoder
from limner.models.sd1 import SD1
from limner.run import finetune
from tests.numerics.conftest import run_config
from tests.processes import clean_processes
from tests.tiny import save_tiny

TIMES = ("seconds", "images_per_second")


def assert_same_run(one: RunDir, other: RunDir) -> None:
    """Weights, averages, optimizer, log, and exported files where there are any: every bit of them."""
    assert one.checkpoint_steps()[-1] == other.checkpoint_steps()[-1]
    step = one.checkpoint_steps()[-1]
    for name in ("weights.safetensors", "optimizer.safetensors", "ema.safetensors"):
        mine, theirs = (load_file(run.checkpoint(step) / name) for run in (one, other))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name
    saved = [json.loads((run.checkpoint(step) / "state.json").read_text()) for run in (one, other)]
    for name in ("optimizer", "scaler", "skipped", "proved", "identity"):
        assert saved[0][name] == saved[1][name], name
    logs = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(run.metrics)]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == list(range(1, step + 1))
    exports = [sorted(run.export.rglob("*.safetensors")) for run in (one, other)]
    assert len(exports[0]) == len(exports[1])
    for mine_path, their_path in zip(*exports, strict=True):
        mine, theirs = load_file(mine_path), load_file(their_path)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def child(config: dict[str, Any], resume: bool, errors: Any) -> None:
    torch.set_num_threads(1)
    try:
        finetune(RunConfig.model_validate(config), resume=resume)
    except Exception as error:
        errors.put(repr(error))
        raise


CONTEXT = clean_processes()


def start(config: RunConfig, *, resume: bool) -> tuple[BaseProcess, Any]:
    errors = CONTEXT.Queue()
    process = CONTEXT.Process(target=child, args=(config.model_dump(mode="json"), resume, errors))
    process.start()
    return process, errors


def run_to_the_end(config: RunConfig, *, resume: bool = False) -> None:
    process, errors = start(config, resume=resume)
    process.join(120)
    assert process.exitcode == 0, errors.get(timeout=5)


def kill_at_random_moments(config: RunConfig, *, kills: int, seed: int) -> list[int]:
    """Kills the run ``kills`` times, each time somewhere in a step; returns the steps at which it died."""
    rng = random.Random(seed)
    run, died = RunDir(config.out), []
    resume = False
    for _ in range(kills):
        reached = len(read_metrics(run.metrics))
        process, errors = start(config, resume=resume)
        deadline = time.monotonic() + 120
        while len(read_metrics(run.metrics)) < min(reached + 1, config.train.steps or 0):
            assert process.is_alive(), errors.get(timeout=5)
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.random() * 0.4)
        process.kill()
        process.join()
        died.append(len(read_metrics(run.metrics)))
        resume = True
    return died


def check_kills(tmp_path: Path, model: Path, data: Path, *, kills: int, steps: int, seed: int) -> None:
    train = {"steps": steps}
    whole = run_config(model, data, tmp_path / "whole", train=train, export=None)
    run_to_the_end(whole)
    assert list(RunDir(whole.out).export.rglob("*.safetensors"))
    killed = run_config(model, data, tmp_path / "killed", train=train, export=None)
    died = kill_at_random_moments(killed, kills=kills, seed=seed)
    assert any(0 < step < steps for step in died)
    run_to_the_end(killed, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(killed.out))


def test_a_run_killed_twice_equals_one_that_never_stopped(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    check_kills(tmp_path, tiny_model, drawings, kills=2, steps=8, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_ten_times_equals_one_that_never_stopped(
    tmp_path: Path, tiny_model: Path, drawings: Path, seed: int
) -> None:
    check_kills(tmp_path, tiny_model, drawings, kills=10, steps=30, seed=seed)


METHODS: dict[str, dict[str, Any]] = {
    "lora with text encoder": {"method": {"kind": "lora", "text_encoder": True}},
    "loha in bf16": {
        "method": {"kind": "loha", "targets": ["to_q", "conv1"], "text_encoder": True},
        "train": {"precision": "bf16"},
    },
    "lokr in bf16": {"method": {"kind": "lokr", "targets": ["to_q", "conv1"]}, "train": {"precision": "bf16"}},
    "dora on convolutions": {"method": {"kind": "lora", "dora": True, "targets": ["to_q", "conv1", "conv"]}},
    "full": {"method": {"kind": "full", "text_encoder": True}},
    "decoder": {"method": {"kind": "autoencoder"}, "objective": {"kind": "reconstruction"}},
    "autoencoder": {"method": {"kind": "autoencoder", "encoder": True}, "objective": {"kind": "reconstruction"}},
    "preservation, lora": {
        "method": {"kind": "lora", "text_encoder": True, "dropout": 0.1},
        "objective": {"preservation": {"prompt": "a photo of a dog"}},
    },
    "preservation, full, fp16": {
        "method": {"kind": "full"},
        "objective": {"preservation": {"prompt": "a photo of a dog"}},
        "train": {"precision": "fp16", "gradient_checkpointing": True},
    },
    "bf16": {"train": {"precision": "bf16"}},
    "fp16": {"train": {"precision": "fp16"}},
    "adafactor": {"optimizer": {"kind": "adafactor", "lr": 1e-3}},
    "prodigy": {"optimizer": {"kind": "prodigy", "lr": 1.0}},
    "adamw8bit": {"optimizer": {"kind": "adamw8bit", "lr": 1e-3}},
    "new word": {
        "method": {"kind": "textual_inversion", "token": "glass", "vectors": 2, "initialise": "dog"},
        "objective": {"caption_dropout": 0.0},
    },
    "pivotal": {"method": {"kind": "pivotal", "token": "glass", "initialise": "dog", "lora": {"text_encoder": True}}},
    "checkpointed": {"train": {"gradient_checkpointing": True}},
    "no cache": {"cache": {"latents": False, "captions": False}},
}


class Interrupt(Exception):
    pass


class StopAt:
    """A listener that ends a run after a step, as an exception from outside would."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, line: Any, steps: int) -> None:
        if line["step"] == self.at:
            raise Interrupt

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def table(self, title: str, rows: Any) -> None: ...
    def stage(self, name: str, done: int, total: int) -> None: ...


OFTEN = ("lora with text encoder", "full", "decoder", "pivotal")
"""One of each kind of weights; every method in every precision stands in test_combinations.py too."""


@pytest.mark.parametrize(
    "changes",
    [pytest.param(one, id=name, marks=[] if name in OFTEN else pytest.mark.slow) for name, one in METHODS.items()],
)
def test_every_way_to_train_resumes_bit_for_bit(
    tmp_path: Path, tiny_model: Path, drawings: Path, changes: dict[str, Any]
) -> None:
    steps = {"train": {**changes.get("train", {}), "steps": 5}}
    whole = run_config(tiny_model, drawings, tmp_path / "whole", **{**changes, **steps})
    finetune(whole)
    broken = run_config(tiny_model, drawings, tmp_path / "broken", **{**changes, **steps})
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(3))
    finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))


@pytest.fixture
def stopped(tmp_path: Path, tiny_model: Path, drawings: Path) -> RunConfig:
    config = run_config(tiny_model, drawings, tmp_path / "run")
    with pytest.raises(Interrupt):
        finetune(config, progress=StopAt(5))
    assert RunDir(config.out).checkpoint_steps() == [2, 4]
    return config


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    values = config.model_dump(mode="json")
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(values)


def test_a_checkpoint_of_another_run_is_refused_with_every_difference(stopped: RunConfig) -> None:
    other = changed(stopped, seed=4, optimizer={"lr": 2e-3})
    with pytest.raises(UserError) as caught:
        finetune(other, resume=True)
    assert "config.seed: the checkpoint has 3, this run has 4" in str(caught.value)
    assert "config.optimizer.lr: the checkpoint has 0.001, this run has 0.002" in str(caught.value)


def test_changed_data_are_refused(stopped: RunConfig, drawings: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(drawings, copy)
    (copy / "03.txt").write_text("something else\n")
    with pytest.raises(UserError, match="data: the checkpoint has"):
        finetune(changed(stopped, dataset={"path": str(copy)}), resume=True)


def test_data_and_model_that_only_moved_are_accepted(
    stopped: RunConfig, drawings: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(drawings, tmp_path / "moved")
    shutil.copytree(tiny_model, tmp_path / "model")
    moved = changed(stopped, dataset={"path": str(tmp_path / "moved")}, model={"path": str(tmp_path / "model")})
    assert finetune(moved, resume=True).step == 8


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_continues(stopped: RunConfig) -> None:
    import shutil

    run = RunDir(stopped.out)
    path = run.checkpoint(4) / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"step_000004: weights\.safetensors was changed or damaged"):
        finetune(stopped, resume=True)
    path.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors is missing"):
        finetune(stopped, resume=True)
    shutil.rmtree(run.checkpoint(4))
    assert finetune(stopped, resume=True).step == 8


def test_nothing_to_continue_and_something_to_overwrite_are_errors(stopped: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a run already, at step 4"):
        finetune(stopped)
    with pytest.raises(UserError, match="no checkpoint to continue from"):
        finetune(changed(stopped, out=str(tmp_path / "other")), resume=True)


def test_a_run_that_is_done_can_be_continued_to_no_effect_but_not_shortened(stopped: RunConfig) -> None:
    constant = changed(stopped, out=str(stopped.out) + "2", schedule={"kind": "constant"})
    finetune(constant)
    before = (RunDir(constant.out).checkpoint(8) / "weights.safetensors").read_bytes()
    assert finetune(constant, resume=True).step == 8
    assert (RunDir(constant.out).checkpoint(8) / "weights.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="stands at step 8, but the run has 6"):
        finetune(changed(constant, train={"steps": 6}), resume=True)


def test_no_checkpoint_holds_a_pickle(stopped: RunConfig) -> None:
    for path in Path(stopped.out).rglob("*"):
        if path.is_file():
            assert path.read_bytes()[:2] != b"PK", path
            assert path.read_bytes()[:2] != b"\x80\x02", path
            assert path.suffix in (".safetensors", ".json", ".jsonl", ".yaml", ".png", ""), path


def test_another_model_and_another_length_are_refused(stopped: RunConfig, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(UserError) as caught:
        finetune(changed(stopped, model={"path": str(other)}, train={"steps": 9}), resume=True)
    for key in (
        "base.denoiser",
        "base.text_encoder",
        "base.autoencoder",
        "steps: the checkpoint has 8, this run has 9",
    ):
        assert key in str(caught.value)


def test_with_dropout_the_micro_batches_must_stay_and_the_precision_always(stopped: RunConfig) -> None:
    with pytest.raises(UserError) as caught:
        finetune(changed(stopped, train={"micro_batch_size": 3, "precision": "bf16"}), resume=True)
    assert "config.train.micro_batch_size: the checkpoint has 2, this run has 3" in str(caught.value)
    assert "precision: the checkpoint has 'fp32', this run has 'bf16'" in str(caught.value)


def test_a_run_is_continued_where_its_schedule_has_nearly_ended(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    config = run_config(
        tiny_model,
        drawings,
        tmp_path / "run",
        method={"kind": "full"},
        optimizer={"lr": 1e-7},
        schedule={"kind": "cosine", "warmup_steps": 0},
        train={"steps": 8, "save_every": 7},
    )
    with pytest.raises(Interrupt):
        finetune(config, progress=StopAt(8))  # before the checkpoint of step 8: the rate of the last step is 4e-9
    assert finetune(config, resume=True).step == 8


def test_an_autoencoder_stopped_after_two_of_three_steps_has_the_probe_of_one_that_never_stopped(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    chosen: dict[str, Any] = {
        "method": {"kind": "autoencoder"},
        "objective": {"kind": "reconstruction"},
        "train": {"steps": 3, "save_every": 1},
        "export": None,
    }
    whole = finetune(run_config(tiny_model, drawings, tmp_path / "whole", **chosen))
    broken = run_config(tiny_model, drawings, tmp_path / "broken", **chosen)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(2))
    assert RunDir(broken.out).checkpoint_steps()[-1] < 3
    resumed = finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))
    assert resumed.change == whole.change
    base, *exports = (
        probe_autoencoder(SD1(path=str(path)).load().vae, side=16)
        for path in (tiny_model, whole.exports[0].path, resumed.exports[0].path)
    )
    assert torch.equal(exports[0], exports[1])
    assert difference(exports[0], base).relative > 1e-4

"""A run with a held-out part: training is the same, it ends in time, exports the best, and resumes exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import limner
from limner.config import RunConfig
from limner.core.rundir import RunDir, read_metrics
from limner.models.sd1 import SD1
from limner.run import finetune
from limner.training.course import Measurement
from limner.training.precision import Precision
from tests.numerics.conftest import run_config
from tests.numerics.test_resume import TIMES, Interrupt, StopAt, assert_same_run
from tests.tiny import save_tiny, save_tiny_clip

WORSE = {"method": {"kind": "full"}, "optimizer": {"lr": 0.02}, "schedule": {"kind": "constant", "warmup_steps": 0}}
"""A rate so high that the loss on held-out pictures soon grows."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from limner.builtin.drawings import draw_folder

    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, count=7)
    return folder


def config(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    validation = {"share": 0.3, "every": 2, "draws": 2, **changes.pop("validation", {})}
    return run_config(model, pictures, out, validation=validation, **changes)


def measured(run: RunDir) -> dict[int, float]:
    lines = [json.loads(line) for line in run.validation.read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def log_of(run: RunDir, *without: str) -> list[dict[str, Any]]:
    left_out = {*TIMES, *without}
    return [{key: value for key, value in line.items() if key not in left_out} for line in read_metrics(run.metrics)]


def weights(run: RunDir, step: int, name: str = "weights") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint(step) / f"{name}.safetensors")
    return found


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Said:
    """A listener that keeps what is said."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[int] = []

    def say(self, text: str) -> None:
        self.texts.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        self.steps.append(line["step"])

    def table(self, title: str, rows: Any) -> None: ...
    def stage(self, name: str, done: int, total: int) -> None: ...


@pytest.mark.parametrize(
    "changes",
    [
        {},  # LoRA with dropout, buckets, running average
        {
            "method": {"kind": "full", "text_encoder": True},
            "train": {"precision": "bf16", "gradient_checkpointing": True},
        },
        {"method": {"kind": "autoencoder"}, "objective": {"kind": "reconstruction"}},
    ],
)
def test_measuring_moves_no_bit_of_the_training(
    model: Path, pictures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    train = {**changes.get("train", {}), "steps": 3, "keep_checkpoints": 9}
    runs = []
    for every in (1, 100):
        out = tmp_path / f"every-{every}"
        finetune(
            config(model, pictures, out, **{**changes, "train": train}, validation={"every": every, "export": "last"})
        )
        runs.append(RunDir(out))
    often, seldom = runs
    assert list(measured(often)) == [0, 1, 2, 3]
    assert list(measured(seldom)) == [0, 3]
    assert measured(often)[0] == measured(seldom)[0]
    assert measured(often)[3] == measured(seldom)[3]
    assert len(set(measured(often).values())) > 2
    assert log_of(often, "validation_loss") == log_of(seldom, "validation_loss")
    for name in ("weights", "ema", "optimizer"):
        assert equal(weights(often, 3, name), weights(seldom, 3, name)), name


def test_the_held_out_pictures_are_not_trained_on(model: Path, pictures: Path, tmp_path: Path) -> None:
    with_part = config(model, pictures, tmp_path / "run", train={"steps": 3})
    planned = limner.plan(with_part)
    held = [row.id for row in planned.ledger.rows if row.part == "validation"]
    assert len(held) == 2
    finetune(with_part)
    rows = [json.loads(line) for line in RunDir(with_part.out).ledger.read_text().splitlines()]
    assert [row["id"] for row in rows if row["part"] == "validation"] == held
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    for name in held:
        (others / name).unlink()
        (others / name).with_suffix(".txt").unlink()
    without = run_config(model, others, tmp_path / "without", train={"steps": 3})
    finetune(without)
    assert equal(weights(RunDir(with_part.out), 3), weights(RunDir(without.out), 3))
    epochs = config(model, pictures, tmp_path / "x", train={"steps": None, "epochs": 3})
    assert limner.plan(epochs).steps == 5  # 15 visits of the five others in batches of three
    each = config(model, pictures, tmp_path / "x", train={"steps": None, "steps_per_picture": 10})
    assert limner.plan(each).steps == 50


def test_a_run_that_gets_worse_ends_keeps_its_best_and_exports_it(model: Path, pictures: Path, tmp_path: Path) -> None:
    train = {"steps": 40, "keep_checkpoints": 1, "save_every": 40, "ema_decay": None}
    chosen: dict[str, Any] = {**WORSE, "train": train}
    patient = config(model, pictures, tmp_path / "run", **chosen, export=None, validation={"every": 1, "patience": 3})
    heard = Said()
    result = finetune(patient, progress=heard)
    run, losses = RunDir(result.out), measured(RunDir(result.out))
    best = min((step for step in losses if step > 0), key=lambda step: losses[step])
    assert 0 < best < result.step == best + 3 < 40
    assert losses[best] < losses[0]
    assert heard.steps[-1] == result.step
    assert run.checkpoint_steps() == [best, result.step]
    noted = json.loads(run.best.read_text())
    assert noted["ended"] == f"patience: 3 measurements without a lower loss since step {best}"
    assert noted["exported_checkpoint"] == noted["best_checkpoint"] == f"checkpoints/step_{best:06d}"
    assert (noted["base_loss"], noted["best_loss"], noted["last_loss"]) == (
        losses[0],
        losses[best],
        losses[result.step],
    )
    exported = SD1(path=str(result.exports[0].path)).load().unet.state_dict()
    kept = {name.removeprefix("unet."): value for name, value in weights(run, best).items()}
    assert all(torch.equal(exported[name], kept[name]) for name in kept)
    assert not equal(weights(run, best), weights(run, result.step))
    assert any(f"the weights of step {best} are exported" in text for text in heard.texts)
    assert result.validation is not None
    assert result.as_dict()["validation"]["best_step"] == best
    status = json.loads(run.status.read_text())
    assert (status["state"], status["step"], status["validation"]["best_loss"]) == (
        "finished",
        result.step,
        losses[best],
    )
    assert not any("GENERALISES" in text for text in heard.warnings)
    logged = {line["step"]: line["validation_loss"] for line in read_metrics(run.metrics)}
    assert logged == {step: loss for step, loss in losses.items() if step > 0}

    before = run.best.read_bytes(), run.validation.read_bytes()
    again = Said()
    assert finetune(patient, resume=True, progress=again).step == result.step
    assert again.steps == []
    assert any("has ended" in text and "raise validation.patience" in text for text in again.warnings)
    assert (run.best.read_bytes(), run.validation.read_bytes()) == before

    further = patient.model_copy(update={"train": patient.train.model_copy(update={"keep_checkpoints": 9})})
    assert patient.validation is not None
    more = patient.validation.model_copy(update={"patience": 5})
    longer = further.model_copy(update={"validation": more})
    went_on = finetune(longer, resume=True)
    assert went_on.step > result.step
    whole = finetune(longer.model_copy(update={"out": tmp_path / "whole"}))
    assert measured(run) == measured(RunDir(whole.out))
    assert (run.best.read_text()) == RunDir(whole.out).best.read_text()
    assert equal(weights(run, went_on.step), weights(RunDir(whole.out), whole.step))


def test_export_last_exports_the_last(model: Path, pictures: Path, tmp_path: Path) -> None:
    chosen = {**WORSE, "train": {"steps": 6, "ema_decay": None}}
    last = config(model, pictures, tmp_path / "run", **chosen, export=None, validation={"every": 1, "export": "last"})
    result = finetune(last)
    assert result.validation is not None
    assert result.validation.exported_step == 6 != result.validation.best_step
    assert result.validation.ended == "all 6 steps taken"
    exported = SD1(path=str(result.exports[0].path)).load().unet.state_dict()
    kept = {name.removeprefix("unet."): value for name, value in weights(RunDir(result.out), 6).items()}
    assert all(torch.equal(exported[name], kept[name]) for name in kept)

    assert last.validation is not None
    best = last.model_copy(update={"validation": last.validation.model_copy(update={"export": "best"})})
    step = result.validation.best_step
    shutil.rmtree(RunDir(result.out).checkpoint(step))
    with pytest.raises(limner.UserError, match=rf"the best checkpoint, that of step {step}, is gone"):
        finetune(best, resume=True)


def test_a_run_that_never_beats_the_base_says_so_loudly(model: Path, pictures: Path, tmp_path: Path) -> None:
    heard = Said()
    chosen = {**WORSE, "train": {"steps": 20, "ema_decay": None}, "optimizer": {"lr": 0.5}}
    result = finetune(config(model, pictures, tmp_path / "run", **chosen, validation={"patience": 2}), progress=heard)
    assert result.step == 4
    assert result.validation is not None
    assert result.validation.best_loss > result.validation.base_loss
    assert any("NOTHING WAS LEARNED THAT GENERALISES" in text for text in heard.warnings)


@pytest.mark.parametrize("stop", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_that_was_broken_off_has_the_same_best(model: Path, pictures: Path, tmp_path: Path, stop: int) -> None:
    train = {"steps": 7, "save_every": 3, "keep_checkpoints": 1}
    whole = config(model, pictures, tmp_path / "whole", train=train)
    first = finetune(whole)
    broken = config(model, pictures, tmp_path / "broken", train=train)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(stop))
    second = finetune(broken, resume=True)
    runs = RunDir(whole.out), RunDir(broken.out)
    assert_same_run(*runs)
    assert list(measured(runs[0])) == [0, 2, 4, 6, 7]
    assert runs[0].validation.read_bytes() == runs[1].validation.read_bytes()
    assert runs[0].best.read_bytes() == runs[1].best.read_bytes()
    assert first.validation == second.validation
    assert runs[0].checkpoint_steps() == runs[1].checkpoint_steps()


def test_the_running_average_is_what_is_measured_and_exported(model: Path, pictures: Path, tmp_path: Path) -> None:
    losses = {}
    for decay in (None, 0.9):
        out = tmp_path / f"decay-{decay}"
        heard = Said()
        train, exports = {"steps": 4, "ema_decay": decay}, [{"kind": "peft"}]
        finetune(config(model, pictures, out, train=train, export=exports), progress=heard)
        losses[decay] = measured(RunDir(out))
        assert any(("the running average" in text) == (decay is not None) for text in heard.texts if "step 4:" in text)
    assert losses[None][0] == losses[0.9][0]
    assert losses[None][4] != losses[0.9][4]
    run = RunDir(tmp_path / "decay-0.9")
    best = json.loads(run.best.read_text())["best_step"]
    averaged = weights(run, best, "ema")
    name = next(key for key in averaged if key.endswith("to_q.lora_B.default.weight"))
    exported = load_file(run.export / "peft" / "unet" / "adapter_model.safetensors")
    key = "base_model.model." + name.removeprefix("unet.").replace(".default", "")
    assert torch.equal(exported[key], averaged[name])


def scale(patch: pytest.MonkeyPatch, init: float, **options: Any) -> None:
    """Lets fp16's scaler begin with 2 ** ``init``; 2 ** 10 fits, 2 ** 26 overflows, and it comes down at once."""
    options = {"backoff_factor": 2.0**-16, **options}
    patch.setattr(Precision, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**init, **options))


@pytest.mark.slow
@pytest.mark.parametrize("decay", [None, 0.5])
def test_the_best_checkpoint_is_exported_though_the_scaler_skipped_steps_after_it(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: float | None
) -> None:
    scale(monkeypatch, 10, growth_factor=2.0**16, growth_interval=1)  # each second step overflows
    train = {"steps": 24, "keep_checkpoints": 1, "save_every": 99, "ema_decay": decay, "precision": "fp16"}
    chosen: dict[str, Any] = {**WORSE, "train": train, "export": None, "validation": {"every": 1}}
    result = finetune(config(model, pictures, tmp_path / "run", **chosen))
    run, losses = RunDir(result.out), measured(RunDir(result.out))
    assert result.validation is not None
    best = result.validation.exported_step
    assert best == min((step for step in losses if step > 0), key=lambda step: losses[step])
    assert [line.get("skipped", False) for line in read_metrics(run.metrics)] == [False, True] * 12
    assert losses[best + 1] == losses[best] < losses[24]
    assert run.checkpoint_steps() == [best, 24]
    name = "weights" if decay is None else "ema"
    kept = {key.removeprefix("unet."): value for key, value in weights(run, best, name).items()}
    exported = SD1(path=str(result.exports[0].path)).load().unet.state_dict()
    assert all(torch.equal(exported[key], kept[key]) for key in kept)
    assert not equal(weights(run, best, name), weights(run, 24, name))


def test_a_step_that_the_scaler_skipped_before_any_update_is_not_the_best(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale(monkeypatch, 42)  # two steps overflow
    train = {"steps": 3, "keep_checkpoints": 1, "save_every": 99, "ema_decay": None, "precision": "fp16"}
    chosen: dict[str, Any] = {**WORSE, "train": train, "optimizer": {"lr": 0.1}, "export": None}
    heard = Said()
    result = finetune(
        config(model, pictures, tmp_path / "run", **chosen, validation={"every": 1, "patience": 2}), progress=heard
    )
    run, losses = RunDir(result.out), measured(RunDir(result.out))
    assert [line.get("skipped", False) for line in read_metrics(run.metrics)] == [True, True, False]
    assert losses[0] == losses[1] == losses[2] < losses[3]
    assert result.validation is not None
    assert result.validation.exported_step == result.validation.best_step == 3
    kept = {name.removeprefix("unet."): value for name, value in weights(run, 3).items()}
    exported = SD1(path=str(result.exports[0].path)).load().unet.state_dict()
    assert all(torch.equal(exported[name], kept[name]) for name in kept)
    assert any("NOTHING WAS LEARNED THAT GENERALISES" in text for text in heard.warnings)


def test_another_split_or_another_way_to_measure_is_another_run(model: Path, pictures: Path, tmp_path: Path) -> None:
    begun = config(model, pictures, tmp_path / "run", train={"steps": 4})
    with pytest.raises(Interrupt):
        finetune(begun, progress=StopAt(3))
    assert begun.validation is not None
    for change, says in (({"share": 0.5}, "held_out: the checkpoint has"), ({"draws": 3}, r"validation\.draws")):
        other = begun.model_copy(update={"validation": begun.validation.model_copy(update=change)})
        with pytest.raises(limner.UserError, match=says):
            finetune(other, resume=True)
    with pytest.raises(limner.UserError, match=r"validation"):
        finetune(begun.model_copy(update={"validation": None}), resume=True)
    lines = RunDir(begun.out).validation.read_text().splitlines(keepends=True)
    RunDir(begun.out).validation.write_text("".join(lines[1:]))
    with pytest.raises(limner.UserError, match="does not hold the measurement of step 0"):
        finetune(begun, resume=True)


def test_a_dual_encoder_is_measured_too(pictures: Path, tmp_path: Path) -> None:
    values = {
        "out": tmp_path / "run",
        "model": {"kind": "clip", "path": str(save_tiny_clip(tmp_path / "clip"))},
        "dataset": {"kind": "folder", "path": pictures},
        "images": {"resolution": 32, "buckets": False},
        "method": {"kind": "towers"},
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "train": {"steps": 4, "batch_size": 4, "device": "cpu"},
        "validation": {"share": 0.4, "every": 2},
    }
    result = finetune(RunConfig.model_validate(values))
    assert result.validation is not None
    assert list(measured(RunDir(result.out))) == [0, 2, 4]
    with pytest.raises(limner.UserError, match=r"1 held out"):
        limner.plan(RunConfig.model_validate({**values, "validation": {"share": 0.1}}))
    with pytest.raises(limner.UserError, match=r"validation\.draws: this loss has no noise"):
        limner.plan(RunConfig.model_validate({**values, "validation": {"share": 0.4, "draws": 2}}))


def test_tensorboard_gets_the_validation_loss(model: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged = config(model, pictures, tmp_path / "run", train={"steps": 3}, tensorboard=True)
    finetune(logged)
    events = EventAccumulator(str(RunDir(logged.out).tensorboard))
    events.Reload()
    assert [event.step for event in events.Scalars("validation_loss")] == [2, 3]


def test_a_measurement_is_a_line_with_its_timesteps(model: Path, pictures: Path, tmp_path: Path) -> None:
    result = finetune(config(model, pictures, tmp_path / "run", train={"steps": 3}))
    lines = [json.loads(line) for line in RunDir(result.out).validation.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3]
    for line in lines:
        one = Measurement(**line)
        assert len(one.by_timestep) == 2
        assert sum(one.by_timestep) / 2 == pytest.approx(one.loss)

"""What a whole run leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import limner
from limner.builtin.drawings import draw_folder
from limner.core.rundir import RunDir
from limner.models.adapters import adapter_files
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, count=4)
    return folder


def test_exports_and_samples_hold_the_averaged_weights(model: Path, pictures: Path, tmp_path: Path) -> None:
    config = run_config(
        model,
        pictures,
        tmp_path / "run",
        train={"ema_decay": 0.5, "steps": 4},
        samples={"prompts": ["a boat"], "steps": 2},
        export=[{"kind": "peft"}],
    )
    result = limner.finetune(config)
    run = RunDir(result.out)
    averaged = load_file(run.checkpoint(4) / "ema.safetensors")
    trained = load_file(run.checkpoint(4) / "weights.safetensors")
    exported = load_file(run.export / "peft" / "unet" / "adapter_model.safetensors")
    name = next(key for key in averaged if key.endswith("to_q.lora_B.default.weight"))
    key = "base_model.model." + name.removeprefix("unet.").replace(".default", "")
    assert torch.equal(exported[key], averaged[name])
    assert not torch.equal(exported[key], trained[name])
    assert [path.parent.name for path in sorted(run.samples.rglob("*.png"))] == ["step_000000", "step_000004"]


def test_samples_are_drawn_from_the_same_noise_and_change_with_training(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    samples = {"prompts": ["a boat", "a house"], "steps": 2, "every": 2}
    method = {"kind": "full"}
    config = run_config(model, pictures, tmp_path / "run", method=method, train={"steps": 4}, samples=samples)
    limner.finetune(config)
    folders = sorted(RunDir(config.out).samples.iterdir())
    assert [folder.name for folder in folders] == ["step_000000", "step_000002", "step_000004"]
    seen = []
    for folder in folders:
        with Image.open(folder / "00.png") as picture:
            seen.append(picture.tobytes())
            assert "Seed: 0," in picture.info["parameters"]
    assert len(set(seen)) == 3


def test_a_run_with_samples_trains_the_same_as_one_without(model: Path, pictures: Path, tmp_path: Path) -> None:
    samples = {"prompts": ["a boat"], "steps": 2, "every": 1}
    with_samples = limner.finetune(run_config(model, pictures, tmp_path / "with", samples=samples))
    without = limner.finetune(run_config(model, pictures, tmp_path / "without"))
    assert with_samples.loss == without.loss


def test_the_records_say_what_was_done(model: Path, pictures: Path, tmp_path: Path) -> None:
    result = limner.finetune(run_config(model, pictures, tmp_path / "run", train={"steps": 3}))
    run = RunDir(result.out)
    environment = json.loads(run.environment.read_text())
    assert environment["torch"] == torch.__version__
    assert environment["precision"] == "fp32"
    assert limner.load_config(run.config) == run_config(model, pictures, tmp_path / "run", train={"steps": 3})
    rows = [json.loads(line) for line in run.ledger.read_text().splitlines()]
    assert len(rows) == 4
    assert all(row["used"] and row["tokens"] > 2 and row["sha256"] for row in rows)


def test_tensorboard_gets_every_step(model: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(model, pictures, tmp_path / "run", train={"steps": 3}, tensorboard=True)
    limner.finetune(config)
    events = EventAccumulator(str(RunDir(config.out).tensorboard))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert {"lr", "grad_norm", "images_per_second"} <= set(events.Tags()["scalars"])


def test_a_private_file_names_nothing_of_the_user_s(model: Path, pictures: Path, tmp_path: Path) -> None:
    secret = tmp_path / "aunt-mathilda"
    config = run_config(
        model,
        pictures,
        secret,
        private=True,
        trigger_word="glass",
        train={"steps": 3},
        samples={"prompts": ["mathilda at home"], "steps": 2},
        export=None,
    )
    result = limner.finetune(config)
    assert len(result.exports) == 3
    for export in result.exports:
        for path in export.path.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not any(word in data for word in (b"mathilda", str(pictures).encode(), str(model).encode())), (
                    path
                )
    assert b"glass" in (result.out / "export" / "diffusers" / "pytorch_lora_weights.safetensors").read_bytes()


def test_several_processes_are_refused(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(limner.UserError, match="WORLD_SIZE is 8"):
        limner.finetune(run_config(model, pictures, tmp_path / "run"))


def test_steps_epochs_and_steps_per_picture_agree(model: Path, pictures: Path, tmp_path: Path) -> None:
    def steps(**length: float) -> int:
        train = {"steps": None, "batch_size": 3, **length}
        return limner.plan(run_config(model, pictures, tmp_path / "run", train=train)).steps

    assert steps(epochs=3) == 4  # 12 visits in batches of 3
    assert steps(epochs=2.5) == 4  # 10 visits, rounded up
    assert steps(steps_per_picture=100) == 400


def test_full_training_in_bf16_begins_with_the_base_s_own_weights(model: Path, pictures: Path, tmp_path: Path) -> None:
    train = {"steps": 3, "precision": "bf16", "keep_checkpoints": 9, "ema_decay": None}
    config = run_config(model, pictures, tmp_path / "run", method={"kind": "full"}, train=train)
    limner.finetune(config)
    start = load_file(RunDir(config.out).checkpoint(0) / "weights.safetensors")
    base = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(start[f"unet.{name}"], value) for name, value in base.items())


class Stop(Exception):
    pass


class StopAt:
    """A listener that ends the run after a step, or while it draws samples after one."""

    def __init__(self, step: int, *, in_samples: bool = False) -> None:
        self.at, self.in_samples, self.seen = step, in_samples, 0

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        self.seen = line["step"]
        if self.seen == self.at and not self.in_samples:
            raise Stop

    def stage(self, name: str, done: int, total: int) -> None:
        if name == "samples" and self.in_samples and self.seen == self.at and done == 1:
            raise Stop

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None: ...


@pytest.mark.parametrize(("step", "in_samples"), [(2, True), (4, True), (4, False)])
def test_samples_that_a_stop_cut_off_are_drawn_on_resume(
    model: Path, pictures: Path, tmp_path: Path, step: int, in_samples: bool
) -> None:
    samples = {"prompts": ["a boat", "a house"], "steps": 2, "every": 2}
    train = {"steps": 4, "save_every": 2}
    whole = run_config(model, pictures, tmp_path / "whole", train=train, samples=samples)
    limner.finetune(whole)
    broken = run_config(model, pictures, tmp_path / "broken", train=train, samples=samples)
    with pytest.raises(Stop):
        limner.finetune(broken, progress=StopAt(step, in_samples=in_samples))
    limner.finetune(broken, resume=True)
    drawn = [
        sorted(path.relative_to(out) for path in (out / "samples").rglob("*.png")) for out in (whole.out, broken.out)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 6
    for path in drawn[0]:
        with Image.open(whole.out / path) as one, Image.open(broken.out / path) as other:
            assert one.tobytes() == other.tobytes()


def test_a_refused_resume_leaves_the_status_of_the_run(model: Path, pictures: Path, tmp_path: Path) -> None:
    config = run_config(model, pictures, tmp_path / "run", train={"steps": 3})
    limner.finetune(config)
    before = RunDir(config.out).status.read_bytes()
    with pytest.raises(limner.UserError, match=r"config\.seed"):
        limner.finetune(config.model_copy(update={"seed": 9}), resume=True)
    assert RunDir(config.out).status.read_bytes() == before
    assert json.loads(before)["state"] == "finished"


def test_a_log_that_lost_lines_is_not_continued(model: Path, pictures: Path, tmp_path: Path) -> None:
    config = run_config(model, pictures, tmp_path / "run", train={"steps": 4}, schedule={"kind": "constant"})
    limner.finetune(config)
    run = RunDir(config.out)
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(limner.UserError, match="does not hold the steps 1 to 4"):
        limner.finetune(config, resume=True)
    run.metrics.write_text("".join([*lines[:1], "{]\n", *lines[2:]]))
    with pytest.raises(limner.UserError, match=r"metrics\.jsonl:2: is damaged"):
        limner.finetune(config, resume=True)
    run.metrics.write_text("".join(lines))
    run.environment.write_text("not json")
    assert limner.finetune(config, resume=True).step == 4


@pytest.mark.parametrize("out", ["", "runs/mine"])
def test_a_run_among_its_own_pictures_is_refused(model: Path, pictures: Path, tmp_path: Path, out: str) -> None:
    with pytest.raises(limner.UserError, match=r"lies in dataset\.path"):
        limner.plan(run_config(model, pictures, pictures / out))


def test_what_would_stop_the_run_later_stops_the_plan(model: Path, pictures: Path, tmp_path: Path) -> None:
    for changes, message in [
        ({"samples": {"prompts": ["a"], "scheduler": "dimm"}}, "Did you mean 'ddim'"),
        ({"samples": {"prompts": ["a"], "size": [66, 64]}}, "samples.size: 66 is no multiple"),
        ({"train": {"device": "mps"}}, "sees no such device"),
        ({"method": {"kind": "lora", "targets": ["to_q", "to_w"]}}, r"method\.targets: 'to_w' matches no layer"),
        (
            {"method": {"kind": "lora", "text_encoder": True, "text_encoder_targets": ["q_prj"]}},
            r"method\.text_encoder_targets: 'q_prj' .*Did you mean 'q_proj'",
        ),
    ]:
        with pytest.raises(limner.UserError, match=message):
            limner.plan(run_config(model, pictures, tmp_path / "run", **changes))


def test_a_ruined_model_is_called_ruined(model: Path, pictures: Path, tmp_path: Path) -> None:
    config = run_config(
        model,
        pictures,
        tmp_path / "run",
        method={"kind": "full"},
        optimizer={"lr": 1e30},
        train={"steps": 1, "ema_decay": None},
        schedule={"kind": "constant", "warmup_steps": 0},
    )
    with pytest.raises(limner.UserError, match="prediction is not finite"):
        limner.finetune(config)
    assert json.loads(RunDir(config.out).status.read_text())["state"] == "failed"


def test_a_rate_that_moves_nothing_stops_the_run(model: Path, pictures: Path, tmp_path: Path) -> None:
    schedule = {"kind": "constant", "warmup_steps": 0}
    config = run_config(model, pictures, tmp_path / "run", optimizer={"lr": 1e-30}, schedule=schedule)
    with pytest.raises(limner.UserError, match=r"proof of learning: .* too small to change them: unet\."):
        limner.finetune(config)


def test_the_text_encoder_has_its_own_rate_and_the_caller_his_own_random_stream(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    method = {"kind": "lora", "text_encoder": True, "text_encoder_lr_scale": 0.1}
    config = run_config(model, pictures, tmp_path / "run", method=method, train={"steps": 3})
    before = torch.random.get_rng_state()
    limner.finetune(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    saved = json.loads((RunDir(config.out).checkpoint(3) / "state.json").read_text())
    unet, text = (group["lr"] for group in saved["optimizer"]["param_groups"])
    assert text == pytest.approx(0.1 * unet)


def test_dropout_is_active_while_training(model: Path, pictures: Path, tmp_path: Path) -> None:
    losses = []
    for name, dropout in (("without", 0.0), ("with", 0.5)):
        method = {"kind": "lora", "dropout": dropout}
        losses.append(limner.finetune(run_config(model, pictures, tmp_path / name, method=method)).loss)
    assert losses[0] != losses[1]


def test_what_a_kill_left_of_an_export_is_not_used_and_goes(model: Path, pictures: Path, tmp_path: Path) -> None:
    config = run_config(model, pictures, tmp_path / "run", train={"steps": 3}, export=None)
    limner.finetune(config)
    run = RunDir(config.out)
    left = run.export / ".diffusers.part"
    shutil.copytree(run.export / "diffusers", left)
    assert adapter_files(run.path) == [run.export / "diffusers" / "pytorch_lora_weights.safetensors"]
    limner.finetune(config, resume=True)
    assert sorted(path.name for path in run.export.iterdir()) == ["diffusers", "kohya", "peft"]


def test_repeated_pictures_are_visited_more_often(model: Path, pictures: Path, tmp_path: Path) -> None:
    subject, others = tmp_path / "subject", tmp_path / "others"
    for folder, numbers in ((subject, (0,)), (others, (1, 2, 3))):
        folder.mkdir()
        for number in numbers:
            shutil.copy(pictures / f"{number:02d}.png", folder)
    dataset = {"kind": "dreambooth", "path": str(subject), "class_path": str(others), "class_noun": "window"}
    changes = {"train": {"steps": None, "epochs": 1}, "schedule": {"kind": "constant", "warmup_steps": 0}}
    values = run_config(model, pictures, tmp_path / "run", **changes).model_dump(mode="json")
    config = limner.RunConfig.model_validate({**values, "dataset": dataset, "export": []})
    assert limner.plan(config).steps == 2  # three visits of the subject, one of each other, in batches of three
    assert limner.finetune(config).step == 2

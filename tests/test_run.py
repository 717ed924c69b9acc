"""What a whole run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import limner
from limner.builtin.drawings import draw_folder
from limner.core.rundir import RunDir
from limner.training.checkpoint import read_weights
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
    )
    result = limner.finetune(config)
    run = RunDir(result.out)
    averaged = read_weights(run.checkpoint(4)).weights
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
        trigger_word="boat",
        train={"steps": 3},
        samples={"prompts": ["mathilda at home"], "steps": 2},
    )
    result = limner.finetune(config)
    for export in result.exports:
        for path in export.path.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not any(word in data for word in (b"mathilda", str(pictures).encode(), str(model).encode())), (
                    path
                )
    assert b"boat" in (result.out / "export" / "diffusers" / "pytorch_lora_weights.safetensors").read_bytes()


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

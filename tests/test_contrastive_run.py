"""Whole runs with each contrastive loss: what is reported, saved and continued, and what the anchor needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune
from tests.tiny import save_tiny_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from limner.builtin.pictures import draw_pictures

    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder, count=8, seed=3, captions=2, side=32)
    return folder


def config(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    train = {"steps": 4, "batch_size": 5, "micro_batch_size": 2, "device": "cpu", "save_every": 2}
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "clip", "path": str(model)},
        "dataset": {"kind": "table", "path": pictures},
        "images": {"resolution": 32, "buckets": False},
        "method": {"kind": "towers"},
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "cache": {"folder": out.parent / "cache"},
        "train": train | changes.pop("train", {}),
    }
    return RunConfig.model_validate(values | changes)


def lines(run: RunConfig) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second")
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in read_metrics(RunDir(run.out).metrics)
    ]


SIGLIP = {"kind": "contrastive", "loss": "siglip", "anchor": {"weight": 0.5}}


def test_a_stopped_run_with_bias_anchor_and_micro_batches_continues_bit_for_bit(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    more = {"objective": SIGLIP, "validation": {"share": 0.4, "every": 2}, "train": {"ema_decay": 0.9}}
    whole, parts = (config(model, pictures, tmp_path / name, **dict(more)) for name in ("whole", "parts"))
    finetune(whole)
    finetune(config(model, pictures, tmp_path / "parts", **{**more, "train": {"steps": 2, "ema_decay": 0.9}}))
    finetune(parts, resume=True)
    for file in ("weights", "ema", "optimizer"):
        ours, theirs = (load_file(RunDir(run.out).checkpoint(4) / f"{file}.safetensors") for run in (whole, parts))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    first, last = (load_file(RunDir(whole.out).checkpoint(step) / "weights.safetensors") for step in (2, 4))
    assert first["loss.logit_bias"] != last["loss.logit_bias"]
    assert lines(whole) == lines(parts)
    measured = [
        [json.loads(line) for line in RunDir(run.out).validation.read_text().splitlines()] for run in (whole, parts)
    ]
    assert measured[0] == measured[1]
    assert [line["step"] for line in measured[0]] == [0, 2, 4]
    export = load_file(RunDir(whole.out).export / "transformers" / "model.safetensors")
    assert not any("bias" in name for name in export if "logit" in name)
    CLIPModel.from_pretrained(RunDir(whole.out).export / "transformers")


def test_each_term_stands_in_the_log(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = config(model, pictures, tmp_path / "run", objective=SIGLIP)
    finetune(run)
    found = lines(run)
    assert found[0]["loss_anchor"] == 0
    assert all(line["loss_anchor"] > 0 for line in found[1:])
    for line in found:
        assert line["loss"] == pytest.approx(line["loss_contrastive"] + line["loss_anchor"])
        assert {"duplicates", "similarity_factor", "logit_bias"} <= line.keys()


def test_micro_batches_give_the_run_of_the_whole_batch_up_to_rounding(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    runs = [
        config(
            model, pictures, tmp_path / f"{size}_{precision}", train={"micro_batch_size": size, "precision": precision}
        )
        for size, precision in ((5, "fp32"), (2, "fp32"), (2, "bf16"))
    ]
    for run in runs:
        finetune(run)
    losses = [[line["loss"] for line in lines(run)] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)
    assert losses[2] != pytest.approx(losses[0], rel=1e-6)


def test_without_the_anchor_the_text_encoder_goes_further(model: Path, pictures: Path, tmp_path: Path) -> None:
    told = []
    for weight in (1e-6, 100.0):
        objective = {"kind": "contrastive", "anchor": {"weight": weight}}
        run = config(model, pictures, tmp_path / str(weight), objective=objective, train={"steps": 8})
        finetune(run)
        told.append(lines(run)[-1]["loss_anchor"] / weight)
    assert told[1] < 0.5 * told[0]


def test_an_anchor_of_a_text_encoder_that_does_not_train_is_refused(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    wrong = config(model, pictures, tmp_path / "run", objective=SIGLIP, method={"kind": "towers", "text": "none"})
    with pytest.raises(UserError, match="the text encoder does not train") as caught:
        finetune(wrong)
    assert caught.value.where == "objective.anchor"

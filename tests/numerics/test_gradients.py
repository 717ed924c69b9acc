"""Any split of a batch gives the gradient of the whole; what is cached equals what is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.core.rundir import RunDir, read_metrics
from limner.data.batch import Batch
from limner.methods.lora import Lora
from limner.models.sd1 import SD1
from limner.run import finetune
from limner.training.objectives import Denoising
from limner.training.precision import Precision
from tests.numerics.conftest import run_config

PRECISION = Precision("fp32", torch.device("cpu"))


def batch(positions: Sequence[int], model: Any) -> Batch:
    captions = [f"a photo of {position} dogs" for position in positions]
    generators = [torch.Generator().manual_seed(position) for position in positions]
    return Batch(
        positions=tuple(positions),
        ids=tuple(f"{position}.png" for position in positions),
        captions=tuple(captions),
        images=torch.stack([torch.randn(8, 16, 16, generator=g) for g in generators]),
        conditioning=None,
        weights=torch.tensor([1.0 if position % 2 else 0.3 for position in positions]),
    )


@pytest.mark.parametrize("split", [[6], [1] * 6, [4, 2], [1, 5], [2, 3, 1]])
def test_any_split_of_a_batch_gives_the_gradient_of_the_whole(tiny_model: Path, split: list[int]) -> None:
    model = SD1(path=str(tiny_model)).load()
    trainable = Lora(text_encoder=True).apply(model, seed=0)
    for name, parameter in trainable.params.items():
        if ".lora_B." in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    objective = Denoising(min_snr_gamma=5.0, offset_noise=0.1)
    backward = objective.backward(model, seed=1, precision=PRECISION, scale=lambda loss: loss)

    def gradients(sizes: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
        for parameter in trainable.params.values():
            parameter.grad = None
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        metrics = backward([batch(range(s, s + n), model) for s, n in zip(starts, sizes, strict=True)])
        grads = {name: p.grad.clone() for name, p in trainable.params.items() if p.grad is not None}
        assert grads.keys() == trainable.params.keys()
        return float(metrics["loss"]), grads

    whole_loss, whole = gradients([6])
    loss, parts = gradients(split)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for name, grad in whole.items():
        assert float((parts[name] - grad).norm() / grad.norm()) < 1e-4, name  # float32's rounding, not a factor


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(RunDir(out).metrics)]


def test_micro_batches_and_checkpointing_change_nothing_but_rounding(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    common = {"method": {"kind": "full"}, "optimizer": {"lr": 1e-4}}  # no dropout inside the network
    for name, train in {
        "whole": {"micro_batch_size": 3},
        "single": {"micro_batch_size": 1},
        "checkpointed": {"micro_batch_size": 3, "gradient_checkpointing": True},
    }.items():
        finetune(run_config(tiny_model, drawings, tmp_path / name, train=train, **common))
    whole = torch.tensor(losses(tmp_path / "whole"))
    torch.testing.assert_close(torch.tensor(losses(tmp_path / "single")), whole, rtol=1e-4, atol=0)
    torch.testing.assert_close(torch.tensor(losses(tmp_path / "checkpointed")), whole, rtol=1e-5, atol=0)


def test_with_and_without_a_cache_and_with_a_warm_one_every_bit_is_equal(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    runs = {
        "cold": {"folder": str(tmp_path / "cache")},
        "warm": {"folder": str(tmp_path / "cache")},
        "none": {"latents": False, "captions": False},
    }
    for name, cache in runs.items():
        finetune(run_config(tiny_model, drawings, tmp_path / name, cache=cache))
    assert list((tmp_path / "cache" / "tensors").rglob("*.safetensors"))
    assert losses(tmp_path / "cold") == losses(tmp_path / "warm") == losses(tmp_path / "none")


def test_an_edited_picture_is_encoded_anew(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    import shutil

    from PIL import Image, ImageOps

    data = tmp_path / "data"
    shutil.copytree(drawings, data)
    cache = {"folder": str(tmp_path / "cache")}
    finetune(run_config(tiny_model, data, tmp_path / "before", cache=cache))
    for path in data.glob("*.png"):
        with Image.open(path) as picture:
            changed = ImageOps.invert(picture.convert("RGB"))
        changed.save(path)
    finetune(run_config(tiny_model, data, tmp_path / "after", cache=cache))
    assert losses(tmp_path / "before") != losses(tmp_path / "after")


def test_a_weight_scales_the_loss_of_its_example_and_offset_noise_shifts_its_noise(tiny_model: Path) -> None:
    model = SD1(path=str(tiny_model)).load()
    one = batch(range(4), model)
    plain = dataclasses.replace(one, weights=torch.ones(4))
    objective = Denoising()
    with torch.no_grad():
        weighted = objective.losses(model, one, seed=1, precision=PRECISION)
        unweighted = objective.losses(model, plain, seed=1, precision=PRECISION)
    torch.testing.assert_close(weighted, unweighted * one.weights)
    shift = Denoising(offset_noise=0.5).draw(model, one, seed=1)[1] - objective.draw(model, one, seed=1)[1]
    assert float(shift.flatten(2).std(2).max()) < 1e-5  # the same for all pixels of a channel
    assert 0.2 < float(shift.mean((2, 3)).std()) < 0.9  # and another for each: 0.5 times a normal number

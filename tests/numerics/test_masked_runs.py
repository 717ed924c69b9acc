"""The masked loss against a plain computation and its invariances; whole runs with masks, and resumed ones."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limner.config import RunConfig, conflicts
from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics
from limner.data.batch import Batch
from limner.diffusion.process import NoiseProcess, PredictionType, alphas_cumprod
from limner.methods.lora import Lora
from limner.models.sd1 import SD1
from limner.preflight import plan
from limner.run import finetune
from limner.training.objectives import Denoising
from limner.training.precision import Precision
from tests.numerics.conftest import run_config
from tests.numerics.test_gradients import batch
from tests.numerics.test_resume import Interrupt, StopAt, assert_same_run, changed

PRECISION = Precision("fp32", torch.device("cpu"))
PRODUCTS = alphas_cumprod(schedule="scaled_linear", timesteps=1000, beta_start=0.00085, beta_end=0.012).double()


class Answer(nn.Module):
    """A diffusion model whose prediction is a parameter, whatever it is asked; its latents are the moments' means."""

    def __init__(self, prediction: Tensor, prediction_type: PredictionType) -> None:
        super().__init__()
        self.prediction = nn.Parameter(prediction)
        self.process = NoiseProcess(PRODUCTS, prediction_type)

    def sample_latents(self, moments: Tensor, eps: Tensor) -> Tensor:
        return moments.chunk(2, dim=1)[0]

    def predict(self, x_t: Tensor, t: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return self.prediction


def random(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asked(moments: Tensor, masks: Tensor | None) -> Batch:
    count = len(moments)
    names = tuple(f"{n}.png" for n in range(count))
    weights = torch.tensor([1.0, 0.3])
    return Batch(tuple(range(count)), names, ("",) * count, moments, {}, weights, masks=masks)


def losses(model: Any, one: Batch, **settings: Any) -> Tensor:
    return Denoising(**settings).losses(model, one, seed=5, precision=PRECISION)


LEFT = torch.cat([torch.ones(2, 1, 6, 3), torch.zeros(2, 1, 6, 5)], dim=3)
"""Masks of 6 x 8 latents with the three columns at the left inside."""


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_loss_is_the_weighted_mean_by_a_plain_computation(tiny_model: Path, gamma: float | None) -> None:
    model = SD1(path=str(tiny_model)).load()
    one = batch(range(3), model)
    masks = (
        torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        * torch.tensor([1, 0.1, 0.5])[:, None, None, None]
    )
    objective = Denoising(min_snr_gamma=gamma)
    with torch.no_grad():
        found = objective.losses(model, dataclasses.replace(one, masks=masks), seed=1, precision=PRECISION)
        x_0, eps, t = objective.draw(model, one, seed=1)
        prediction = model.predict(model.process.add_noise(x_0, eps, t), t, model.encode_prompts(one.captions))
    error = (prediction.double().numpy() - eps.double().numpy()) ** 2
    for n in range(3):
        weight = np.repeat(masks[n].double().numpy(), 4, axis=0)
        expected = np.sum(weight * error[n]) / np.sum(weight) * float(one.weights[n])
        if gamma is not None:
            snr = float(model.process.snr(t)[n])
            expected *= min(snr, gamma) / snr
        assert float(found[n]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_a_mask_of_one_value_is_no_mask(value: float) -> None:
    model, moments = Answer(random((2, 4, 6, 8), 1), "epsilon"), random((2, 8, 6, 8))
    masked, plain = (losses(model, asked(moments, masks)) for masks in (torch.full((2, 1, 6, 8), value), None))
    if value == 1:
        assert torch.equal(masked, plain)
    torch.testing.assert_close(masked, plain, rtol=1e-6, atol=0)


def test_what_is_outside_has_no_say_where_outside_is_zero() -> None:
    model = Answer(random((2, 4, 6, 8), 1), "v_prediction")
    moments = random((2, 8, 6, 8))
    there, inside = moments.clone(), moments.clone()
    there[..., 3:] += 7  # the target of v_prediction moves with the latents, the prediction of this model does not
    inside[..., 2] += 7
    first = losses(model, asked(moments, LEFT))
    assert torch.equal(losses(model, asked(there, LEFT)), first)
    assert not torch.allclose(losses(model, asked(inside, LEFT)), first)
    assert not torch.allclose(losses(model, asked(there, LEFT * 0.9 + 0.1)), first)
    first.sum().backward()
    assert model.prediction.grad is not None
    assert not model.prediction.grad[..., 3:].any()
    assert bool((model.prediction.grad[..., :3] != 0).all())


def test_flipping_picture_and_mask_flips_the_gradient() -> None:
    moments, prediction, masks = random((2, 8, 6, 8)), random((2, 4, 6, 8), 1), LEFT * 0.8 + 0.1

    def gradient(flip: bool) -> Tensor:
        turned = [x.flip(3) if flip else x for x in (moments, prediction, masks)]
        model = Answer(turned[1], "sample")
        losses(model, asked(turned[0], turned[2])).sum().backward()
        assert model.prediction.grad is not None
        return model.prediction.grad

    torch.testing.assert_close(gradient(True), gradient(False).flip(3), rtol=1e-6, atol=0)
    assert not torch.allclose(gradient(True), gradient(False))


def test_a_picture_counts_the_same_whatever_the_size_of_its_mask() -> None:
    """Where the error is the same everywhere, the loss does not depend on the mask."""
    model = Answer(torch.full((2, 4, 6, 8), 2.0), "sample")
    small = torch.zeros(2, 1, 6, 8)
    small[:, :, 3, 3] = 0.5
    for masks in (small, LEFT, None):
        torch.testing.assert_close(losses(model, asked(torch.zeros(2, 8, 6, 8), masks)), torch.tensor([4.0, 1.2]))


@pytest.mark.parametrize("split", [[1] * 4, [3, 1]])
def test_any_split_of_a_masked_batch_gives_the_gradient_of_the_whole(tiny_model: Path, split: list[int]) -> None:
    model = SD1(path=str(tiny_model)).load()
    trainable = Lora().apply(model, seed=0)
    for name, parameter in trainable.params.items():
        if ".lora_B." in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    backward = Denoising().backward(model, seed=1, precision=PRECISION, scale=lambda loss: loss)
    masks = (
        torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 0.1, 0.5, 1])[:, None, None, None]
    )

    def gradients(sizes: list[int]) -> dict[str, Tensor]:
        for parameter in trainable.params.values():
            parameter.grad = None
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        backward([
            dataclasses.replace(batch(range(s, s + n), model), masks=masks[s : s + n])
            for s, n in zip(starts, sizes, strict=True)
        ])  # fmt: skip
        return {name: p.grad.clone() for name, p in trainable.params.items() if p.grad is not None}

    whole, parts = gradients([4]), gradients(split)
    assert whole.keys() == trainable.params.keys()
    for name, grad in whole.items():
        assert float((parts[name] - grad).norm() / grad.norm()) < 1e-4, name


# ---------------------------------------------------------------------------------------------------------- runs
def soft_circle(size: tuple[int, int]) -> Image.Image:
    return Image.radial_gradient("L").point(lambda value: 255 - value).resize(size)


@pytest.fixture
def masked(drawings: Path, tmp_path: Path) -> Path:
    """The drawings, each with a soft circle for its mask."""
    folder = tmp_path / "masked"
    shutil.copytree(drawings, folder)
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            soft_circle(picture.size).save(path.with_suffix(".mask.png"))
    return folder


def logged(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(RunDir(out).metrics)]


def test_a_mask_in_a_file_and_the_same_in_the_alpha_channel_train_alike(
    tmp_path: Path, tiny_model: Path, drawings: Path, masked: Path
) -> None:
    cut_out, on_white, white = (tmp_path / name for name in ("cut_out", "on_white", "white"))
    for folder in (cut_out, on_white, white):
        shutil.copytree(drawings, folder)
    for path in drawings.glob("*.png"):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        mask = soft_circle(picture.size)
        Image.composite(picture, Image.new("RGB", picture.size, "white"), mask).save(on_white / path.name)
        mask.save((on_white / path.name).with_suffix(".mask.png"))
        Image.new("L", picture.size, 255).save((white / path.name).with_suffix(".mask.png"))
        picture.putalpha(mask)
        picture.save(cut_out / path.name)
    train = {"train": {"steps": 4}}
    runs: dict[str, tuple[Path, str | None]] = {
        "alpha": (cut_out, "alpha"),
        "files": (on_white, "files"),
        "whole": (on_white, None),
        "white": (white, "files"),
        "none": (drawings, None),
    }
    found = {}
    for name, (folder, source) in runs.items():
        masks = {} if source is None else {"masks": {"source": source}}
        result = finetune(run_config(tiny_model, folder, tmp_path / "runs" / name, **train, **masks))
        assert result.change is not None
        assert result.change > 0
        found[name] = logged(tmp_path / "runs" / name)
    assert found["alpha"] == found["files"]
    no_cache = {**train, "masks": {"source": "files"}, "cache": {"latents": False}}
    finetune(run_config(tiny_model, on_white, tmp_path / "runs" / "no_cache", **no_cache))
    assert logged(tmp_path / "runs" / "no_cache") == found["files"]
    assert found["white"] == found["none"]
    assert all(abs(one - other) > 1e-4 for one, other in zip(found["files"], found["whole"], strict=True))


def test_a_masked_run_resumes_bit_for_bit_with_these_masks_only(tmp_path: Path, tiny_model: Path, masked: Path) -> None:
    changes: dict[str, Any] = {"masks": {"source": "files", "outside": 0.0}, "train": {"steps": 5}}
    whole = run_config(tiny_model, masked, tmp_path / "whole", **changes)
    finetune(whole)
    broken = run_config(tiny_model, masked, tmp_path / "broken", **changes)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(3))
    with pytest.raises(UserError, match=r"config\.masks\.outside: the checkpoint has 0\.0, this run has 0\.3"):
        finetune(changed(broken, masks={"outside": 0.3}), resume=True)
    with pytest.raises(UserError, match=r"config\.masks\.source: the checkpoint has 'files', this run has 'nothing'"):
        finetune(broken.model_copy(update={"masks": None}), resume=True)
    mask = masked / "03.mask.png"
    before = mask.read_bytes()
    with Image.open(mask) as picture:
        changed_mask = picture.convert("L")
    changed_mask.putpixel((0, 0), 255)
    changed_mask.save(mask)
    with pytest.raises(UserError, match="data: the checkpoint has"):
        finetune(broken, resume=True)
    mask.write_bytes(before)
    finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))


class Painter(StopAt):
    """Paints all masks white after the first step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(0)
        self.folder = folder

    def step(self, line: Any, steps: int) -> None:
        for path in self.folder.glob("*.mask.png"):
            with Image.open(path) as mask:
                size = mask.size
            Image.new("L", size, 255).save(path)


def test_a_mask_that_changes_while_the_run_goes_on_stops_it(tmp_path: Path, tiny_model: Path, masked: Path) -> None:
    config = run_config(tiny_model, masked, tmp_path / "run", masks={"source": "files"})
    with pytest.raises(UserError, match=r"mask of 0\d\.png: was changed while the run went on"):
        finetune(config, progress=Painter(masked))


def test_masks_where_they_cannot_be_are_refused(tmp_path: Path, tiny_model: Path, masked: Path) -> None:
    config = run_config(tiny_model, masked, tmp_path / "run", masks={"source": "files"})
    assert conflicts(config) == []
    values = config.model_dump(mode="json")
    values |= {"objective": {"kind": "reconstruction"}, "method": {"kind": "autoencoder"}}
    assert conflicts(RunConfig.model_validate(values)) == [
        "masks: objective 'reconstruction' looks at whole pictures; leave masks out."
    ]
    values = config.model_dump(mode="json") | {"dataset": {"kind": "hub", "id": "someone/something"}}
    (said,) = conflicts(RunConfig.model_validate(values))
    assert said.startswith("masks.source: the pictures of dataset 'hub' are not files")


def test_the_plan_shows_the_masks(tmp_path: Path, tiny_model: Path, masked: Path) -> None:
    rows = dict(plan(run_config(tiny_model, masked, tmp_path / "run", masks={"source": "files"})).rows)
    assert rows["masks"].startswith("7: ")

"""Preservation against the same term written out a second time around an untouched copy of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from limner.core.rng import tensor_stream
from limner.data.batch import Batch
from limner.methods.base_weights import keep_base
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.sd1 import SD1, SD1Model
from limner.training.objectives import Denoising
from limner.training.precision import Precision, PrecisionName
from limner.training.preservation import Preservation
from tests import tiny

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)
SEED, PROMPT = 4, "a photo of a dog"
METHODS: dict[str, Lora | Full] = {
    "lora": Lora(),
    "lora with text encoder": Lora(text_encoder=True),
    "full": Full(),
    "full with text encoder": Full(text_encoder=True),
}


def load(tiny_model: Path) -> SD1Model:
    return SD1(path=str(tiny_model)).load()


def batch(model: SD1Model, positions: Sequence[int], *, trains_text: bool) -> Batch:
    captions = tuple("a photo of sks dog" for _ in positions)
    with torch.no_grad():
        conditioning = None if trains_text else model.encode_prompts(captions)
    images = [torch.randn(8, 8, 12, generator=torch.Generator().manual_seed(position)) for position in positions]
    return Batch(
        positions=tuple(positions),
        ids=tuple(f"{position}.png" for position in positions),
        captions=captions,
        images=torch.stack(images),
        conditioning=conditioning,
        weights=torch.tensor([0.5 + position for position in positions]),
    )


def move(trainable: Trainable, size: float = 0.02) -> None:
    """Moves everything that trains, as if it had been trained."""
    for number, parameter in enumerate(trainable.params.values()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data = parameter.data + size * noise


def prepared(tiny_model: Path, method: Lora | Full) -> tuple[SD1Model, Trainable, dict[str, Any]]:
    model = load(tiny_model)
    trainable = method.apply(model, seed=0)
    as_base = keep_base(trainable, model.networks).in_place
    model.train_mode(trainable.parts)
    return model, trainable, {"seed": SEED, "precision": FP32, "as_base": as_base}


def objective(weight: float = 1.0, min_snr_gamma: float | None = None) -> Denoising:
    return Denoising(preservation=Preservation(prompt=PROMPT, weight=weight), min_snr_gamma=min_snr_gamma)


def written_out(base: SD1Model, tuned: SD1Model, one: Batch, place: int) -> tuple[float, float]:
    """Returns the term of one example, and SNR(t) of it, with diffusers' own scheduler and networks."""
    scheduler = tiny.scheduler()
    position = one.positions[place]
    mean, log_variance = one.images[place].chunk(2)
    latent_eps = torch.randn(mean.shape, generator=tensor_stream(SEED, position, "latent"))
    x_0 = 0.18215 * (mean + (log_variance / 2).exp() * latent_eps)
    eps = torch.randn(mean.shape, generator=tensor_stream(SEED, position, "noise"))
    t = torch.tensor([base.process.sample_t(tensor_stream(SEED, position, "timestep"))])
    x_t = scheduler.add_noise(x_0[None], eps[None], t)
    answers = []
    with torch.no_grad():
        for model in (base, tuned):
            ids = model.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
            states = model.text_encoder(ids)[0]
            answers.append(model.unet(x_t, t, encoder_hidden_states=states).sample.double())
    a = float(scheduler.alphas_cumprod[t])
    return float((answers[0] - answers[1]).square().mean()), a / (1 - a)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_term_is_its_formula(tiny_model: Path, method: Lora | Full, gamma: float | None) -> None:
    model, trainable, settings = prepared(tiny_model, method)
    move(trainable)
    one = batch(model, [3, 5, 6], trains_text=trainable.trains_text)
    found = objective(0.7, gamma).preservation_losses(model, one, **settings).tolist()
    for place, loss in enumerate(found):
        expected, snr = written_out(load(tiny_model), model, one, place)
        assert expected > 1e-6
        factor = 1.0 if gamma is None else min(snr, gamma) / snr
        assert loss == pytest.approx(0.7 * expected * factor, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_before_the_first_step_the_term_is_exactly_zero(
    tiny_model: Path, method: Lora | Full, precision: PrecisionName
) -> None:
    model = load(tiny_model)
    chosen = Precision("bf16" if precision == "bf16" else "fp32", CPU)
    model.to(CPU, chosen.dtype, float32=method.float32_parts(model))
    trainable = method.apply(model, seed=0)
    as_base = keep_base(trainable, model.networks).in_place
    model.train_mode(trainable.parts)
    with chosen.autocast():
        one = batch(model, [1, 2], trains_text=trainable.trains_text)
    settings: dict[str, Any] = {"seed": SEED, "precision": chosen, "as_base": as_base}
    assert objective().preservation_losses(model, one, **settings).tolist() == [0.0, 0.0]
    move(trainable)
    assert min(objective().preservation_losses(model, one, **settings).tolist()) > 0  # no cast of a weight is stale


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_its_gradient_alone_pulls_back_to_the_base(tiny_model: Path, method: Lora | Full) -> None:
    model, trainable, settings = prepared(tiny_model, method)
    move(trainable)
    one = batch(model, [1, 2], trains_text=trainable.trains_text)
    before = objective().preservation_losses(model, one, **settings).sum()
    before.backward()
    slope = sum(float(p.grad.square().sum()) for p in trainable.params.values() if p.grad is not None)
    step = 0.1 * float(before.detach()) / slope  # to first order a tenth of the term goes away
    for parameter in trainable.params.values():
        if parameter.grad is not None:
            parameter.data -= step * parameter.grad
    after = float(objective().preservation_losses(model, one, **settings).sum().detach())
    assert after == pytest.approx(0.9 * float(before.detach()), rel=0.03)
    reached = {name.partition(".")[0] for name, p in trainable.params.items() if p.grad is not None and p.grad.any()}
    assert reached == set(trainable.parts)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_both_terms_add_up_in_any_split(tiny_model: Path, method: Lora | Full, checkpointing: bool) -> None:
    def gradients(split: list[list[int]], chosen: Denoising) -> tuple[dict[str, float], dict[str, Tensor]]:
        model, trainable, settings = prepared(tiny_model, method)
        if checkpointing and len(split) > 1:
            model.checkpoint_gradients()
        move(trainable)
        batches = [batch(model, positions, trains_text=trainable.trains_text) for positions in split]
        metrics = chosen.backward(model, scale=lambda loss: 2 * loss, **settings)(batches)
        return metrics, {name: p.grad / 2 for name, p in trainable.params.items() if p.grad is not None}

    told, parts = gradients([[3], [5, 6]], objective(0.7))
    plain, alone = gradients([[3, 5, 6]], Denoising())
    whole, together = gradients([[3, 5, 6]], objective(0.7))
    assert told["loss"] == pytest.approx(told["loss_denoising"] + told["loss_preservation"], rel=1e-6)
    assert told == pytest.approx(whole, rel=1e-4)
    assert told["loss_denoising"] == pytest.approx(plain["loss"], rel=1e-4)
    assert plain.keys() == {"loss"}
    largest = max(float(gradient.norm()) for gradient in together.values())
    for name, gradient in together.items():
        assert float((parts[name] - gradient).norm()) < 1e-3 * float(gradient.norm()) + 1e-5 * largest, name
    assert any(float((together[name] - alone[name]).norm()) > 1e-4 * largest for name in together)


def test_without_the_base_it_is_a_mistake_of_the_caller(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="give as_base"):
        objective().backward(load(tiny_model), seed=0, precision=FP32, scale=lambda loss: loss)
    with pytest.raises(ValidationError):
        Preservation(prompt="", weight=1.0)
    with pytest.raises(ValidationError):
        Preservation(prompt=PROMPT, weight=0.0)

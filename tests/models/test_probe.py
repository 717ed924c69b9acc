"""The fixed question has one answer per model, sees every part of it, and leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch

from limner.methods.lora import Lora
from limner.models.evaluating import evaluating
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1Model


def test_the_answer_is_the_same_every_time_and_another_for_another_seed(tiny_model: SD1Model) -> None:
    first, again, other = probe(tiny_model), probe(tiny_model), probe(tiny_model, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 4, 4, 4)
    assert first.dtype == torch.float32


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_every_network_has_its_say(tiny_model: SD1Model, part: str) -> None:
    changed = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in changed.networks[part].parameters():
            parameter *= 1.05
    assert difference(probe(changed), probe(tiny_model)).relative > 1e-3


def test_asking_while_training_leaves_modes_gradients_and_random_numbers(tiny_model: SD1Model) -> None:
    model = copy.deepcopy(tiny_model)
    trainable = Lora(text_encoder=True, dropout=0.5).apply(model, seed=0)
    for parameter in trainable.params.values():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    model.train_mode(trainable.parts)
    modes = [m.training for network in model.networks.values() for m in network.modules()]
    state = torch.get_rng_state()
    assert torch.equal(probe(model), probe(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert [m.training for network in model.networks.values() for m in network.modules()] == modes
    assert all(parameter.grad is None for parameter in trainable.params.values())


def test_what_runs_inside_has_no_gradients_and_moves_no_random_numbers(tiny_model: SD1Model) -> None:
    model = copy.deepcopy(tiny_model)
    Lora().apply(model, seed=0)
    state = torch.get_rng_state()
    with evaluating(model.networks.values()):
        assert not torch.is_grad_enabled()
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_are_put_back_after_an_error(tiny_model: SD1Model) -> None:
    model = copy.deepcopy(tiny_model)
    model.train_mode(("unet",))

    def fail() -> None:
        with evaluating(model.networks.values()):
            assert not model.unet.training
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert model.unet.training
    assert model.unet.conv_in.training
    assert not model.vae.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_float32_adapters_answers_nearly_the_same(tiny_model: SD1Model, dtype: torch.dtype) -> None:
    model = copy.deepcopy(tiny_model)
    model.to(torch.device("cpu"), dtype)
    Lora(text_encoder=True).apply(model, seed=0)
    assert 0 < difference(probe(model), probe(tiny_model)).relative < 0.05


def test_a_difference_is_relative_and_nan_is_infinitely_far() -> None:
    expected = torch.tensor([1.0, -4.0])
    found = difference(torch.tensor([1.0, -3.0]), expected)
    assert (found.largest, found.scale, found.relative) == (1.0, 4.0, 0.25)
    assert difference(torch.tensor([float("nan"), 0.0]), expected).relative == float("inf")
    assert difference(torch.zeros(2), torch.zeros(2)).relative == 0.0
    assert difference(torch.ones(2), torch.zeros(2)).relative == float("inf")

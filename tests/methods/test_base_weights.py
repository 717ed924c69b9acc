"""A tuned model is its base for a while, and afterwards itself again in every bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limner.methods.base_weights import keep_base
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.models.probe import probe
from limner.models.sd1 import SD1
from tests.tiny import save_tiny

METHODS: dict[str, Lora | Full] = {
    "lora": Lora(text_encoder=True, alpha=8),
    "dora": Lora(text_encoder=True, dora=True),
    "full": Full(),
    "full with text encoder": Full(text_encoder=True),
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def flags(networks: dict[str, nn.Module]) -> list[bool]:
    return [parameter.requires_grad for network in networks.values() for parameter in network.parameters()]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_the_model_is_its_base_and_then_itself_again(tiny_model: Path, method: Lora | Full) -> None:
    model = SD1(path=str(tiny_model)).load()
    before = probe(model)
    trainable = method.apply(model, seed=0)
    base = keep_base(trainable, model.networks)
    for parameter in trainable.params.values():
        parameter.data = parameter.data + 0.05
    tuned, trains = probe(model), flags(model.networks)
    weights = {name: parameter.detach().clone() for name, parameter in trainable.params.items()}
    with base.in_place():
        assert torch.equal(probe(model), before)
    with pytest.raises(RuntimeError, match="in between"), base.in_place():
        raise RuntimeError("in between")
    assert torch.equal(probe(model), tuned)
    assert not torch.allclose(tuned, before)
    assert flags(model.networks) == trains
    assert all(torch.equal(weights[name], parameter) for name, parameter in trainable.params.items())


def test_only_what_no_switch_turns_off_is_copied(tiny_model: Path) -> None:
    model = SD1(path=str(tiny_model)).load()
    assert keep_base(Lora(text_encoder=True).apply(model, seed=0), model.networks).bytes == 0
    model = SD1(path=str(tiny_model)).load()
    trainable = Full().apply(model, seed=0)
    assert keep_base(trainable, model.networks).bytes == 4 * trainable.count()

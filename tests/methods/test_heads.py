from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.methods.heads import Heads
from limner.models.clip import Clip, ClipModel
from limner.models.probe import probe_dual_encoder
from tests.tiny import save_tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def model(folder: Path) -> ClipModel:
    return Clip(path=str(folder)).load()


def test_a_residual_head_begins_exactly_as_the_base(model: ClipModel) -> None:
    base = probe_dual_encoder(model)
    Heads().apply(model, seed=0)
    assert torch.equal(probe_dual_encoder(model), base)


@pytest.mark.parametrize("method", [{"image": "mlp", "text": "linear", "dim": 24}, {"image": "linear", "text": "none"}])
def test_only_the_heads_train_and_the_embeddings_have_the_dim(model: ClipModel, method: dict[str, Any]) -> None:
    trainable = Heads(**method).apply(model, seed=0)
    training = {
        f"{part}.{name}"
        for part, net in model.networks.items()
        for name, p in net.named_parameters()
        if p.requires_grad
    }
    assert training == set(trainable.params)
    assert not any(name.startswith(("vision_model.", "text_encoder.")) for name in training)
    assert model.embed_prompts(["a dog"]).shape == (1, method.get("dim", 16))
    assert model.embed_images(torch.zeros(1, 3, 32, 32)).shape == (1, method.get("dim", 16))


def test_each_head_computes_what_its_name_says(model: ClipModel) -> None:
    projection = model.network.text_projection.weight.clone()
    pooled = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    Heads(image="mlp", hidden=7).apply(model, seed=0)
    mlp, residual = model.network.visual_projection, model.network.text_projection
    assert mlp.inner.weight.shape == (7, 32)
    assert residual.inner.weight.shape == (7, 16)
    for head in (mlp, residual):
        torch.nn.init.normal_(head.out.weight, generator=torch.Generator().manual_seed(1))
    z = pooled @ projection.T
    h = z @ residual.inner.weight.T + residual.inner.bias
    gelu = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    torch.testing.assert_close(residual(pooled), z + gelu @ residual.out.weight.T + residual.out.bias)
    h = pooled @ mlp.inner.weight.T + mlp.inner.bias
    gelu = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    torch.testing.assert_close(mlp(pooled), gelu @ mlp.out.weight.T + mlp.out.bias)


def test_the_first_values_depend_on_the_seed_alone(folder: Path) -> None:
    def values(seed: int, before: int) -> torch.Tensor:
        torch.manual_seed(before)
        params = Heads(image="mlp", text="linear").apply(Clip(path=str(folder)).load(), seed=seed).params
        return torch.cat([value.detach().flatten() for value in params.values()])

    assert torch.equal(values(0, 1), values(0, 2))
    assert not torch.equal(values(0, 1), values(1, 1))


def test_heads_on_heads_are_refused(model: ClipModel) -> None:
    Heads().apply(model, seed=0)
    with pytest.raises(UserError, match="has a head as its visual_projection already"):
        Heads().apply(model, seed=0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"image": "none", "text": "none"}, "no head would train"),
        ({"dim": 8}, "dim needs linear or mlp on both sides"),
        ({"image": "mlp", "text": "none", "dim": 8}, "dim needs linear or mlp on both sides"),
        ({"image": "linear", "text": "linear", "hidden": 8}, "hidden does nothing"),
    ],
)
def test_choices_that_do_not_fit_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Heads.model_validate(values)

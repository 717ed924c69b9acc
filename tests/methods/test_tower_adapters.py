from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.methods.lora import Lora
from limner.methods.tower_adapters import TowerAdapters
from limner.models.clip import Clip, ClipModel
from limner.models.probe import probe_dual_encoder
from tests.tiny import save_tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def model(folder: Path) -> ClipModel:
    return Clip(path=str(folder)).load()


def training(model: ClipModel) -> set[str]:
    return {
        f"{part}.{name}"
        for part, net in model.networks.items()
        for name, p in net.named_parameters()
        if p.requires_grad
    }


@pytest.mark.parametrize(("image", "text"), [(True, False), (False, True), (True, True)])
def test_adapters_go_into_the_named_towers_only_and_begin_as_nothing(model: ClipModel, image: bool, text: bool) -> None:
    base = probe_dual_encoder(model)
    trainable = Lora(rank=2, towers=TowerAdapters(image=image, text=text)).apply(model, seed=0)
    assert set(trainable.params) == training(model)
    wanted = [part for part, chosen in (("vision_model", image), ("text_encoder", text)) if chosen]
    for part in ("vision_model", "text_encoder"):
        count = sum(name.startswith(f"{part}.") for name in trainable.params)
        assert count == (2 * 4 * 2 if part in wanted else 0)  # two layers, four targets, two matrices
    assert torch.equal(probe_dual_encoder(model), base)


def test_projections_and_temperature_train_whole_beside_them_and_the_text_side_has_its_rate(model: ClipModel) -> None:
    towers = TowerAdapters(targets=("fc1",), projections=True, temperature=True, text_lr_scale=0.2)
    trainable = Lora(towers=towers).apply(model, seed=0)
    whole = {name for name in trainable.params if ".lora_" not in name}
    assert whole == {"visual_projection.weight", "text_projection.weight", "temperature.logit_scale"}
    rates = {group: trainable.lr_scales.get(group, 1.0) for group in trainable.groups}
    assert rates == {
        "vision_model": 1.0,
        "visual_projection": 1.0,
        "temperature": 1.0,
        "text_encoder": 0.2,
        "text_projection": 0.2,
    }
    assert "temperature" in trainable.undecayed
    assert set(trainable.params) == training(model)


def test_a_target_that_is_nowhere_is_named_before_a_layer_is_touched(model: ClipModel) -> None:
    with pytest.raises(UserError, match="Did you mean 'q_proj'"):
        Lora(towers=TowerAdapters(targets=("v_proj", "q_porj"))).apply(model, seed=0)
    assert not training(model)


def test_choices_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="no tower would get an adapter"):
        TowerAdapters(image=False, text=False)
    with pytest.raises(ValidationError, match="text_lr_scale does nothing"):
        TowerAdapters(text=False, text_lr_scale=0.5)

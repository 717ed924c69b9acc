from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from limner.core.errors import UserError
from limner.methods.towers import Towers
from limner.methods.trainable import Trainable
from limner.models.clip import Clip, ClipModel
from limner.training.optimizers import AdamW
from tests.tiny import save_tiny_clip

LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def model(folder: Path) -> ClipModel:
    return Clip(path=str(folder)).load()


def groups_of(trainable: Trainable) -> dict[str, str]:
    """Returns the group of each parameter, by the names in transformers' CLIPModel."""
    ids = {id(value): name for group, values in trainable.groups.items() for value in values for name in [group]}
    return {name: ids[id(value)] for name, value in trainable.params.items()}


def expected_rate(name: str, decay: float, text: float) -> float:
    """Returns the factor of a parameter by its name alone: BEiT's rule for L blocks, embeddings L + 1 steps down."""
    block = re.search(r"\.layers\.(\d+)\.", name)
    if "projection" in name or name.endswith("logit_scale") or "post_layernorm" in name or "final_layer_norm" in name:
        steps = 0
    elif block:
        steps = LAYERS - int(block.group(1))
    else:
        steps = LAYERS + 1
    return float(decay**steps * (text if name.startswith("text_") else 1))


@pytest.mark.parametrize(("decay", "text"), [(0.5, 1.0), (0.65, 0.1), (1.0, 0.25)])
def test_every_parameter_has_the_rate_of_its_depth(model: ClipModel, decay: float, text: float) -> None:
    trainable = Towers(layer_decay=decay, text_lr_scale=text).apply(model, seed=0)
    assert len(trainable.params) == len(list(model.network.parameters()))
    for name, group in groups_of(trainable).items():
        assert trainable.lr_scales[group] == pytest.approx(expected_rate(name, decay, text)), name
    rates = [trainable.lr_scales[group] for group in trainable.groups]
    assert rates == sorted(rates, reverse=True)


def test_without_layer_decay_the_groups_are_the_networks(model: ClipModel) -> None:
    groups = Towers().apply(model, seed=0).groups
    assert {name.removesuffix(" undecayed") for name in groups} == set(model.networks)


def test_groups_have_the_same_names_at_each_load(folder: Path) -> None:
    first, second = (Towers(layer_decay=0.7).apply(Clip(path=str(folder)).load(), seed=0) for _ in range(2))
    assert list(first.groups) == list(second.groups)
    assert groups_of(first) == groups_of(second)


def test_weight_decay_pulls_on_matrices_and_convolutions_only(model: ClipModel) -> None:
    trainable = Towers(layer_decay=0.9).apply(model, seed=0)
    pulled = {name for name, group in groups_of(trainable).items() if group not in trainable.undecayed}
    matrices = {
        f"{part}.{name}.weight"
        for part, network in model.networks.items()
        for name, module in [*network.named_modules()]
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    assert pulled == {name.replace("projection..", "projection.") for name in matrices}


def step_with(model: ClipModel, trainable: Trainable, steps: int = 3) -> None:
    optimizer = AdamW(lr=1e-2).build(
        [
            {"params": params, "lr": 1e-2 * trainable.lr_scales.get(name, 1.0), "name": name}
            for name, params in trainable.groups.items()
        ]
    )
    for number in range(steps):
        pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1
        prompts = ("a dog", "a red circle", "the blue square on a cat")
        logits = model.logit_scale.exp() * model.embed_images(pixels) @ model.embed_prompts(prompts).T
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.arange(3)).backward()
        optimizer.step()


LAST = {
    "vision_model": ("encoder.layers.1.", "post_layernorm."),
    "text_model": ("encoder.layers.1.", "final_layer_norm."),
}
ALL = {"vision_model": ("",), "text_model": ("",)}


@pytest.mark.parametrize(
    ("method", "moves"),
    [
        ({}, [*ALL.items(), ("visual_projection", ("",)), ("text_projection", ("",)), ("logit_scale", ("",))]),
        (
            {"image": 1, "text": "none", "projections": False, "temperature": False},
            [("vision_model", LAST["vision_model"])],
        ),
        (
            {"image": "none", "text": 1, "projections": False},
            [("text_model", LAST["text_model"]), ("logit_scale", ("",))],
        ),
        (
            {"image": 2, "text": 2, "temperature": False},
            [
                ("vision_model", ("encoder.", "post_layernorm.")),
                ("text_model", ("encoder.", "final_layer_norm.")),
                ("visual_projection", ("",)),
                ("text_projection", ("",)),
            ],
        ),
        (
            {"image": "none", "text": "none"},
            [("visual_projection", ("",)), ("text_projection", ("",)), ("logit_scale", ("",))],
        ),
    ],
    ids=["all", "last of the picture tower", "last of the text tower", "every layer, no embedding", "projections"],
)
def test_what_is_chosen_moves_and_nothing_else_by_a_bit(
    model: ClipModel, method: dict[str, Any], moves: list[tuple[str, tuple[str, ...]]]
) -> None:
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.network.state_dict().items()}
    step_with(model, Towers(**method).apply(model, seed=0))
    moved = {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}
    chosen = {
        name
        for name in before
        for network, starts in moves
        if name.split(".")[0] == network and name.removeprefix(f"{network}.").startswith(starts)
    }
    assert moved == chosen


def test_too_many_layers_are_refused_with_the_number_that_there_are(model: ClipModel) -> None:
    with pytest.raises(UserError, match="3 layers, but this tower has 2"):
        Towers(text=3).apply(model, seed=0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"image": "none", "text": "none", "projections": False}, "nothing would train"),
        ({"image": "none", "text": "none", "layer_decay": 0.5}, "layer_decay does nothing"),
        ({"text": "none", "projections": False, "text_lr_scale": 0.5}, "text_lr_scale does nothing"),
        ({"image": True}, "image"),
        ({"image": 0}, "image"),
        ({"layer_decay": 1.5}, "layer_decay"),
    ],
)
def test_choices_that_would_do_nothing_or_something_else_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Towers.model_validate(values)

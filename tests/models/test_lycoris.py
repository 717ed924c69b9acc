"""LoHa and LoKr files of others land on the model whole, by their equations, or not at all; convolutions too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.core.errors import UserError
from limner.inspect import inspect_path
from limner.models.adapter_files import read_adapter_file
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.lycoris import adapted_layers
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1, SD1Model

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"  # 64 x 64
POINT = "up_blocks.0.attentions.1.proj_in"  # 64 x 64, 1x1
WIDE = "down_blocks.1.resnets.0.conv1"  # 64 x 32, 3x3
STRIDED = "down_blocks.0.downsamplers.0.conv"  # 32 x 32, 3x3, stride 2
TEXT = "encoder.layers.0.self_attn.q_proj"  # 32 x 32
PLACES = (("unet", LINEAR), ("unet", POINT), ("unet", WIDE), ("unet", STRIDED), ("text_encoder", TEXT))
Layers = dict[tuple[str, str], dict[str, Tensor]]
RANK = 3


@pytest.fixture(scope="session")
def load(tiny_folder: Path) -> Callable[[], SD1Model]:
    return SD1(path=str(tiny_folder)).load


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def weight_of(model: SD1Model, place: tuple[str, str]) -> Tensor:
    return model.networks[place[0]].get_submodule(place[1]).weight


def loha(shape: tuple[int, ...], tucker: bool) -> dict[str, Tensor]:
    outputs, inputs, *sides = shape
    if tucker and sides and sides[0] > 1:
        pairs = {"w1_a": (RANK, outputs), "w1_b": (RANK, inputs), "t1": (RANK, RANK, *sides)}
        pairs |= {"w2_a": (RANK, outputs), "w2_b": (RANK, inputs), "t2": (RANK, RANK, *sides)}
    else:
        flat = inputs * (sides[0] * sides[1] if sides else 1)
        pairs = {"w1_a": (outputs, RANK), "w1_b": (RANK, flat), "w2_a": (outputs, RANK), "w2_b": (RANK, flat)}
    return {f"hada_{name}": random(*pair, seed=i) for i, (name, pair) in enumerate(pairs.items())}


def lokr(shape: tuple[int, ...], form: str) -> dict[str, Tensor]:
    outputs, inputs, *sides = shape
    a, b, c, d = 4, 2, outputs // 4, inputs // 2  # not what PEFT would choose
    area = sides[0] * sides[1] if sides else 1
    forms: dict[str, dict[str, tuple[int, ...]]] = {
        "whole": {"w1": (a, b), "w2": (c, d, *sides)},
        "second split": {"w1": (a, b), "w2_a": (c, RANK), "w2_b": (RANK, d * area)},
        "both split": {"w1_a": (a, RANK), "w1_b": (RANK, b), "w2_a": (c, RANK), "w2_b": (RANK, d * area)},
    }
    forms["tucker"] = (
        {"w1": (a, b), "w2_a": (RANK, c), "w2_b": (RANK, d), "t2": (RANK, RANK, *sides)}
        if area > 1
        else forms["second split"]
    )
    return {f"lokr_{name}": random(*pair, seed=i) for i, (name, pair) in enumerate(forms[form].items())}


def product(factors: Mapping[str, Tensor], first: str, core: str, shape: tuple[int, ...]) -> Tensor:
    """A b, or its Tucker form, sum by sum, in the shape of the weight (of the half of it that a LoKr splits)."""
    a, b = factors[f"{first}_a"].double(), factors[f"{first}_b"].double()
    if core not in factors:
        return (a @ b).reshape(shape)
    total = torch.zeros(shape, dtype=torch.float64)
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total += a[i].reshape(-1, 1, 1, 1) * b[j].reshape(1, -1, 1, 1) * factors[core][i, j].double()
    return total


def delta_by_hand(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The equations of LyCORIS, written without its or PEFT's code; a LoKr block by block."""
    if "hada_w1_a" in factors:
        return product(factors, "hada_w1", "hada_t1", shape) * product(factors, "hada_w2", "hada_t2", shape)
    outputs, inputs, *sides = shape
    a, b = 4, 2
    small = factors["lokr_w1"].double() if "lokr_w1" in factors else product(factors, "lokr_w1", "", (a, b))
    half = (outputs // a, inputs // b, *sides)
    large = factors["lokr_w2"].double() if "lokr_w2" in factors else product(factors, "lokr_w2", "lokr_t2", half)
    delta = torch.zeros(shape, dtype=torch.float64)
    for i in range(a):
        for j in range(b):
            rows, columns = slice(i * half[0], (i + 1) * half[0]), slice(j * half[1], (j + 1) * half[1])
            delta[rows, columns] = small[i, j] * large.reshape(half)
    return delta


def merged(model: SD1Model, layers: Layers, scale: float) -> SD1Model:
    with torch.no_grad():
        for place, factors in layers.items():
            weight = weight_of(model, place)
            weight += (scale * delta_by_hand(factors, tuple(weight.shape))).float()
    return model


def lycoris_file(layers: Layers, path: Path, alpha: float | None) -> Path:
    tensors = {}
    for (part, layer), factors in layers.items():
        name = ("lora_unet_" if part == "unet" else "lora_te_text_model_") + layer.replace(".", "_")
        tensors |= {f"{name}.{factor}": value for factor, value in factors.items()}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def peft_folders(layers: Layers, folder: Path, config: dict[str, object]) -> Path:
    for part in ("unet", "text_encoder"):
        (folder / part).mkdir(parents=True)
        tensors = {
            f"base_model.model.{layer}.{factor}": value
            for (owner, layer), factors in layers.items()
            for factor, value in factors.items()
            if owner == part
        }
        save_file(tensors, folder / part / "adapter_model.safetensors")
        (folder / part / "adapter_config.json").write_text(json.dumps(config))
    return folder


FORMS: dict[str, Callable[[tuple[int, ...]], dict[str, Tensor]]] = {
    "LoHa": lambda shape: loha(shape, tucker=False),
    "LoHa, Tucker": lambda shape: loha(shape, tucker=True),
    "LoKr, whole": lambda shape: lokr(shape, "whole"),
    "LoKr, second split": lambda shape: lokr(shape, "second split"),
    "LoKr, both split": lambda shape: lokr(shape, "both split"),
    "LoKr, Tucker": lambda shape: lokr(shape, "tucker"),
}


def make(model: SD1Model, form: str) -> Layers:
    return {place: FORMS[form](tuple(weight_of(model, place).shape)) for place in PLACES}


def error(model: SD1Model, expected: SD1Model) -> float:
    return difference(probe(model), probe(expected)).relative


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_lycoris_has_the_effect_of_its_equation(
    load: Callable[[], SD1Model], tmp_path: Path, form: str
) -> None:
    model, base = load(), load()
    layers = make(model, form)
    file = lycoris_file(layers, tmp_path / "x.safetensors", 6.0)
    (loaded,) = load_adapters(model.networks, [AdapterRef(file, 0.5)])
    scale = 0.5 if form == "LoKr, whole" else 0.5 * 6 / RANK  # of two whole matrices no reader looks at alpha
    assert error(model, base) > 0.01
    assert error(model, merged(load(), layers, scale)) < 1e-5
    assert {(part, path) for part, paths in loaded.layers.items() for path in paths} == set(PLACES)
    found = inspect_path(file)
    assert found.kind == f"a {form[:4]} in the layout of kohya"
    assert (found.facts["rank"], found.facts["alpha"]) == (("whole", 1.0) if form == "LoKr, whole" else (RANK, 6.0))


@pytest.mark.parametrize("form", ["LoHa", "LoKr, both split", "LoKr, whole"])
def test_a_peft_folder_has_the_effect_of_its_config(load: Callable[[], SD1Model], tmp_path: Path, form: str) -> None:
    model = load()
    layers = make(model, form)
    config = {
        "peft_type": form[:4].upper(),
        "r": RANK,
        "alpha": 1,
        "alpha_pattern": {"conv1": 9},
        "module_dropout": 0.1,
    }
    load_adapters(model.networks, [AdapterRef(peft_folders(layers, tmp_path / "x", config))])
    expected = merged(load(), {p: f for p, f in layers.items() if p[1] != WIDE}, 1 / RANK)
    assert error(model, merged(expected, {("unet", WIDE): layers["unet", WIDE]}, 9 / RANK)) < 1e-5
    assert inspect_path(tmp_path / "x").kind == f"a {form[:4]} in the layout of PEFT, a folder for each network"


def test_a_file_without_alpha_has_a_scale_of_one(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    layers = make(model, "LoHa")
    load_adapters(model.networks, [AdapterRef(lycoris_file(layers, tmp_path / "x.safetensors", None))])
    assert error(model, merged(load(), layers, 1.0)) < 1e-5


def test_names_that_begin_with_lycoris_are_those_of_the_denoiser(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    layers = {place: factors for place, factors in make(model, "LoHa").items() if place[0] == "unet"}
    file = lycoris_file(layers, tmp_path / "x.safetensors", 3.0)
    save_file({key.replace("lora_unet_", "lycoris_"): value for key, value in load_file(file).items()}, file)
    load_adapters(model.networks, [AdapterRef(file)])
    assert error(model, merged(load(), layers, 1.0)) < 1e-5
    assert inspect_path(file).facts["layers"] == {"unet": 4}


def kohya_conv(layers: Mapping[str, tuple[Tensor, Tensor]], path: Path, magnitudes: Mapping[str, Tensor]) -> Path:
    tensors = {}
    for layer, (down, up) in layers.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(6.0)}
        if layer in magnitudes:
            tensors[f"{name}.dora_scale"] = magnitudes[layer]
    save_file(tensors, path)
    return path


CONVOLUTIONS = (WIDE, STRIDED, POINT, "conv_in", "conv_out", "up_blocks.1.resnets.0.conv_shortcut")


@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_on_convolutions_have_the_effect_of_the_merged_weight(
    load: Callable[[], SD1Model], tmp_path: Path, dora: bool
) -> None:
    """Down as wide as the layer, up 1x1 (kohya's LoCon); DoRA by arXiv:2402.09353, equation 5, one norm an output."""
    model, expected, base = load(), load(), load()
    layers, magnitudes = {}, {}
    for seed, path in enumerate(CONVOLUTIONS):
        weight = weight_of(expected, ("unet", path))
        down = random(RANK, *weight.shape[1:], seed=seed)
        up = random(weight.shape[0], RANK, 1, 1, seed=seed + 100)
        layers[path] = down, up
        with torch.no_grad():
            moved = weight + 6 / RANK * torch.einsum("orxy,rikl->oikl", up, down)
            if dora:
                norm = weight.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
                magnitudes[path] = norm * (1.5 + random(*norm.shape, seed=seed) * 0.1)
                moved = moved * magnitudes[path] / moved.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            weight.copy_(moved)
    file = kohya_conv(layers, tmp_path / "x.safetensors", magnitudes)
    load_adapters(model.networks, [AdapterRef(file)])
    assert error(model, base) > 0.01
    assert error(model, expected) < 1e-5
    assert inspect_path(file).kind == f"a {'DoRA' if dora else 'LoRA'} in the layout of kohya"


# ----------------------------------------------------------------------------------------- mixed, moved, switched off
def test_loha_lokr_lora_and_dora_on_the_same_layers_add_up(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model, expected = load(), load()
    first, second = make(model, "LoHa"), make(model, "LoKr, Tucker")
    weight = weight_of(expected, ("unet", WIDE)).detach().clone()
    down, up = random(RANK, *weight.shape[1:], seed=1), random(weight.shape[0], RANK, 1, 1, seed=2)
    norm = weight.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    files = [
        AdapterRef(lycoris_file(first, tmp_path / "a.safetensors", 3.0), 0.7),
        AdapterRef(kohya_conv({WIDE: (down, up)}, tmp_path / "b.safetensors", {WIDE: 1.3 * norm}), 1.0),
        AdapterRef(lycoris_file(second, tmp_path / "c.safetensors", 3.0), -0.4),
    ]
    load_adapters(model.networks, files)
    moved = weight + 6 / RANK * torch.einsum("orxy,rikl->oikl", up, down)
    with torch.no_grad():
        weight_of(expected, ("unet", WIDE)).copy_(1.3 * norm * moved / moved.flatten(1).norm(dim=1).reshape(norm.shape))
    assert error(model, merged(merged(expected, first, 0.7), second, -0.4)) < 1e-5


def test_weight_zero_is_the_base_exactly_and_nothing_trains(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model, base = load(), load()
    file = lycoris_file(make(model, "LoHa"), tmp_path / "x.safetensors", 3.0)
    load_adapters(model.networks, [AdapterRef(file, 0.0)])
    assert torch.equal(probe(model), probe(base))
    state = torch.get_rng_state()
    load_adapters(base.networks, [AdapterRef(file)])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for network in base.networks.values() for p in network.parameters())
    assert base.unet.state_dict().keys() == load().unet.state_dict().keys()
    with pytest.raises(ValueError, match="already"):
        load_adapters(base.networks, [AdapterRef(file)])


def test_a_base_in_half_precision_stays_so_and_is_changed_alike(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    layers = make(model, "LoHa")
    file = lycoris_file(layers, tmp_path / "x.safetensors", 3.0)
    model.to(torch.device("cpu"), torch.bfloat16)
    load_adapters(model.networks, [AdapterRef(file)])
    layer = model.unet.get_submodule(LINEAR)
    x = random(2, 64, seed=5).bfloat16()
    with torch.no_grad():
        answer = layer(x)
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert answer.dtype == torch.bfloat16
    change = x.float() @ delta_by_hand(layers["unet", LINEAR], (64, 64)).float().T
    torch.testing.assert_close(answer.float(), plain.float() + change, rtol=1e-2, atol=1e-2)


# -------------------------------------------------------------------------------------------------- nothing silently
def refused(model: SD1Model, path: Path) -> str:
    before = probe(model)
    with pytest.raises(UserError) as caught:
        load_adapters(model.networks, [AdapterRef(path)])
    assert not any(
        adapted_layers(network) for network in model.networks.values() if isinstance(network, torch.nn.Module)
    )
    assert torch.equal(probe(model), before)
    return str(caught.value)


def test_a_file_of_a_wider_model_is_refused_with_both_shapes(tiny_model: SD1Model, tmp_path: Path) -> None:
    layers = {("unet", LINEAR): loha((1280, 1280), tucker=False)}
    file = lycoris_file(layers, tmp_path / "x.safetensors", 3.0)
    assert "its product [1280, 1280] does not fit the layer's weight [64, 64]" in refused(tiny_model, file)
    layers = {("unet", POINT): lokr((64, 64, 3, 3), "whole")}
    assert "[64, 64, 3, 3]" in refused(tiny_model, lycoris_file(layers, tmp_path / "x.safetensors", 3.0))


def test_a_layer_that_the_model_lacks_leaves_the_model_as_it_was(tiny_model: SD1Model, tmp_path: Path) -> None:
    layers = make(tiny_model, "LoHa") | {("unet", "down_blocks.9.conv"): loha((4, 4), tucker=False)}
    message = refused(tiny_model, lycoris_file(layers, tmp_path / "x.safetensors", 3.0))
    assert "1 of its 6 layers are not in this model" in message


A = "lora_unet_a"
SPOILED: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "LoHa without a matrix": ({"hada_w1_a": (4, 2), "hada_w1_b": (2, 4), "hada_w2_a": (4, 2)}, "hada_w2_b is missing"),
    "LoHa with one core": (
        {"hada_w1_a": (2, 4), "hada_w1_b": (2, 4), "hada_w2_a": (2, 4), "hada_w2_b": (2, 4), "hada_t1": (2, 2, 3, 3)},
        "do not fit together",
    ),
    "LoHa of two shapes": (
        {"hada_w1_a": (4, 2), "hada_w1_b": (2, 4), "hada_w2_a": (1, 2), "hada_w2_b": (2, 4)},
        "its two products are",
    ),
    "a core of another rank": (
        {"lokr_w1": (2, 2), "lokr_w2_a": (3, 4), "lokr_w2_b": (3, 4), "lokr_t2": (1, 1, 3, 3)},
        "do not fit together",
    ),
    "LoKr whole and split": ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "lokr_w2_a": (2, 2)}, "lokr_w2_a is missing"),
    "LoKr without the second": ({"lokr_w1": (2, 2)}, "is missing or too much for a LoKr"),
    "LoKr of odd shapes": ({"lokr_w1": (2,), "lokr_w2": (2, 2)}, "its matrices are"),
    "LoHa and LoKr": ({"hada_w1_a": (4, 2), "lokr_w1": (2, 2)}, "is missing or too much for a LoHa"),
    "LoKr with a core in the first": ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "lokr_t1": (2, 2)}, "belongs to no LoRA"),
    "LoKr with magnitudes": ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "dora_scale": (4, 1)}, "LoKr and magnitude"),
    "LoHa and LoRA": ({"hada_w1_a": (4, 2), "lora_up.weight": (4, 2)}, "LoHa and up for one layer"),
    "two alphas": ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "alpha": (2,)}, "alpha is no finite number"),
}  # fmt: skip


@pytest.mark.parametrize(("shapes", "message"), SPOILED.values(), ids=SPOILED.keys())
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    save_file({f"{A}.{name}": torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=message):
        read_adapter_file(tmp_path / "x.safetensors")


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "another method": ({"peft_type": "LOKR", "r": RANK, "alpha": 1}, "the config speaks of LoKr, the tensors are LoHa"),
    "LoRA": ({"peft_type": "LORA", "r": RANK, "lora_alpha": 1}, "the config speaks of LoRA, the tensors are LoHa"),
    "another rank": ({"peft_type": "LOHA", "r": 5, "alpha": 1}, "have rank 3, the config says 5"),
    "something new": ({"peft_type": "LOHA", "r": RANK, "alpha": 1, "use_magic": True}, "asks for 'use_magic'"),
    "another kind": ({"peft_type": "OFT"}, "Limner reads LORA, LOHA and LOKR"),
    "alpha that is no number": ({"peft_type": "LOHA", "r": RANK, "alpha": "8"}, "alpha is '8'"),
}


@pytest.mark.parametrize(("config", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_that_says_something_else_is_refused(
    tiny_model: SD1Model, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    assert message in refused(tiny_model, peft_folders(make(tiny_model, "LoHa"), tmp_path / "x", config))

"""LoRA files in every layout land on the model whole, with the right strength, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.models.adapter_files import read_adapter_file
from limner.models.adapters import AdapterRef, load_adapters, lora_layers, parse_adapter
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

UNET = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "up_blocks.0.attentions.1.proj_in"
TEXT = "encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1"
Updates = dict[tuple[str, str], tuple[Tensor, Tensor]]
Build = Callable[..., Path]


@pytest.fixture(scope="session")
def load(tiny_folder: Path) -> Callable[[], SD1Model]:
    return SD1(path=str(tiny_folder)).load


def random_updates(model: SD1Model, rank: int = 4, seed: int = 0, text: bool = True) -> Updates:
    """Random matrices for a linear layer and a 1x1 convolution of the denoiser and two layers of the text encoder."""
    generator = torch.Generator().manual_seed(seed)
    updates: Updates = {}
    for part, paths in (("unet", UNET), ("text_encoder", TEXT if text else ())):
        for path in paths:
            shape = model.networks[part].get_submodule(path).weight.shape
            tail = (1, 1) if len(shape) == 4 else ()
            down = torch.randn(rank, shape[1], *tail, generator=generator) * 0.3
            updates[part, path] = down, torch.randn(shape[0], rank, *tail, generator=generator) * 0.3
    return updates


def merged(model: SD1Model, updates: Updates, strength: float) -> SD1Model:
    """The same by hand: weight + strength * up @ down."""
    with torch.no_grad():
        for (part, path), (down, up) in updates.items():
            weight = model.networks[part].get_submodule(path).weight
            weight += strength * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return model


def kohya(updates: Updates, path: Path, alpha: float | None, te: str = "te", long: bool = True) -> Path:
    tensors = {}
    for (part, layer), (down, up) in updates.items():
        mark, mid = ("unet", "") if part == "unet" else (te, "text_model_" if long else "")
        name = f"lora_{mark}_{mid}{layer.replace('.', '_')}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def diffusers_file(updates: Updates, path: Path, config: dict[str, object] | None, long: bool = True) -> Path:
    tensors = {}
    for (part, layer), (down, up) in updates.items():
        mid = "text_model." if part == "text_encoder" and long else ""
        tensors |= {f"{part}.{mid}{layer}.lora_A.weight": down, f"{part}.{mid}{layer}.lora_B.weight": up}
    parts = {part for part, _ in updates}
    header = {} if config is None else {f"{part}.{key}": value for part in parts for key, value in config.items()}
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(header)} if header else None)
    return path


def peft_folder(updates: Updates, folder: Path, config: dict[str, object], part: str = "unet") -> Path:
    folder.mkdir(parents=True)
    tensors = {}
    for (owner, layer), (down, up) in updates.items():
        if owner == part:
            name = f"base_model.model.{layer}"
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


def error(model: SD1Model, expected: SD1Model) -> float:
    return difference(probe(model), probe(expected)).relative


# ------------------------------------------------------------------------------------------------------ references
@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("a:1e-1", "a", 0.1),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0),
        ("C:\\loras\\a.safetensors:.5", "C:\\loras\\a.safetensors", 0.5),
        ("a:b:0.5", "a:b", 0.5),
        ("a:nan", "a:nan", 1.0),
        (":0.5", ":0.5", 1.0),
    ],
)
def test_a_reference_is_a_path_and_a_weight(text: str, path: str, weight: float) -> None:
    assert parse_adapter(text) == AdapterRef(Path(path), weight)


def test_a_path_that_exists_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "x:0.5").mkdir()
    assert parse_adapter(str(tmp_path / "x:0.5")) == AdapterRef(tmp_path / "x:0.5", 1.0)


# --------------------------------------------------------------------------------------------------------- layouts
def both_peft_folders(updates: Updates, folder: Path) -> Path:
    for part in ("unet", "text_encoder"):
        peft_folder(updates, folder / part, {"r": 4, "lora_alpha": 8}, part)
    return folder


ALPHAS = {"to_q": 8, "proj_in": 8, "^text_model.encoder.layers.0.self_attn.q_proj": 8, "fc1": 8}
BY_PATTERN = {"r": 4, "lora_alpha": 1, "alpha_pattern": ALPHAS}
RSLORA = {"r": 4, "lora_alpha": 3, "use_rslora": True}
LAYOUTS: dict[str, tuple[float, Build]] = {
    "kohya, alpha in the file": (8, lambda u, f: kohya(u, f, 8)),
    "kohya, no alpha means rank": (4, lambda u, f: kohya(u, f, None)),
    "kohya, SDXL's mark": (2, lambda u, f: kohya(u, f, 2, te="te1")),
    "kohya, short CLIP names": (2, lambda u, f: kohya(u, f, 2, long=False)),
    "diffusers, alpha in the header": (8, lambda u, f: diffusers_file(u, f, {"r": 4, "lora_alpha": 8})),
    "diffusers, short CLIP names": (1, lambda u, f: diffusers_file(u, f, {"r": 4, "lora_alpha": 1}, long=False)),
    "diffusers, no header means rank": (4, lambda u, f: diffusers_file(u, f, None)),
    "diffusers, rank-stabilised": (6, lambda u, f: diffusers_file(u, f, RSLORA)),
    "diffusers, alpha by pattern": (8, lambda u, f: diffusers_file(u, f, BY_PATTERN)),
    "diffusers, a folder": (8, lambda u, f: diffusers_file(u, f, {"r": 4, "lora_alpha": 8}).parent),
    "PEFT, a folder for each network": (8, lambda u, f: both_peft_folders(u, f.parent / "peft")),
}  # fmt: skip


@pytest.mark.parametrize(("alpha", "build"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_file_has_the_effect_of_its_matrices_by_hand(
    load: Callable[[], SD1Model], tmp_path: Path, alpha: float, build: Build
) -> None:
    model, base = load(), load()
    updates = random_updates(model)
    loaded = load_adapters(model.networks, [AdapterRef(build(updates, tmp_path / "pytorch_lora_weights.safetensors"))])
    assert error(model, base) > 0.01
    assert error(model, merged(load(), updates, alpha / 4)) < 1e-5
    assert {part: set(layers) for part, layers in loaded[0].layers.items()} == {
        "unet": set(UNET),
        "text_encoder": set(TEXT),
    }


def test_a_peft_folder_of_one_network_finds_it(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    for part in ("unet", "text_encoder"):
        model = load()
        updates = {key: value for key, value in random_updates(model).items() if key[0] == part}
        folder = peft_folder(updates, tmp_path / part / "mine", {"r": 4, "lora_alpha": 2}, part)
        loaded = load_adapters(model.networks, [AdapterRef(folder)])
        assert set(loaded[0].layers) == {part}
        assert error(model, merged(load(), updates, 2 / 4)) < 1e-5


def test_the_names_of_old_attention_processors_are_read(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    block = "mid_block.attentions.0.transformer_blocks.0.attn1"
    tensors, updates = {}, {}
    generator = torch.Generator().manual_seed(0)
    for layer, path in (("q", "to_q"), ("out", "to_out.0")):
        down, up = torch.randn(4, 64, generator=generator) * 0.3, torch.randn(64, 4, generator=generator) * 0.3
        tensors[f"{block}.processor.to_{layer}_lora.down.weight"] = down
        tensors[f"{block}.processor.to_{layer}_lora.up.weight"] = up
        updates["unet", f"{block}.{path}"] = down, up
    save_file(tensors, tmp_path / "x.safetensors")
    load_adapters(model.networks, [AdapterRef(tmp_path / "x.safetensors")])
    assert error(model, merged(load(), updates, 1.0)) < 1e-5


def test_a_kohya_file_reads_as_diffusers_reads_it(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model, other = load(), load()
    file = kohya(random_updates(model, text=False), tmp_path / "x.safetensors", 8)
    load_adapters(model.networks, [AdapterRef(file)])
    other.pipeline().load_lora_weights(tmp_path, weight_name=file.name)
    assert error(model, other) < 1e-5


def test_layers_of_different_rank_and_alpha_keep_their_own(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    tensors, expected = {}, load()
    for index, (key, (down, up)) in enumerate(random_updates(model, rank=4).items()):
        rank, alpha = index + 1, 2.0 * index + 1
        file = kohya({key: (down[:rank], up[:, :rank].contiguous())}, tmp_path / "part.safetensors", alpha)
        tensors |= load_file(file)
        merged(expected, {key: (down[:rank], up[:, :rank])}, alpha / rank)
    save_file(tensors, tmp_path / "x.safetensors")
    load_adapters(model.networks, [AdapterRef(tmp_path / "x.safetensors")])
    assert error(model, expected) < 1e-5


def test_a_linear_file_fits_a_pointwise_convolution_and_the_other_way(
    load: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model = load()
    updates = random_updates(model)
    swapped = {
        key: tuple(m.flatten(1) if m.dim() == 4 else m[..., None, None] for m in matrices)
        for key, matrices in updates.items()
    }
    load_adapters(model.networks, [AdapterRef(kohya(swapped, tmp_path / "x.safetensors", 4))])
    assert error(model, merged(load(), updates, 1.0)) < 1e-5


# ----------------------------------------------------------------------------------------------- several, with weights
def test_several_adapters_add_up_with_their_weights(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    first, second = random_updates(model, seed=1), random_updates(model, rank=2, seed=2, text=False)
    refs = [
        AdapterRef(kohya(first, tmp_path / "a.safetensors", 8), 0.5),
        AdapterRef(diffusers_file(second, tmp_path / "b.safetensors", {"r": 2, "lora_alpha": 1}), -0.7),
    ]
    loaded = load_adapters(model.networks, refs)
    assert error(model, merged(merged(load(), first, 0.5 * 8 / 4), second, -0.7 * 1 / 2)) < 1e-5
    assert [(adapter.name, adapter.weight) for adapter in loaded] == [("a", 0.5), ("b", -0.7)]


def test_a_pipeline_around_the_networks_has_the_adapters(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    file = kohya(random_updates(model), tmp_path / "x.safetensors", 8)
    pipeline = model.pipeline()
    load_adapters(pipeline.components, [AdapterRef(file)])
    other = load()
    load_adapters(other.networks, [AdapterRef(file)])
    assert torch.equal(probe(model), probe(other))


@pytest.mark.parametrize("dora", [False, True])
def test_weight_zero_is_the_base_exactly(load: Callable[[], SD1Model], tmp_path: Path, dora: bool) -> None:
    model, base = load(), load()
    file = kohya(random_updates(model), tmp_path / "x.safetensors", 8)
    if dora:
        add_dora(file, model)
    load_adapters(model.networks, [AdapterRef(file, 0.0)])
    assert torch.equal(probe(model), probe(base))


def add_dora(file: Path, model: SD1Model) -> dict[str, Tensor]:
    """Gives each layer of a kohya file magnitudes 1.5 times those of the base."""
    tensors = load_file(file)
    for part, paths in (("unet", UNET), ("text_encoder", TEXT)):
        for path in paths:
            weight = model.networks[part].get_submodule(path).weight.detach()
            name = f"lora_{'unet_' if part == 'unet' else 'te_text_model_'}{path.replace('.', '_')}.dora_scale"
            tensors[name] = 1.5 * weight.flatten(1).norm(dim=1, keepdim=True)
    save_file(tensors, file)
    return tensors


def test_dora_has_the_effect_of_its_equation(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    """Weight = magnitude * (W + BA) / norm of each row of (W + BA): arXiv:2402.09353, equation 5."""
    model, expected = load(), load()
    updates = random_updates(model)
    file = kohya(updates, tmp_path / "x.safetensors", 2)
    add_dora(file, model)
    with torch.no_grad():
        for (part, path), (down, up) in updates.items():
            weight = expected.networks[part].get_submodule(path).weight
            rows = weight.flatten(1)
            moved = rows + 2 / 4 * up.flatten(1) @ down.flatten(1)
            new = 1.5 * rows.norm(dim=1, keepdim=True) * moved / moved.norm(dim=1, keepdim=True)
            weight.copy_(new.reshape(weight.shape))
    load_adapters(model.networks, [AdapterRef(file)])
    assert error(model, expected) < 1e-5


# -------------------------------------------------------------------------------------------------- nothing silently
def test_a_run_folder_gives_its_export(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    run = RunDir(tmp_path / "run")
    (run.export / "diffusers").mkdir(parents=True)
    run.config.write_text("kind: x")
    run.status.write_text("{}")
    with pytest.raises(UserError, match="no exported LoRA yet"):
        load_adapters(model.networks, [AdapterRef(run.path)])
    updates = random_updates(model)
    diffusers_file(updates, run.export / "diffusers" / "pytorch_lora_weights.safetensors", {"r": 4, "lora_alpha": 8})
    (loaded,) = load_adapters(model.networks, [AdapterRef(run.path)])
    assert loaded.name == "run"
    assert error(model, merged(load(), updates, 2.0)) < 1e-5


def refused(model: SD1Model, path: Path) -> str:
    """The message of the refusal; the model must be as before."""
    before = probe(model)
    with pytest.raises(UserError) as caught:
        load_adapters(model.networks, [AdapterRef(path)])
    assert not any(lora_layers(network) for network in model.networks.values())
    assert torch.equal(probe(model), before)
    return str(caught.value)


def test_a_layer_that_the_model_lacks_is_named(tiny_model: SD1Model, tmp_path: Path) -> None:
    updates = random_updates(tiny_model)
    file = diffusers_file(updates, tmp_path / "x.safetensors", {"r": 4, "lora_alpha": 8})
    tensors = load_file(file)
    tensors["unet.down_blocks.9.attn.to_q.lora_A.weight"] = torch.zeros(4, 4)
    tensors["unet.down_blocks.9.attn.to_q.lora_B.weight"] = torch.zeros(4, 4)
    save_file(tensors, file)
    assert "1 of its 5 layers are not in this model; the first is 'unet.down_blocks.9.attn.to_q'" in refused(
        tiny_model, file
    )


def test_a_lora_of_a_wider_model_is_refused_with_both_shapes(tiny_model: SD1Model, tmp_path: Path) -> None:
    updates = {("unet", UNET[0]): (torch.zeros(4, 1280), torch.zeros(1280, 4))}
    message = refused(tiny_model, kohya(updates, tmp_path / "x.safetensors", 4))
    assert "[4, 1280] and [1280, 4] do not fit the layer's weight [64, 64]" in message


def test_a_lora_of_another_width_does_not_fit_stable_diffusion_2(tmp_path: Path) -> None:
    other = SD1(path=str(save_tiny(tmp_path / "sd2", sd2=True))).load()
    file = kohya({("unet", UNET[0]): (torch.zeros(4, 32), torch.zeros(64, 4))}, tmp_path / "x.safetensors", 4)
    assert "do not fit" in refused(other, file)


def test_adapters_on_adapters_are_an_error(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    ref = AdapterRef(kohya(random_updates(model), tmp_path / "x.safetensors", 8))
    load_adapters(model.networks, [ref])
    with pytest.raises(ValueError, match="already"):
        load_adapters(model.networks, [ref])


def test_an_error_in_the_second_file_leaves_the_model_untouched(tiny_model: SD1Model, tmp_path: Path) -> None:
    good = kohya(random_updates(tiny_model), tmp_path / "x.safetensors", 8)
    with pytest.raises(UserError, match="does not exist"):
        load_adapters(tiny_model.networks, [AdapterRef(good), AdapterRef(tmp_path / "none")])
    assert not lora_layers(tiny_model.unet)


def test_the_weights_do_not_train_and_random_streams_stay(load: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load()
    file = kohya(random_updates(model), tmp_path / "x.safetensors", 8)
    state = torch.get_rng_state()
    load_adapters(model.networks, [AdapterRef(file)])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for network in model.networks.values() for p in network.parameters())


def test_pickles_are_refused_in_files_and_folders(tiny_model: SD1Model, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\x80\x04N.")
    assert "pickle" in refused(tiny_model, tmp_path / "x.bin")
    assert "pickle" in refused(tiny_model, tmp_path)
    (tmp_path / "y.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "pickle" in refused(tiny_model, tmp_path / "y.safetensors")


SPOILED: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one matrix missing": (lambda t: t.pop("unet.a.lora_B.weight"), "one of its two matrices is missing"),
    "matrices that do not match": (
        lambda t: t.update({"unet.a.lora_B.weight": torch.zeros(4, 3)}),
        "do not fit together",
    ),
    "no matrices": (lambda t: t.update({"unet.a.lora_A.weight": torch.zeros(4)}), "do not fit together"),
    "a tensor of something else": (lambda t: t.update({"unet.conv_in.weight": torch.zeros(4)}), "belongs to no LoRA"),
    "LoHa": (lambda t: t.update({"lora_unet_a.hada_w1_a": torch.zeros(4)}), "LoHa"),
    "LoKr": (lambda t: t.update({"lora_unet_a.lokr_w1": torch.zeros(4)}), "LoKr"),
    "alpha that is not finite": (lambda t: t.update({"unet.a.alpha": torch.tensor(float("nan"))}), "alpha"),
    "two alphas": (lambda t: t.update({"unet.a.alpha": torch.ones(2)}), "alpha"),
    "magnitudes for other outputs": (
        lambda t: t.update({"unet.a.lora_magnitude_vector": torch.ones(1, 7)}),
        "magnitude has shape",
    ),
    "nothing": (lambda t: t.clear(), "no tensors"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED.keys())
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    tensors = {"unet.a.lora_A.weight": torch.zeros(2, 4), "unet.a.lora_B.weight": torch.zeros(4, 2)}
    spoil(tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=message):
        read_adapter_file(tmp_path / "x.safetensors")


def test_a_header_that_speaks_of_dora_without_magnitudes_is_refused(tiny_model: SD1Model, tmp_path: Path) -> None:
    config = {"r": 4, "lora_alpha": 8, "use_dora": True}
    file = diffusers_file(random_updates(tiny_model), tmp_path / "x.safetensors", config)
    assert "DoRA's magnitude and the config disagree" in refused(tiny_model, file)


def test_a_header_that_is_silent_about_one_network_is_refused(tiny_model: SD1Model, tmp_path: Path) -> None:
    file = diffusers_file(random_updates(tiny_model), tmp_path / "x.safetensors", None)
    save_file(load_file(file), file, metadata={"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 8}'})
    assert "tells the strength of unet, not of text_encoder" in refused(tiny_model, file)

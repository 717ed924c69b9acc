"""Adapters leave as a file with kohya's names, LoHa and LoKr as a PEFT folder too; all give what was trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from limner.core.errors import UserError
from limner.export import default_exports
from limner.export.kohya import Kohya
from limner.export.peft import Peft
from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1Model

METADATA = {"format": "pt", "limner.trigger_word": "sks", "limner.base_model": "tiny"}
CONV = ("to_q", "to_out.0", "conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out", "proj_in")
SPLIT = Lokr(rank=2, alpha=3, targets=CONV, decompose_factor=4, text_encoder=True)
METHODS: dict[str, Loha | Lokr] = {
    "LoHa": Loha(rank=4, alpha=6),
    "LoHa everywhere": Loha(rank=2, alpha=1, targets=CONV, text_encoder=True),
    "LoKr": Lokr(rank=2, alpha=6),
    "LoKr everywhere": SPLIT,
    "LoKr, all split": Lokr(
        rank=1, alpha=0.5, targets=CONV, decompose_factor=4, decompose_both=True, use_effective_conv2d=True
    ),
    "LoKr, whole": Lokr(rank=1000, alpha=300, targets=CONV),
}
Trained = tuple[SD1Model, Trainable]
Train = Callable[[Lora | Loha | Lokr], Trained]
LORAS = {
    "LoRA": Lora(rank=4, alpha=6),
    "LoRA everywhere": Lora(rank=2, alpha=1, targets=CONV, text_encoder=True),
}


ALL = METHODS | LORAS


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def trained(request: pytest.FixtureRequest, train: Train) -> Trained:
    return train(request.param)


def test_a_peft_folder_predicts_what_was_trained(
    trained: Trained, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = trained
    result = Peft().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.reader.startswith("PEFT")
    assert result.max_error < 1e-5
    assert result.effect > 0.01
    by_peft, by_limner = fresh_base(), fresh_base()
    for part in trainable.parts:
        PeftModel.from_pretrained(by_peft.networks[part], tmp_path / "out" / part)
    load_adapters(by_limner.networks, [AdapterRef(tmp_path / "out")])
    for fresh in (by_peft, by_limner):
        assert difference(probe(fresh), probe(model)).relative < 1e-5


def test_a_file_of_lycoris_predicts_what_was_trained(
    trained: Trained, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = trained
    result = Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.effect > 0.01
    fresh = fresh_base()
    load_adapters(fresh.networks, [AdapterRef(tmp_path / "out")])
    assert difference(probe(fresh), probe(model)).relative < 1e-5


def delta(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A linear layer's update as ComfyUI computes it of the file: alpha / rank counts only where something is split."""
    part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    alpha = float(part["alpha"])
    if "lora_up.weight" in part:
        return part["lora_up.weight"] @ part["lora_down.weight"] * alpha / part["lora_down.weight"].shape[0]
    if "hada_w1_a" in part:
        products = part["hada_w1_a"] @ part["hada_w1_b"], part["hada_w2_a"] @ part["hada_w2_b"]
        return products[0] * products[1] * alpha / part["hada_w1_b"].shape[0]
    rank, halves = None, []
    for half in ("lokr_w1", "lokr_w2"):
        if half in part:
            halves.append(part[half])
        else:
            halves.append(part[f"{half}_a"] @ part[f"{half}_b"])
            rank = part[f"{half}_b"].shape[0]
    return torch.kron(*halves) * (1.0 if rank is None else alpha / rank)


@pytest.mark.parametrize("name", ALL)
def test_the_update_of_the_file_by_formula_is_the_one_of_peft(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path, name: str
) -> None:
    model, trainable = train(ALL[name])
    Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    tensors = load_file(tmp_path / "out" / "kohya.safetensors")
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    expected = model.unet.get_submodule(path).get_delta_weight("default").detach()
    torch.testing.assert_close(delta(tensors, f"lora_unet_{path.replace('.', '_')}"), expected, rtol=1e-5, atol=1e-6)


def test_the_names_and_shapes_are_those_that_comfyui_and_a1111_look_for(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    def written(method: Loha | Lokr, start: str) -> dict[str, tuple[int, ...]]:
        model, trainable = train(method)
        Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
        tensors = load_file(tmp_path / "out" / "kohya.safetensors")
        assert all(name.startswith(("lora_unet_", "lora_te_text_model_encoder_layers_")) for name in tensors)
        return {n.removeprefix(start): tuple(t.shape) for n, t in tensors.items() if n.startswith(start)}

    conv = "lora_unet_down_blocks_1_resnets_0_conv1."  # 32 to 64 channels, 3x3
    assert written(METHODS["LoHa everywhere"], conv) == {
        "hada_w1_a": (64, 2), "hada_w1_b": (2, 288), "hada_w2_a": (64, 2), "hada_w2_b": (2, 288), "alpha": (),
    }  # fmt: skip
    assert written(SPLIT, conv) == {"lokr_w1": (4, 4), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 72), "alpha": ()}
    assert written(METHODS["LoKr, all split"], conv) == {
        "lokr_w1_a": (4, 1), "lokr_w1_b": (1, 4), "lokr_w2_a": (1, 16), "lokr_w2_b": (1, 8), "lokr_t2": (1, 1, 3, 3),
        "alpha": (),
    }  # fmt: skip
    assert written(METHODS["LoKr, whole"], conv) == {"lokr_w1": (8, 4), "lokr_w2": (8, 8, 3, 3), "alpha": ()}
    assert written(SPLIT, "lora_te_text_model_encoder_layers_0_self_attn_q_proj.").keys() >= {"lokr_w1", "alpha"}


def test_the_headers_tell_algorithm_rank_alpha_and_trigger_word(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Loha(rank=4, alpha=6))
    for export in default_exports("sd1", "loha"):
        export.write(model, trainable, tmp_path / export.kind, METADATA, fresh_base=fresh_base)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kohya", "peft"]
    for file in (
        tmp_path / "kohya" / "kohya.safetensors",
        tmp_path / "peft" / "unet" / "adapter_model.safetensors",
    ):
        with safe_open(file, "pt") as opened:
            header = opened.metadata()
        assert json.loads(header["ss_network_args"]) == {"algo": "loha"}
        assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "6")
        assert (header["limner.trigger_word"], header["ss_base_model_version"]) == ("sks", "sd_v1")
    config = json.loads((tmp_path / "peft" / "unet" / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "LOHA", "task_type": None, "auto_mapping": None, "base_model_name_or_path": "tiny",
        "inference_mode": True, "r": 4, "alpha": 6.0, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": ["to_k", "to_out.0", "to_q", "to_v"],
    }  # fmt: skip


def test_diffusers_reads_the_denoisers_part_of_a_lora(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(rank=2, alpha=6, targets=CONV))
    Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    fresh = fresh_base()
    fresh.pipeline().load_lora_weights(tmp_path / "out", weight_name="kohya.safetensors")
    assert difference(probe(fresh), probe(model)).relative < 1e-5


def test_a_lora_has_kohyas_names_and_its_own_alpha(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(LORAS["LoRA everywhere"])
    Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    tensors = load_file(tmp_path / "out" / "kohya.safetensors")
    starts = {
        "lora_unet_down_blocks_1_resnets_0_conv1": ((2, 32, 3, 3), (64, 2, 1, 1)),
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": ((2, 32), (32, 2)),
    }
    for start, (down, up) in starts.items():
        assert tuple(tensors[f"{start}.lora_down.weight"].shape) == down
        assert tuple(tensors[f"{start}.lora_up.weight"].shape) == up
        assert float(tensors[f"{start}.alpha"]) == 1
    assert {name.rpartition(".alpha")[0] for name in tensors if name.endswith(".alpha")} == {
        name.removesuffix(".lora_up.weight") for name in tensors if name.endswith(".lora_up.weight")
    }
    with safe_open(tmp_path / "out" / "kohya.safetensors", "pt") as opened:
        header = opened.metadata()
    assert header["ss_network_module"] == "networks.lora"
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_base_model_version"]) == (
        "2",
        "1",
        "sd_v1",
    )


def test_dora_is_refused_since_programs_disagree_on_it(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(dora=True))
    with pytest.raises(UserError, match="ComfyUI and Forge divide by the norm of the base"):
        Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())
    assert [one.kind for one in default_exports("sd1", "lora", dora=True)] == ["diffusers", "peft"]


def test_half_precision_files_hold_halves_and_stay_close(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(SPLIT)
    Kohya(dtype="float16").write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert {t.dtype for t in load_file(tmp_path / "out" / "kohya.safetensors").values()} == {torch.float16}
    fresh = fresh_base()
    load_adapters(fresh.networks, [AdapterRef(tmp_path / "out")])
    assert 0 < difference(probe(fresh), probe(model)).relative < 1e-2


def test_a_file_with_another_alpha_is_refused(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limner.export import kohya

    write = kohya.write_atomic

    def doubled(path: Path, data: bytes) -> None:
        write(path, data)
        save_file({name: value * (2 if name.endswith("alpha") else 1) for name, value in load_file(path).items()}, path)

    monkeypatch.setattr(kohya, "write_atomic", doubled)
    model, trainable = train(Loha(alpha=8))
    with pytest.raises(UserError, match="predicts something else"):
        Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())


def test_something_trained_beside_the_adapter_is_an_error(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Loha())
    trainable.params["unet.conv_in.bias"] = model.unet.conv_in.bias
    for export in (Peft(), Kohya()):
        with pytest.raises(RuntimeError, match="conv_in"):
            export.write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------- LyCORIS' own code
READ_BY_LYCORIS = """
import sys
import torch
from safetensors.torch import load_file, save_file
from lycoris.wrapper import LycorisNetwork, create_lycoris_from_weights
sys.path.insert(0, sys.argv[1])
from diffusers import UNet2DConditionModel
unet = UNet2DConditionModel.from_pretrained(sys.argv[2], subfolder="unet").eval()
inputs = load_file(sys.argv[4])
LycorisNetwork.LORA_PREFIX = "lora_unet"
network, _ = create_lycoris_from_weights(1.0, sys.argv[3], unet)
network.apply_to()
with torch.no_grad():
    answer = unet(inputs["x"], inputs["t"], inputs["states"]).sample
save_file({"answer": answer.contiguous(), "layers": torch.tensor(len(network.loras))}, sys.argv[5])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "LoKr, all split"])
def test_the_package_of_lycoris_predicts_what_was_trained(
    train: Train, fresh_base: Callable[[], SD1Model], base_folder: Path, tmp_path: Path, name: str
) -> None:
    """In a process of its own.

    Its reader cannot build a LoKr with a core (it takes the rank from the wrong side), nor one whose first matrix is
    wider than its second, as PEFT makes it of the 4 channels of conv_in and conv_out with a factor of 4.
    """
    where = os.environ.get("LIMNER_LYCORIS", "")
    method = METHODS[name].model_copy(update={"text_encoder": False})
    if method.kind == "lokr" and method.decompose_factor == 4:
        method = method.model_copy(update={"targets": tuple(t for t in CONV if t not in ("conv_in", "conv_out"))})
    model, trainable = train(method)
    Kohya().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    inputs = {"x": torch.randn(2, 4, 16, 16), "t": torch.tensor([100, 700]), "states": torch.randn(2, 77, 32)}
    save_file(inputs, tmp_path / "inputs.safetensors")
    arguments = (Path.cwd(), base_folder, tmp_path / "out" / "kohya.safetensors")
    files = (tmp_path / "inputs.safetensors", tmp_path / "answer.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_LYCORIS, *map(str, (*arguments, *files))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": where, "HF_HUB_OFFLINE": "1"},
    )
    if "No module named 'lycoris'" in done.stderr:
        pytest.skip(
            "needs lycoris-lora: pip install --no-deps --target FOLDER lycoris-lora einops toml; LIMNER_LYCORIS"
        )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = load_file(files[1])
    with torch.no_grad():
        trained = model.unet.eval()(inputs["x"], inputs["t"], inputs["states"]).sample
        base = fresh_base().unet(inputs["x"], inputs["t"], inputs["states"]).sample
    assert int(answer["layers"]) == len({key.rsplit(".", 2)[0] for key in trainable.params})
    assert difference(answer["answer"], trained).relative < 1e-5
    assert difference(base, trained).relative > 0.01

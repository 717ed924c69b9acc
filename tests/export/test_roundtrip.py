"""What is exported and read by another program's code predicts and draws what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from limner.core.errors import UserError
from limner.export import default_exports
from limner.export.diffusers import Diffusers
from limner.export.peft import Peft
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

Trained = tuple[SD1Model, Trainable]
METADATA = {"format": "pt", "limner.trigger_word": "sks", "limner.base_model": "tiny"}
CONV = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_shortcut", "conv", "conv_in", "conv_out", "proj_in")
METHODS = {
    "alpha twice the rank": Lora(rank=4, alpha=8),
    "alpha below one": Lora(rank=4, alpha=0.5),
    "text encoder": Lora(rank=2, alpha=3, text_encoder=True),
    "text encoder without out_proj": Lora(rank=2, text_encoder=True, text_encoder_targets=("q_proj", "fc1")),
    "DoRA": Lora(rank=3, alpha=6, dora=True, text_encoder=True),
    "convolutions": Lora(rank=2, alpha=4, targets=CONV),
    "DoRA on convolutions": Lora(rank=2, alpha=4, targets=CONV, dora=True),
    "rank above the width": Lora(rank=80, alpha=3),
}


def draw(pipeline: StableDiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    image = pipeline("a red circle", num_inference_steps=2, generator=generator, height=64, width=64).images[0]
    return np.asarray(image).astype(int)


def assert_limner_reads(export: Path, trained: SD1Model, fresh: SD1Model) -> None:
    load_adapters(fresh.networks, [AdapterRef(export)])
    assert difference(probe(fresh), probe(trained)).relative < 1e-5


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def lora(request: pytest.FixtureRequest, train: Callable[[Lora], Trained]) -> Trained:
    return train(request.param)


def test_a_lora_read_by_diffusers_draws_the_trained_picture(
    lora: Trained, base_folder: Path, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = lora
    result = Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.path == tmp_path / "out"
    assert result.max_error < 1e-5
    assert result.effect > 0.01
    pipeline = StableDiffusionPipeline.from_pretrained(base_folder)
    plain = draw(pipeline)
    pipeline.load_lora_weights(tmp_path / "out")
    assert np.abs(draw(pipeline) - draw(model.pipeline())).max() <= 1
    assert np.abs(draw(pipeline) - plain).max() > 10
    assert_limner_reads(tmp_path / "out", model, fresh_base())


def test_a_lora_read_by_peft_predicts_what_was_trained(
    lora: Trained, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = lora
    Peft().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    fresh = fresh_base()
    for part in trainable.parts:
        PeftModel.from_pretrained(fresh.networks[part], tmp_path / "out" / part)
    assert difference(probe(fresh), probe(model)).relative < 1e-5
    assert_limner_reads(tmp_path / "out", model, fresh_base())


@pytest.mark.parametrize("method", [Full(), Full(text_encoder=True)], ids=["denoiser", "with text encoder"])
def test_a_full_model_read_by_diffusers_draws_the_trained_picture(
    method: Full, train: Callable[[Full], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(method)
    result = Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.max_error < 1e-5
    assert result.effect > 0.01
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", use_safetensors=True)
    assert np.abs(draw(pipeline) - draw(model.pipeline())).max() <= 1
    again = SD1(path=str(tmp_path / "out")).load()
    assert difference(probe(again), probe(model)).relative < 1e-5


def test_half_precision_files_hold_halves_and_stay_close(
    train: Callable[[Lora | Full], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    for name, method in (("lora", Lora(alpha=8)), ("full", Full())):
        model, trainable = train(method)
        Diffusers(dtype="float16").write(model, trainable, tmp_path / name, METADATA, fresh_base=fresh_base)
        files = list((tmp_path / name).rglob("*.safetensors"))
        assert files
        assert {tensor.dtype for file in files for tensor in load_file(file).values()} == {torch.float16}
    again = SD1(path=str(tmp_path / "full")).load()
    assert 0 < difference(probe(again), probe(model)).relative < 1e-2


def test_a_model_trained_in_bfloat16_exports_its_float32_updates(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(alpha=8, text_encoder=True))
    expected = probe(model)
    updates = {name: parameter.data.clone() for name, parameter in trainable.params.items()}
    model.to(torch.device("cpu"), torch.bfloat16)
    for name, parameter in trainable.params.items():
        parameter.data = updates[name]
    Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    fresh = fresh_base()
    fresh.pipeline().load_lora_weights(tmp_path / "out")
    assert difference(probe(fresh), expected).relative < 1e-5


# ------------------------------------------------------------------------------------------- the files themselves
def test_the_lora_file_tells_alpha_trigger_word_and_base(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(rank=4, alpha=8, text_encoder=True))
    Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", "pt") as file:
        header, keys = file.metadata(), list(file.keys())
    config = json.loads(header["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"], config["text_encoder.lora_alpha"]) == (4, 8, 8)
    assert header["limner.trigger_word"] == "sks"
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "8")
    assert (header["modelspec.architecture"], header["ss_base_model_version"]) == ("stable-diffusion-v1/lora", "sd_v1")
    text = [key for key in keys if key.startswith("text_encoder.")]
    assert text
    assert all(key.startswith("text_encoder.text_model.encoder.layers.") for key in text)


def test_the_same_training_gives_the_same_bytes(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        model, trainable = train(Lora(text_encoder=True))
        for export in default_exports("sd1", "lora"):
            export.write(model, trainable, tmp_path / name / export.kind, METADATA, fresh_base=fresh_base)
    written = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert len(written) == 9
    for path in written:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_the_peft_config_has_no_field_that_an_older_peft_refuses(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(dora=True, dropout=0.1))
    Peft().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    config = json.loads((tmp_path / "out" / "unet" / "adapter_config.json").read_text())
    assert set(config) == {
        "peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "inference_mode", "bias", "r",
        "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "target_modules", "use_dora",
    }  # fmt: skip
    assert config["base_model_name_or_path"] == "tiny"


def test_a_full_folder_has_the_names_and_files_that_older_releases_want(
    train: Callable[[Full], Trained], fresh_base: Callable[[], SD1Model], base_folder: Path, tmp_path: Path
) -> None:
    model, trainable = train(Full())
    Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    names = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    vocabulary = json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text())
    assert vocabulary == model.tokenizer.get_vocab()
    merges = (tmp_path / "out" / "tokenizer" / "merges.txt").read_text().splitlines()
    assert merges[0] == "#version: 0.2"
    assert "d o" in merges
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / "tokenizer" / name).read_bytes() == (base_folder / "tokenizer" / name).read_bytes()
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_a_saved_folder_does_not_tell_where_the_base_lay(
    train: Callable[[Lora | Full], Trained], fresh_base: Callable[[], SD1Model], base_folder: Path, tmp_path: Path
) -> None:
    for name, method in (("lora", Lora(text_encoder=True)), ("full", Full())):
        model, trainable = train(method)
        for export in default_exports("sd1", method.kind):
            export.write(model, trainable, tmp_path / name / export.kind, METADATA, fresh_base=fresh_base)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert base_folder.name.encode() not in path.read_bytes(), path


def test_classes_that_the_base_names_are_kept(train: Callable[[Full], Trained], tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "CLIPTokenizerFast"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (base / "model_index.json").write_text(json.dumps(index))
    fresh_base = SD1(path=str(base)).load
    model, trainable = train(Full())
    Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    written = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert written["tokenizer"] == ["transformers", "CLIPTokenizerFast"]
    assert written["safety_checker"] == [None, None]


# ------------------------------------------------------------------------------------------------ what must not pass
def test_a_file_that_lost_its_alpha_is_refused(
    train: Callable[[Lora], Trained],
    fresh_base: Callable[[], SD1Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from limner.export import diffusers

    write = diffusers.write_atomic

    def without_metadata(path: Path, data: bytes) -> None:
        write(path, data)
        save_file(load_file(path), path)

    monkeypatch.setattr(diffusers, "write_atomic", without_metadata)
    model, trainable = train(Lora(rank=4, alpha=8))
    with pytest.raises(UserError, match="predicts something else"):
        Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())


def test_a_weak_lora_that_got_lost_is_refused(
    train: Callable[[Lora], Trained],
    fresh_base: Callable[[], SD1Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from limner.export import diffusers

    write = diffusers.write_atomic

    def emptied(path: Path, data: bytes) -> None:
        write(path, data)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file({name: tensor * 0 for name, tensor in load_file(path).items()}, path, metadata=metadata)

    model, trainable = train(Lora())
    for name, parameter in trainable.params.items():
        if ".lora_B." in name:
            parameter.data *= 1e-6
    assert Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base).effect < 1e-4
    monkeypatch.setattr(diffusers, "write_atomic", emptied)
    with pytest.raises(UserError, match="predicts something else"):
        Diffusers().write(model, trainable, tmp_path / "other", METADATA, fresh_base=fresh_base)


def test_something_trained_beside_the_lora_is_an_error(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora())
    trainable.params["unet.conv_in.bias"] = model.unet.conv_in.bias
    with pytest.raises(RuntimeError, match="conv_in"):
        Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())


def test_an_earlier_export_is_replaced_and_other_files_are_not(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora())
    for trigger in ("one", "two"):
        metadata = {**METADATA, "limner.trigger_word": trigger}
        Diffusers().write(model, trainable, tmp_path / "out", metadata, fresh_base=fresh_base)
    assert json.loads((tmp_path / "out" / "limner.json").read_text())["limner"]["limner.trigger_word"] == "two"
    (tmp_path / "out" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holiday\.jpg"):
        Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert (tmp_path / "out" / "holiday.jpg").read_bytes() == b"mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_the_model_in_training_is_left_as_it_was(
    train: Callable[[Lora], Trained], fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(Lora(text_encoder=True))
    model.train_mode(trainable.parts)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    state = torch.get_rng_state()
    for export in default_exports("sd1", "lora"):
        export.write(model, trainable, tmp_path / export.kind, METADATA, fresh_base=fresh_base)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.unet.training
    assert all(parameter.requires_grad for parameter in trainable.params.values())
    after = model.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

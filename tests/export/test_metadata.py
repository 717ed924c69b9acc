"""Exported files say what they are, and in private nothing about the person who made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from limner.config import RunConfig
from limner.core.config import validate
from limner.export import default_exports
from limner.export.metadata import file_metadata, safetensors_bytes, without_names
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.sd1 import SD1Model

SECRETS = ("annas", "holiday", "bob", "paris", "revision-x")
RECIPE = {
    "out": "/home/annas/runs/holiday",
    "model": {"kind": "sd1", "path": "/home/annas/models/my-base", "revision": "revision-x"},
    "dataset": {"kind": "folder", "path": "/home/annas/holiday", "caption": "a photo of bob"},
    "method": {"kind": "lora", "rank": 4, "alpha": 8},
    "train": {"steps": 5},
    "samples": {"prompts": ["bob in paris"], "negative": "annas", "every": 2},
    "cache": {"folder": "/home/annas/cache"},
    "export": [{"kind": "diffusers", "dtype": "float16"}],
    "trigger_word": "sks",
}


def metadata(private: bool, base: str = "/home/annas/models/my-base") -> dict[str, str]:
    config = validate(RunConfig, RECIPE, where="test")
    return file_metadata(
        base=base,
        base_hash="b" * 64,
        manifest="d" * 64,
        trigger_word=config.trigger_word,
        step=5,
        settings=config.model_dump(mode="json"),
        resolution=512,
        prediction_type="v_prediction",
        private=private,
    )


def test_the_header_tells_base_data_trigger_word_and_settings() -> None:
    texts = metadata(private=False)
    assert texts["format"] == "pt"
    assert texts["limner.base_model"] == "my-base"
    assert (texts["limner.base_model_hash"], texts["limner.data_hash"]) == ("b" * 64, "d" * 64)
    assert (texts["limner.trigger_word"], texts["limner.step"]) == ("sks", "5")
    settings = json.loads(texts["limner.settings"])
    assert settings["dataset"]["path"] == "/home/annas/holiday"
    assert settings["method"]["alpha"] == 8
    assert texts["modelspec.sai_model_spec"] == "1.0.1"
    assert (texts["modelspec.resolution"], texts["modelspec.prediction_type"]) == ("512x512", "v")
    assert texts["modelspec.title"] == "sks on my-base"
    assert all(isinstance(text, str) and text for text in texts.values())


def test_in_private_no_name_of_the_users_is_left() -> None:
    texts = metadata(private=True)
    whole = json.dumps(texts)
    assert not [secret for secret in (*SECRETS, "my-base") if secret in whole]
    assert texts["limner.trigger_word"] == "sks"
    assert texts["limner.base_model_hash"] == "b" * 64
    settings = json.loads(texts["limner.settings"])
    assert settings["method"]["kind"] == "lora"
    assert settings["method"]["targets"] == ["to_q", "to_k", "to_v", "to_out.0"]
    assert settings["export"] == [{"kind": "diffusers"}]
    assert settings["optimizer"]["lr"] == 1e-4


def test_a_model_of_the_hub_is_named_in_private_too() -> None:
    assert metadata(private=True, base="CompVis/stable-diffusion-v1-4")["limner.base_model"] == (
        "CompVis/stable-diffusion-v1-4"
    )


@pytest.mark.parametrize("method", [Lora(text_encoder=True), Full()], ids=["lora", "full"])
def test_no_byte_of_a_private_export_names_the_users_folders(
    method: Lora | Full,
    train: Callable[[Lora | Full], tuple[SD1Model, Trainable]],
    fresh_base: Callable[[], SD1Model],
    base_folder: Path,
    tmp_path: Path,
) -> None:
    model, trainable = train(method)
    for export in default_exports("sd1", trainable.kind):
        export.write(model, trainable, tmp_path / export.kind, metadata(private=True), fresh_base=fresh_base)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        data = path.read_bytes()
        for secret in (*SECRETS, "my-base", base_folder.name, str(tmp_path)):
            assert secret.encode() not in data, (path, secret)


def test_lists_and_nested_settings_lose_their_names_too() -> None:
    settings = {"a": [{"kind": "x", "name": "anna"}, {"n": 1}], "b": ("anna",), "c": {"d": "anna", "e": True}}
    assert without_names(settings) == {"a": [{"kind": "x"}, {"n": 1}], "c": {"e": True}}


def test_the_same_tensors_and_texts_give_the_same_file_that_safetensors_reads(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(3, dtype=torch.float16)}
    texts = {"zeta": "1", "alpha": "ümläut 狗", "format": "pt"}
    data = safetensors_bytes(tensors, texts)
    assert data == safetensors_bytes(dict(reversed(tensors.items())), dict(reversed(texts.items())))
    (tmp_path / "x.safetensors").write_bytes(data)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == texts
        assert torch.equal(file.get_tensor("b"), tensors["b"])
        assert torch.equal(file.get_tensor("a"), tensors["a"])

"""A new word leaves as files that others read, alone and together with the LoRA that was trained beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from limner.core.errors import UserError
from limner.export import default_exports
from limner.export.diffusers import Diffusers
from limner.export.embedding import Embedding, file_name
from limner.export.peft import Peft
from limner.methods.lora import Lora
from limner.methods.pivotal import Pivotal
from limner.methods.textual_inversion import TextualInversion
from limner.methods.trainable import Trainable
from limner.models.probe import difference, probe, prompts_about
from limner.models.sd1 import SD1Model
from tests.export.conftest import Trained

METADATA = {"format": "pt", "limner.base_model": "tiny"}
WORD = TextualInversion(token="<my-toy>", vectors=2, initialise="dog")
BOTH = Pivotal(
    token="<my-toy>", vectors=2, initialise="dog", lora=Lora(rank=2, alpha=6, text_encoder=True), token_lr_scale=2
)
ASKED = prompts_about("<my-toy>")
Train = Callable[[TextualInversion | Pivotal], Trained]


def vectors_of(trainable: Trainable) -> torch.Tensor:
    assert trainable.placeholder is not None
    return torch.stack([trainable.params[name].detach() for name in trainable.placeholder.vectors])


def assert_predicts(pipeline: StableDiffusionPipeline, model: SD1Model, fresh: SD1Model) -> None:
    """``fresh`` is the model around the pipeline's networks; the prediction is that of the trained one."""
    assert fresh.text_encoder is pipeline.text_encoder
    assert difference(probe(fresh, prompts=ASKED), probe(model, prompts=ASKED)).relative < 1e-5


@pytest.mark.parametrize("file", ["learned_embeds", "my-toy"])
def test_each_file_read_by_diffusers_predicts_what_was_trained(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path, file: str
) -> None:
    model, trainable = train(WORD)
    result = Embedding().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.max_error < 1e-5
    assert result.effect > 0.01
    fresh = fresh_base()
    pipeline = fresh.pipeline()
    token = None if file == "learned_embeds" else "<my-toy>"
    pipeline.load_textual_inversion(tmp_path / "out", weight_name=f"{file}.safetensors", token=token)
    assert_predicts(pipeline, model, fresh)


def test_the_files_hold_the_vectors_and_say_what_they_are(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(WORD)
    Embedding().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "learned_embeds.safetensors",
        "limner.json",
        "my-toy.safetensors",
    ]
    for file, name in (("learned_embeds", "<my-toy>"), ("my-toy", "emb_params")):
        path = tmp_path / "out" / f"{file}.safetensors"
        tensors = load_file(path)
        assert list(tensors) == [name]
        assert torch.equal(tensors[name], vectors_of(trainable))
        with safe_open(path, "pt") as opened:
            header = opened.metadata()
        assert header["limner.trigger_word"] == header["modelspec.trigger_phrase"] == "<my-toy>"
        assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"


@pytest.mark.parametrize(
    ("token", "name"),
    [("<my-dog>", "my-dog"), ("../../etc/passwd", "etc-passwd"), ("<*>", "embedding"), ("a/b\\c", "a-b-c")],
)
def test_a_word_is_a_safe_name_of_a_file(token: str, name: str) -> None:
    assert file_name(token) == name


def test_a_lora_and_its_word_read_together_by_diffusers_predict_what_was_trained(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(BOTH)
    result = Diffusers().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert result.max_error < 1e-5
    fresh = fresh_base()
    pipeline = fresh.pipeline()
    pipeline.load_lora_weights(tmp_path / "out", weight_name="pytorch_lora_weights.safetensors")
    assert difference(probe(fresh, prompts=ASKED), probe(model, prompts=ASKED)).relative > 1e-3  # the LoRA alone
    pipeline.load_textual_inversion(tmp_path / "out", weight_name="learned_embeds.safetensors")
    assert_predicts(pipeline, model, fresh)
    with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", "pt") as file:
        header = file.metadata()
    assert header["limner.placeholder"] == "<my-toy>"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_lora_read_by_peft_and_its_word_by_diffusers_predict_what_was_trained(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(BOTH)
    Peft().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    fresh = fresh_base()
    for part in trainable.parts:
        PeftModel.from_pretrained(fresh.networks[part], tmp_path / "out" / part)
    pipeline = fresh.pipeline()
    pipeline.load_textual_inversion(tmp_path / "out", weight_name="learned_embeds.safetensors")
    assert_predicts(pipeline, model, fresh)


def test_what_is_exported_where_nothing_is_asked_for() -> None:
    assert [one.kind for one in default_exports("sd1", "textual_inversion")] == ["embedding"]
    assert [one.kind for one in default_exports("sd1", "pivotal")] == ["diffusers", "peft", "kohya", "embedding"]


def test_every_export_of_pivotal_holds_the_same_word_and_the_same_bytes_again(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        model, trainable = train(BOTH)
        for export in default_exports("sd1", "pivotal"):
            export.write(model, trainable, tmp_path / name / export.kind, METADATA, fresh_base=fresh_base)
    words = [load_file(path) for path in (tmp_path / "a").rglob("learned_embeds.safetensors")]
    assert len(words) == 4
    assert all(torch.equal(word["<my-toy>"], vectors_of(trainable)) for word in words)
    for path in (path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_a_private_export_names_the_word_and_nothing_else(
    train: Train, fresh_base: Callable[[], SD1Model], base_folder: Path, tmp_path: Path
) -> None:
    model, trainable = train(WORD)
    Embedding().write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    for path in (tmp_path / "out").iterdir():
        assert base_folder.name.encode() not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()
    record = json.loads((tmp_path / "out" / "limner.json").read_text())
    assert record["limner"]["limner.placeholder"] == "<my-toy>"


@pytest.mark.parametrize("method", [WORD, BOTH], ids=["word", "pivotal"])
def test_a_file_with_other_vectors_is_refused_by_every_format(
    method: TextualInversion | Pivotal,
    train: Train,
    fresh_base: Callable[[], SD1Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from limner.export import trained_word

    write = trained_word.write_atomic

    def swapped(path: Path, data: bytes) -> None:
        write(path, data)
        save_file({name: rows.flip(0).contiguous() for name, rows in load_file(path).items()}, path)

    monkeypatch.setattr(trained_word, "write_atomic", swapped)
    model, trainable = train(method)
    for export in default_exports("sd1", method.kind):
        with pytest.raises((RuntimeError, UserError), match="other vectors"):
            export.write(model, trainable, tmp_path / "out", METADATA, fresh_base=fresh_base)
    assert not list(tmp_path.iterdir())


def test_the_model_in_training_is_left_as_it_was(
    train: Train, fresh_base: Callable[[], SD1Model], tmp_path: Path
) -> None:
    model, trainable = train(BOTH)
    before, words = vectors_of(trainable).clone(), len(model.tokenizer)
    state = torch.get_rng_state()
    for export in default_exports("sd1", "pivotal"):
        export.write(model, trainable, tmp_path / export.kind, METADATA, fresh_base=fresh_base)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(vectors_of(trainable), before)
    assert len(model.tokenizer) == words
    assert all(parameter.requires_grad for parameter in trainable.params.values())

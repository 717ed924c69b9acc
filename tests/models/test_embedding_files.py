"""Textual-inversion files of diffusers and A1111 are read as diffusers reads them, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from limner.core.errors import UserError
from limner.models.adapters import LoadedAdapter
from limner.models.embedding_files import (
    PLACEHOLDER_KEY,
    EmbeddingRef,
    LoadedEmbedding,
    companions,
    load_embeddings,
    parse_embedding,
)
from limner.models.placeholder import inside_a_word, vectors_read
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

ROWS = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(folder: Path) -> SD1Model:
    return SD1(path=str(folder)).load()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, file: str = "x", **tensors: torch.Tensor) -> Path:
        path = tmp_path / f"{file}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors or {name: ROWS}, path)
        return path

    return written


def load(model: SD1Model, *texts: str | Path) -> tuple[LoadedEmbedding, ...]:
    return load_embeddings(model.tokenizer, model.text_encoder, [parse_embedding(str(text)) for text in texts])


def test_two_files_of_two_layouts_give_the_states_that_diffusers_gives(
    model: SD1Model, folder: Path, write: Callable[..., Path]
) -> None:
    one, two = write("<toy>", "one"), write("emb_params", "My-Style")
    loaded = load(model, one, two)
    assert [(word.token, word.vectors, word.path) for word in loaded] == [("<toy>", 3, one), ("my-style", 3, two)]
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.load_textual_inversion(one)
    pipeline.load_textual_inversion(two, token="my-style")
    prompts = ["a <toy> in my-style", "a my-style dog", "a dog"]
    with torch.no_grad():
        ours = model.encode_prompts(prompts)["encoder_hidden_states"]
        assert torch.equal(ours, pipeline.encode_prompt(prompts, "cpu", 1, False)[0])
        plain = SD1(path=str(folder)).load().encode_prompts(prompts)["encoder_hidden_states"]
    assert torch.equal(ours[2], plain[2])
    assert not torch.allclose(ours[0], plain[0])


def test_a_word_may_be_given_and_a_vector_may_stand_alone(model: SD1Model, write: Callable[..., Path]) -> None:
    path = write("emb_params", emb_params=ROWS[0])
    (word,) = load(model, f"<toy>={path}")
    assert (word.token, word.vectors) == ("<toy>", 1)
    number = model.tokenizer.convert_tokens_to_ids("<toy>")
    assert torch.equal(model.text_encoder.get_input_embeddings().weight[number], ROWS[0])


def test_a_path_with_an_equals_sign_that_exists_is_taken_whole(write: Callable[..., Path]) -> None:
    path = write("<toy>", "lr=1")
    assert parse_embedding(str(path)) == EmbeddingRef(path)
    assert parse_embedding(f"<a>={path}") == EmbeddingRef(path, "<a>")


def test_an_export_folder_and_a_run_are_found(model: SD1Model, tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write("<toy>", "run/export/embedding/learned_embeds")
    (word,) = load(model, tmp_path / "run")
    assert word.path == path
    (other,) = load(model, f"<other>={path.parent}")
    assert other.token == "<other>"


REFUSED = {
    "width": ({"<toy>": torch.zeros(1, 48)}, r"vectors are 48 wide, and this model's text encoder has vectors 32 wide"),
    "SDXL": ({"clip_l": ROWS, "clip_g": ROWS + 1}, r"for Stable Diffusion XL.*'clip_l' \[3, 32\]"),
    "two words": ({"<a>": ROWS, "<b>": ROWS + 1}, r"one tensor of vectors was expected, found '<a>' \[3, 32\]"),
    "a matrix too many": ({"<toy>": torch.zeros(1, 2, 32)}, "one tensor of vectors was expected"),
    "no vector": ({"<toy>": torch.zeros(0, 32)}, "one tensor of vectors was expected"),
    "not finite": ({"<toy>": ROWS / 0}, "no finite numbers"),
    "whole numbers": ({"<toy>": ROWS.long()}, "no finite numbers"),
    "a known word": ({"dog": ROWS}, r"has 'dog' as a word already.*Give it another word: WORD="),
    "upper case": ({"<Toy>": ROWS}, r"reads '<Toy>' as '<toy>'.*Give it another word: WORD="),
    "a space": ({"my toy": ROWS}, r"its word would be 'my toy', and a prompt is cut at spaces.*WORD="),
}


@pytest.mark.parametrize(("tensors", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(
    model: SD1Model, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    words = len(model.tokenizer)
    with pytest.raises(UserError, match=message):
        load(model, tmp_path / "x.safetensors")
    assert len(model.tokenizer) == words


def test_pickles_and_missing_files_are_refused(model: SD1Model, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="pickled file"):
        load(model, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"holds no learned_embeds\.safetensors\. There is 'x\.pt', a pickle"):
        load(model, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load(model, tmp_path / "y.safetensors")


# ------------------------------------------------------------------------------------------ a LoRA and its embedding
def adapter(file: Path, weight: float = 1.0) -> LoadedAdapter:
    return LoadedAdapter("lora", weight, (file,), {}, "", {PLACEHOLDER_KEY: "<toy>"})


def test_the_embedding_of_a_lora_is_found_beside_it_or_missed_aloud(write: Callable[..., Path], tmp_path: Path) -> None:
    word = write("<toy>", "learned_embeds")
    for file in (tmp_path / "pytorch_lora_weights.safetensors", tmp_path / "unet" / "adapter_model.safetensors"):
        found, told = companions([adapter(file)], [])
        assert found == [EmbeddingRef(word)]
        assert "was trained together with the embedding" in told[0]
    found, told = companions([adapter(tmp_path / "a" / "b" / "x.safetensors")], [])
    assert found == []
    assert told == ["lora was trained together with an embedding for '<toy>': give it by --embedding"]
    assert companions([adapter(word)], [EmbeddingRef(word)]) == ([], [])
    assert companions([adapter(word, 0.0)], []) == ([], [])


# --------------------------------------------------------------------------------------------------- what is read
def test_the_vectors_that_a_prompt_reads_are_counted(model: SD1Model, write: Callable[..., Path]) -> None:
    load(model, write("<toy>"))
    prompts = {
        "a <toy> and a dog": 3,
        "a dog": 0,
        "A <Toy>": 1,
        "a <toy> <toy>_1 <toy>_2": 3,
        "dog " * 74 + "<toy>": 1,
        "dog " * 72 + "<toy>": 3,
        "dog " * 80 + "<toy>": 0,
    }
    assert vectors_read(model.tokenizer, list(prompts), "<toy>", limit=77) == list(prompts.values())


@pytest.mark.parametrize(
    ("token", "prompt", "inside"),
    [
        ("rex", "a rexford", True),
        ("rex", "a t-rex, rex", False),
        ("rex", "Rex and forex", True),
        ("<rex>", "a<rex>s", False),
    ],
)
def test_a_bare_word_inside_another_is_seen(token: str, prompt: str, inside: bool) -> None:
    assert inside_a_word(token, prompt) is inside

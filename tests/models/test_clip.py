"""CLIP as transformers computes it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.core.errors import UserError
from limner.data.buckets import place
from limner.data.image import to_pixels
from limner.models.clip import Clip, ClipModel
from tests.tiny import save_tiny_clip

PROMPTS = ["a red circle", "a photo of a dog on the background, unheard of"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> ClipModel:
    return Clip(path=str(folder)).load()


def pictures(side: int) -> list[Image.Image]:
    ramp = torch.arange(side * side * 3).reshape(side, side, 3) * 7 % 251
    return [Image.fromarray(value.to(torch.uint8).numpy()) for value in (ramp, ramp.flip(0))]


def test_embeddings_are_those_of_transformers_with_its_own_preprocessing(folder: Path, model: ClipModel) -> None:
    theirs = CLIPModel.from_pretrained(folder)
    images = pictures(model.default_size)
    inputs = model.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(
            pixel_values=CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt").pixel_values,
            **inputs,
        )
        size = (model.default_size, model.default_size)
        placement = place(size, size, crop="center", flip=False, rng=random.Random(0))
        pixels = torch.stack([to_pixels(image, placement) for image in images])
        found = model.embed_images(pixels), model.embed_prompts(PROMPTS)
    torch.testing.assert_close(found[0], expected.image_embeds, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], expected.text_embeds, rtol=1e-5, atol=1e-6)


def test_a_long_prompt_is_cut_at_the_limit(model: ClipModel) -> None:
    long = "a dog " * 200
    assert model.count_tokens([long])[0] > model.token_limit
    assert model.embed_prompts([long]).isfinite().all()


def test_the_networks_hold_every_parameter_once(model: ClipModel) -> None:
    numbers = [id(p) for part in model.networks.values() for p in part.parameters()]
    assert sorted(numbers) == sorted(id(p) for p in model.network.parameters())


def test_pooled_outputs_embed_as_what_they_were_made_of(model: ClipModel) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.embed_images(model.pool_images(pixels)), model.embed_images(pixels))
        assert torch.equal(model.embed_prompts(model.pool_prompts(PROMPTS)), model.embed_prompts(PROMPTS))


def test_the_hash_of_a_tower_is_of_that_tower_and_of_what_it_reads(folder: Path) -> None:
    first = Clip(path=str(folder)).load()
    towers = first.image_encoder_hash(), first.text_encoder_hash()
    other = Clip(path=str(folder)).load()
    other.network.vision_model.post_layernorm.bias.data += 1e-3
    other.network.visual_projection.weight.data += 1e-3
    assert other.image_encoder_hash() != towers[0]
    assert other.text_encoder_hash() == towers[1]
    brighter = dataclasses.replace(first, preprocessing=dataclasses.replace(first.preprocessing, means=(0.4, 0.4, 0.4)))
    assert brighter.image_encoder_hash() != towers[0]


def test_identity_changes_with_one_weight_and_with_the_colours(folder: Path) -> None:
    first, second = Clip(path=str(folder)).load(), Clip(path=str(folder)).load()
    second.network.logit_scale.data += 1e-3
    assert first.identity() != second.identity()
    assert first.identity() == Clip(path=str(folder)).load().identity()


def test_a_folder_without_statistics_is_used_with_a_word(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    assert "OpenAI" in Clip(path=str(folder)).load().notices[0]


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_clip(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="visual_projection"):
        Clip(path=str(folder)).load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]}, "not a CLIPModel"),
        ({"auto_map": {"AutoModel": "code.py"}}, "code"),
    ],
)
def test_other_models_and_code_are_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = save_tiny_clip(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=says):
        Clip(path=str(folder)).load()


def test_a_pipeline_folder_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CLIP model"):
        Clip(path=str(tmp_path)).token_counter()

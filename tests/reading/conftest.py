"""A CLIP model that tells colours apart, pictures of one colour each, and tiny models that write captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    GitConfig,
    GitForCausalLM,
    OPTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.models.clip import Clip
from limner.models.weights import quiet
from tests.tiny import WORDS, save_tiny_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 20)}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def paint(path: Path, colour: str, *, size: tuple[int, int] = (40, 32), shade: int = 0) -> Path:
    """Writes a picture that is mostly of one colour, with a dark corner."""
    picture = Image.new("RGB", size, tuple(max(0, part - shade) for part in COLOURS[colour]))
    picture.paste((20, 20, 20), (0, 0, 6 + shade % 7, 5))
    picture.save(path)
    return path


def caption_of(colour: str) -> str:
    return f"a {colour} square"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture of each colour, without captions; what is remembered lies beside it."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in COLOURS:
        paint(folder / f"{colour}.png", colour)
    return folder


@pytest.fixture
def captioned(pictures: Path) -> Path:
    """The same with a caption beside each picture."""
    for colour in COLOURS:
        (pictures / f"{colour}.txt").write_text(caption_of(colour))
    return pictures


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP model, trained for a moment to know four colours."""
    folder = save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")
    work = tmp_path_factory.mktemp("painted")
    model = Clip(path=str(folder)).load()
    model.network.requires_grad_(True)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    painted = [Image.open(paint(work / f"{colour}.png", colour)) for colour in COLOURS]
    pixels = processor(painted, do_normalize=False, return_tensors="pt").pixel_values * 2 - 1
    captions = [caption_of(colour) for colour in COLOURS]
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=3e-3)
    for _ in range(60):
        logits = 10 * model.embed_images(pixels) @ model.embed_prompts(captions).T
        loss = functional.cross_entropy(logits, torch.arange(4)) + functional.cross_entropy(logits.T, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    with quiet():
        model.network.save_pretrained(folder)
    return folder


# --------------------------------------------------------------------------------------- models that write captions
def tokenizer() -> BertTokenizer:
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<image>", *WORDS)
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def save_tiny_captioner(folder: Path, family: str) -> Path:
    """Writes a captioning model of two layers with large random weights, so that its answers differ."""
    words = tokenizer()
    ids: dict[str, Any] = {
        "vocab_size": len(words),
        "bos_token_id": words.cls_token_id,
        "eos_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }
    text: dict[str, Any] = {name: TOWER[name] for name in list(TOWER)[:4]} | {"max_position_embeddings": 96} | ids
    large = {"initializer_range": 0.3}
    vision = TOWER | large
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(1)
        model: Any
        if family == "blip":
            text |= {"sep_token_id": words.sep_token_id, "encoder_hidden_size": 32, "projection_dim": 16, **large}
            model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
            model.text_decoder.cls.predictions.bias.data[:6] = -100  # it never ends, and writes words only
        elif family == "git":
            model = GitForCausalLM(GitConfig(vision_config=vision, **text, **large))
        else:
            decoder = OPTConfig(
                hidden_size=32, ffn_dim=37, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
                max_position_embeddings=96, init_std=0.3, **ids,
            )  # fmt: skip
            former = {name: TOWER[name] for name in list(TOWER)[:4]} | {"encoder_hidden_size": 32, "vocab_size": 9}
            model = Blip2ForConditionalGeneration(
                Blip2Config(
                    vision_config=vision,
                    qformer_config=former | large,
                    text_config=decoder.to_dict(),
                    num_query_tokens=4,
                    image_token_index=5,
                )
            )
        model.save_pretrained(folder)
        words.save_pretrained(folder)
    if family == "git":
        processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_captioner(tmp_path_factory.mktemp("blip") / "model", "blip")

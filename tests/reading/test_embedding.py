"""Embeddings: the same as transformers', remembered by content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.data.buckets import ImageConfig
from limner.data.example import FileImage
from limner.evaluation.features import embed_captions
from limner.reading.embedding import Embedded, Picture, embed_pictures, load_clip
from tests.reading.conftest import COLOURS, caption_of, paint


def embedded(clip: Path, folder: Path, cache: Path) -> Embedded:
    model = load_clip(str(clip), revision=None, device="cpu", progress=Silent())
    found = [Picture(path.name, FileImage(path)) for path in sorted(folder.glob("*.png"))]
    return embed_pictures(model, found, cache=cache, images=ImageConfig(), progress=Silent())


def reference(clip: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers alone gives: pictures by name, and the captions of the colours."""
    model, words = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    opened = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(opened, return_tensors="pt").pixel_values
    texts = words([caption_of(colour) for colour in COLOURS], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        answer = model(input_ids=texts.input_ids, pixel_values=pixels)
    return answer.image_embeds, answer.text_embeds


def test_embeddings_are_those_of_transformers(clip: Path, pictures: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((90, 50)).convert("RGB").save(pictures / "wide.png")
    images, texts = reference(clip, pictures)
    ours = embedded(clip, pictures, tmp_path / "c")
    assert (ours.vectors - images).abs().max() < 1e-5
    model = load_clip(str(clip), revision=None, device="cpu", progress=Silent())
    assert (embed_captions(model, [caption_of(colour) for colour in COLOURS]) - texts).abs().max() < 1e-5


def test_what_was_embedded_is_found_again_by_content(clip: Path, pictures: Path, tmp_path: Path) -> None:
    first = embedded(clip, pictures, tmp_path / "c")
    assert first.made == 4
    (pictures / "red.png").rename(pictures / "zed.png")
    again = embedded(clip, pictures, tmp_path / "c")
    assert again.made == 0
    assert torch.equal(again.vectors[again.ids.index("zed.png")], first.vectors[first.ids.index("red.png")])
    paint(pictures / "blue.png", "yellow", shade=3)
    assert embedded(clip, pictures, tmp_path / "c").made == 1


def test_another_model_remembers_nothing_of_this_one(clip: Path, pictures: Path, tmp_path: Path) -> None:
    from tests.tiny import save_tiny_clip

    embedded(clip, pictures, tmp_path / "c")
    assert embedded(save_tiny_clip(tmp_path / "other", seed=3), pictures, tmp_path / "c").made == 4


def test_copies_are_embedded_once_and_damaged_pictures_are_named(clip: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "copy.png").write_bytes((pictures / "red.png").read_bytes())
    (pictures / "broken.png").write_bytes((pictures / "red.png").read_bytes()[:40])
    found = embedded(clip, pictures, tmp_path / "c")
    assert found.made == 4
    assert found.ids == ("blue.png", "copy.png", "green.png", "red.png", "yellow.png")
    assert [id for id, _ in found.unreadable] == ["broken.png"]
    assert torch.equal(found.vectors[1], found.vectors[3])


def test_a_model_that_is_no_clip_is_refused(pictures: Path, blip: Path, tmp_path: Path) -> None:
    for name, said in (
        (str(blip), "not a CLIPModel"),
        (str(tmp_path / "nowhere"), "--model"),
        (str(pictures), "no CLIP"),
    ):
        with pytest.raises(UserError, match=said):
            load_clip(name, revision=None, device="cpu", progress=Silent())


def test_a_run_stands_for_what_it_exported(clip: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    (run / "status.json").write_text("{}")
    with pytest.raises(UserError, match="exported no CLIP"):
        load_clip(str(run), revision=None, device="cpu", progress=Silent())
    (run / "export" / "transformers").symlink_to(clip)
    assert load_clip(str(run), revision=None, device="cpu", progress=Silent()).default_size == 32

"""Pictures for a dual encoder: the model's own files decide, and transformers' processor is the judge."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.core.errors import UserError
from limner.data.buckets import place
from limner.data.image import to_pixels
from limner.models.clip import Clip
from limner.models.preprocessing import Preprocessing, from_open_clip, from_transformers
from tests.tiny import save_tiny_clip

HERE = Path("preprocessor_config.json")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.fromarray(values)


def judged(picture: Image.Image, settings: dict[str, Any]) -> torch.Tensor:
    """Returns what transformers makes of a picture, its normalisation undone, in [-1, 1]."""
    processor = CLIPImageProcessorPil(**settings)
    values = processor(picture, return_tensors="pt")["pixel_values"][0].float()
    means, stds = (torch.tensor(value).view(3, 1, 1) for value in (processor.image_mean, processor.image_std))
    return (values * stds + means) * 2 - 1


@pytest.mark.parametrize("size", [(32, 32), (47, 91), (91, 47), (200, 33), (9, 20), (33, 32)])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": 32, "crop_size": 32, "resample": 3},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 2},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ],
)
def test_a_prepared_picture_is_that_of_transformers(size: tuple[int, int], settings: dict[str, Any]) -> None:
    picture = noise(*size)
    ours = from_transformers(settings, 32, where=HERE)
    expected = judged(picture, settings)
    torch.testing.assert_close(ours.prepare(picture), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(judged(picture, ours.as_transformers()), expected, rtol=0, atol=0)


def test_real_photos_are_prepared_as_transformers_does_and_training_differs_little(data_root: Path) -> None:
    """Training scales by Lanczos to rounded sizes; the difference is measured here, and small."""
    photos = sorted((data_root / "flickr8k" / "Images").glob("*.jpg"))[:6]
    if not photos:
        pytest.skip("needs Flickr8k's photos (set LIMNER_DATA)")
    settings: dict[str, Any] = {"size": 224, "crop_size": 224}
    ours, means, largest = from_transformers(settings, 224, where=HERE), [], []
    for path in photos:
        picture = Image.open(path).convert("RGB")
        exact = judged(picture, settings)
        torch.testing.assert_close(ours.prepare(picture), exact, rtol=0, atol=1e-5)
        placement = place(picture.size, (224, 224), crop="center", flip=False, rng=random.Random(0))
        off = (to_pixels(picture, placement) - exact).abs() * 127.5
        means.append(float(off.mean()))
        largest.append(float(off.max()))
    assert 0 < sum(means) / len(means) < 2, means  # of 255 levels of a colour
    assert max(means) < 4, (means, largest)


def test_a_strip_is_prepared_without_making_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    strip = noise(300, 2)
    whole = Preprocessing(32).prepare(strip)
    monkeypatch.setattr("limner.models.preprocessing._MOST_PIXELS", 1000)
    assert float((Preprocessing(32).prepare(strip) - whole).abs().max()) <= 1 / 127.5 + 1e-6
    assert Preprocessing(32).prepare(noise(20000, 1)).shape == (3, 32, 32)


def test_open_clip_says_the_same_in_its_own_words() -> None:
    settings = {"size": [32, 32], "mode": "RGB", "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    found = from_open_clip({**settings, "resize_mode": "squash", "fill_color": 0}, 32, where=HERE)
    assert found == Preprocessing(32, (0.5,) * 3, (0.25,) * 3, squash=True, interpolation="bilinear")
    assert from_open_clip(found.as_open_clip(), 32, where=HERE) == found
    assert from_open_clip({}, 32, where=HERE) == Preprocessing(32)
    assert len(found.notices(HERE)) == 2
    assert Preprocessing(32).notices(HERE) == ()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": 16, "crop_size": 16}, "makes pictures of 16 pixels, and the picture tower reads 32"),
        ({"size": 32, "do_center_crop": False}, "makes pictures of 32"),
        ({"size": {"longest_edge": 32}}, "does not know: size: "),
        ({"do_resize": False}, "do_resize: false"),
        ({"rescale_factor": 1.0}, "rescale_factor: 1.0"),
        ({"resample": 9}, "resample: 9"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
    ],
)
def test_steps_that_are_not_known_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        from_transformers(settings, 32, where=HERE)


@pytest.mark.parametrize(
    "settings", [{"size": 16}, {"resize_mode": "longest"}, {"interpolation": "random"}, {"mode": "L"}, {"std": [1]}]
)
def test_steps_of_open_clip_that_are_not_known_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        from_open_clip(settings, 32, where=HERE)


def test_a_model_prepares_pictures_by_its_own_files(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    picture = noise(60, 41)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    plain = Clip(path=str(folder)).load()
    torch.testing.assert_close(plain.prepare(picture), judged(picture, settings), rtol=0, atol=1e-5)
    file.write_text(json.dumps(settings | {"resample": 0}))
    other = Clip(path=str(folder)).load()
    assert not torch.equal(other.prepare(picture), plain.prepare(picture))
    assert len(other.notices) == 1
    file.unlink()
    assert torch.equal(Clip(path=str(folder)).load().prepare(picture), plain.prepare(picture))

"""DINO's and DINOv2's features, held against transformers with its own preparation of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from limner.core.errors import UserError
from limner.models.vision import load_vision

SIZE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8,
}  # fmt: skip
BIT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3}


def dinov2(folder: Path) -> Any:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**{**SIZE, "mlp_ratio": 2}, image_size=64)
    transformers.Dinov2Model(config).save_pretrained(folder)
    processor = BitImageProcessorPil(**BIT, do_convert_rgb=True)
    processor.save_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**settings, "image_processor_type": "BitImageProcessor"})
    )
    return processor


def dino(folder: Path) -> Any:
    """With the old form of the settings: one number for both sides, and nothing is cut."""
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**SIZE, image_size=32), add_pooling_layer=False).save_pretrained(
        folder
    )
    settings = {
        "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2, "size": 32,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return ViTImageProcessorPil(
        size={"height": 32, "width": 32}, resample=2, image_mean=settings["image_mean"], image_std=settings["image_std"]
    )


def pictures() -> list[Image.Image]:
    stream = numpy.random.default_rng(0)
    sizes = ((64, 64), (90, 50), (33, 70))
    return [Image.fromarray(stream.integers(0, 255, (h, w, 3), dtype=numpy.uint8)) for w, h in sizes]


@pytest.mark.parametrize("make", [dinov2, dino])
def test_the_features_are_those_of_transformers(make: Any, tmp_path: Path) -> None:
    processor = make(tmp_path)
    network = transformers.AutoModel.from_pretrained(str(tmp_path)).eval()
    shown = pictures()
    with torch.no_grad():
        expected = network(processor(shown, return_tensors="pt").pixel_values).last_hidden_state[:, 0]
    found = load_vision(str(tmp_path)).embed(shown)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    dinov2(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "resnet"}))
    with pytest.raises(UserError, match="'resnet'; its features are not known here"):
        load_vision(str(tmp_path))


def test_a_folder_without_weights_or_without_preparation_is_refused(tmp_path: Path) -> None:
    dinov2(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="weights"):
        load_vision(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json"):
        load_vision(str(tmp_path))

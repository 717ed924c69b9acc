"""The model that ships with the package: there, small, loadable by name and by diffusers itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from limner.core.errors import UserError
from limner.evaluation.generate import GenerateRequest, generate
from limner.inspect import inspect_path
from limner.models.clip import Clip
from limner.models.sd1 import SD1
from limner.models.weights import BUILTIN_FOLDER


def test_all_weights_together_are_small_and_safetensors() -> None:
    files = [path for path in BUILTIN_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}


def test_it_is_called_builtin_and_draws() -> None:
    model = SD1(path="builtin").load()
    assert (model.default_size, model.token_limit, model.process.prediction_type) == (128, 40, "v_prediction")
    (picture,) = generate(model, GenerateRequest(prompts=("a red cat on a meadow",), seed=0, steps=2))
    assert picture.image.size == (128, 128)
    assert picture.settings.model == "builtin"
    assert not picture.warnings


def test_diffusers_loads_it_by_itself() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(BUILTIN_FOLDER, local_files_only=True)
    assert pipeline.vae_scale_factor == 8
    assert pipeline.tokenizer("a red cat").input_ids[1:-1] == pipeline.tokenizer.convert_tokens_to_ids(
        ["a</w>", "red</w>", "cat</w>"]
    )


def test_it_can_be_inspected_by_name_and_has_no_revision() -> None:
    assert "StableDiffusionPipeline" in "\n".join(inspect_path(Path("builtin")).lines())
    with pytest.raises(UserError, match="no meaning for the built-in model"):
        SD1(path="builtin", revision="main").load()


def test_its_dual_encoder_is_not_there_yet_and_says_so() -> None:
    with pytest.raises(UserError, match="no CLIP model"):
        Clip(path="builtin").load()

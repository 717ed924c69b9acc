"""A trained CLIP in open_clip's layout, and its text tower alone, as those who read them see it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from limner.core.errors import UserError
from limner.export import default_exports
from limner.export.clip_text_encoder import FILE, ClipTextEncoder
from limner.export.open_clip import OpenClip
from limner.export.result import ExportResult
from limner.inspect import inspect_path
from limner.methods.towers import Towers
from limner.models.clip import Clip, ClipModel
from limner.models.sd1 import SD1
from tests.reference_clip import ReferenceClip, rows
from tests.tiny import save_tiny, save_tiny_clip

CAPTIONS = ("a red circle", "dog", "the blue square on a painting of an unspellable thing")
METADATA = {"format": "pt", "limner.base_model": "some/clip", "limner.step": "30"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


def write(export: Any, folder: Path, out: Path) -> tuple[ClipModel, ExportResult]:
    """Exports a model whose trained parameters moved at random, as much as makes a visible change."""
    fresh: Callable[[], ClipModel] = Clip(path=str(folder)).load
    model = fresh()
    trainable = Towers().apply(model, seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in trainable.params.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, export.write(model, trainable, out, METADATA, fresh_base=fresh)


# ---------------------------------------------------------------------------------------------------------- open_clip
def test_open_clips_folder_is_the_trained_model_to_an_independent_reader(folder: Path, tmp_path: Path) -> None:
    model, result = write(OpenClip(), folder, tmp_path / "out")
    judge = ReferenceClip(words=len(model.tokenizer), side=32, widths=(32, 32), heads=(4, 4), hidden=(37, 37), dim=16)
    judge.load_state_dict(load_file(result.path / "open_clip_model.safetensors"), strict=True)
    judge.eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    means, stds = (torch.tensor(value).view(1, 3, 1, 1) for value in (model.means, model.stds))
    with torch.no_grad():
        images, texts = judge(((pixels + 1) / 2 - means) / stds, rows(model.tokenizer, CAPTIONS, 77))
        ours = model.embed_images(pixels), model.embed_prompts(CAPTIONS)
    torch.testing.assert_close(functional.normalize(images, dim=-1), ours[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(functional.normalize(texts, dim=-1), ours[1], rtol=0, atol=2e-6)
    assert torch.equal(judge.logit_scale, model.logit_scale)
    assert result.max_error == 0
    assert result.effect > 0.01


def test_open_clips_folder_is_read_back_bit_for_bit_and_written_again_equal(folder: Path, tmp_path: Path) -> None:
    model, result = write(OpenClip(), folder, tmp_path / "out")
    again = Clip(path=str(result.path)).load()
    trained, read = model.network.state_dict(), again.network.state_dict()
    assert trained.keys() == read.keys()
    assert all(torch.equal(trained[name], read[name]) for name in trained)
    trainable = Towers().apply(again, seed=0)
    second = OpenClip().write(
        again, trainable, tmp_path / "again", METADATA, fresh_base=Clip(path=str(result.path)).load
    )
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        assert (second.path / name).read_bytes() == (result.path / name).read_bytes()


def test_open_clips_settings_say_what_its_defaults_do_not(folder: Path, tmp_path: Path) -> None:
    model, result = write(OpenClip(dtype="float16"), folder, tmp_path / "out")
    words = len(model.tokenizer)
    settings = json.loads((result.path / "open_clip_config.json").read_text())
    ratio = {"mlp_ratio": 37 / 32}
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 8, **ratio}
    text: dict[str, Any] = {"context_length": 77, "vocab_size": words, "width": 32, "heads": 4, "layers": 2, **ratio}
    text |= {"hf_tokenizer_name": "."}  # open_clip's own tokenizer would give this vocabulary other numbers
    assert settings["model_cfg"] == {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    assert settings["preprocess_cfg"]["size"] == [32, 32]
    assert {value.dtype for value in load_file(result.path / "open_clip_model.safetensors").values()} == {torch.float16}


def test_a_head_of_another_kind_has_no_place_under_open_clips_names(folder: Path, tmp_path: Path) -> None:
    fresh = Clip(path=str(folder)).load

    def with_a_head() -> ClipModel:
        model = fresh()
        model.network.text_projection.register_parameter("extra", torch.nn.Parameter(torch.zeros(3)))
        return model

    trainable = Towers(image="all", text="none").apply(fresh(), seed=0)
    with pytest.raises(UserError, match=r"has 'text_projection\.extra', for which open_clip has no place"):
        OpenClip().write(with_a_head(), trainable, tmp_path / "out", METADATA, fresh_base=with_a_head)
    assert not (tmp_path / "out").exists()


def test_a_model_that_open_clip_cannot_describe_is_refused_and_nothing_stays(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    settings["vision_config"]["hidden_act"] = "relu"
    (other / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="relu in one tower and quick_gelu in the other"):
        write(OpenClip(), other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- the text encoder
@pytest.mark.parametrize("projection", [False, True])
def test_the_text_encoder_alone_is_read_by_transformers(folder: Path, tmp_path: Path, projection: bool) -> None:
    model, result = write(ClipTextEncoder(projection=projection), folder, tmp_path / "out")
    state = load_file(result.path / FILE)
    assert ("text_projection.weight" in state) == projection
    assert {name.partition(".")[0] for name in state} == {"text_model"} | ({"text_projection"} if projection else set())
    config = copy.deepcopy(model.network.config.text_config)
    config.projection_dim = 16
    network = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
    names = {name if projection else name.removeprefix("text_model."): value for name, value in state.items()}
    network.load_state_dict(names, strict=True)
    ids = model.tokenizer(list(CAPTIONS), padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = network(ids, output_hidden_states=True)
        ours = model.network.text_model(ids, output_hidden_states=True)
        for one, other in zip(theirs.hidden_states, ours.hidden_states, strict=True):
            assert torch.equal(one, other)
        if projection:
            torch.testing.assert_close(functional.normalize(theirs.text_embeds, dim=-1), model.embed_prompts(CAPTIONS))
    assert result.max_error == 0
    assert result.effect > 0.01


def test_a_pipeline_reads_the_text_encoder_as_its_own(folder: Path, tmp_path: Path) -> None:
    model, result = write(ClipTextEncoder(), folder, tmp_path / "out")
    pipeline = save_tiny(tmp_path / "sd")
    shutil.copy(result.path / FILE, pipeline / "text_encoder" / "model.safetensors")
    states = SD1(path=str(pipeline)).load().encode_prompts(CAPTIONS)
    ids = model.tokenizer(list(CAPTIONS), padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.network.text_model(ids).last_hidden_state
    assert any(torch.equal(value, expected) for value in states.values())


def test_half_precision_rounds_and_tells_where_it_came_from(folder: Path, tmp_path: Path) -> None:
    _, result = write(ClipTextEncoder(dtype="float16"), folder, tmp_path / "out")
    with safe_open(result.path / FILE, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert file.metadata() == METADATA


# ------------------------------------------------------------------------------------------------------------- inspect
def test_inspect_names_these_files(folder: Path, tmp_path: Path) -> None:
    _, whole = write(OpenClip(), folder, tmp_path / "whole")
    _, text = write(ClipTextEncoder(), folder, tmp_path / "text")
    found = inspect_path(whole.path / "open_clip_model.safetensors")
    assert found.kind == "a CLIP model under open_clip's names"
    assert (found.facts["base"], found.facts["picture tower"]) == ("some/clip", "2 layers, 32 wide, patches of 8")
    assert inspect_path(whole.path).kind == found.kind
    assert inspect_path(folder / "model.safetensors").kind == "a CLIP model under transformers' names"
    alone = inspect_path(text.path / FILE)
    assert (alone.kind, alone.facts["text tower"]) == ("a CLIP text encoder alone", "2 layers, 32 wide")
    assert inspect_path(text.path).kind == alone.kind


def test_what_is_written_unasked() -> None:
    assert [export.kind for export in default_exports("clip", "towers")] == ["transformers", "clip_text_encoder"]

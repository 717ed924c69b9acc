"""A tuned CLIP's text encoder in a pipeline: the same in whatever shape it comes, and what does not fit is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel

from limner.core.config import validate
from limner.core.errors import ConfigError, UserError
from limner.core.rundir import RunDir
from limner.models import SD1
from limner.models.sd1 import SD1Model
from limner.models.text_encoder import TextEncoder, names_blend, parse_text_encoder, weights_hash
from tests.tiny import WORDS, clip_text_config, clip_tokenizer, save_tiny, save_tiny_clip

PROMPTS = ["a red circle on a blue background", "a dog"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with other weights than the pipeline's. Do not change it."""
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "clip", seed=1)


@pytest.fixture
def copy_clip(clip: Path, tmp_path: Path) -> Callable[[], Path]:
    return lambda: Path(shutil.copytree(clip, tmp_path / "clip"))


def with_encoder(model: SD1Model, path: Path, blend: float = 1.0) -> SD1Model:
    return model.with_text_encoder(TextEncoder(path=str(path), blend=blend))


def states(model: SD1Model) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_prompts(PROMPTS)["encoder_hidden_states"]


def text_only(clip: Path, file: Path, prefix: str) -> Path:
    """Writes a text encoder alone, with what others' files carry beside it."""
    state = CLIPModel.from_pretrained(clip).text_model.state_dict()
    found = {f"{prefix}{name}": value.clone() for name, value in state.items()}
    found[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    save_file({**found, "text_projection.weight": torch.ones(16, 32)}, file)
    return file


# ---------------------------------------------------------------------------------------------------------- the text
@pytest.mark.parametrize(
    ("text", "path", "blend"),
    [("a/b", "a/b", 1.0), ("a/b:0.25", "a/b", 0.25), ("a:b", "a:b", 1.0), ("a:.5", "a", 0.5), ("x/y:0", "x/y", 0.0)],
)
def test_a_text_names_path_and_blend(text: str, path: str, blend: float) -> None:
    assert parse_text_encoder(text) == TextEncoder(path=path, blend=blend)
    assert validate(SD1, {"path": "m", "text_encoder": text}, where="x").text_encoder == TextEncoder(
        path=path, blend=blend
    )
    assert names_blend(text) == (path != text)


def test_a_path_that_exists_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "clip:0.5").mkdir()
    assert parse_text_encoder(str(tmp_path / "clip:0.5")).path == str(tmp_path / "clip:0.5")


def test_a_blend_outside_is_refused() -> None:
    with pytest.raises(UserError, match=r"1.5 is not in \[0, 1\]"):
        parse_text_encoder("clip:1.5")
    with pytest.raises(ConfigError, match=r"text_encoder.blend"):
        validate(SD1, {"path": "m", "text_encoder": {"path": "c", "blend": 2}}, where="x")


# --------------------------------------------------------------------------------------------------------- the shapes
def test_every_shape_gives_the_encoder_that_transformers_reads(
    clip: Path, tiny_model: SD1Model, tmp_path: Path
) -> None:
    theirs = CLIPModel.from_pretrained(clip).eval()
    read: Any = tiny_model.tokenizer(PROMPTS, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = theirs.text_model(read.input_ids).last_hidden_state
    assert not torch.allclose(expected, states(tiny_model))

    theirs.text_model.save_pretrained(tmp_path / "text")
    tiny_model.tokenizer.save_pretrained(tmp_path / "text")
    run = RunDir(tmp_path / "run")
    shutil.copytree(clip, run.export / "transformers")
    run.status.write_text("{}")
    half = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in load_file(clip / "model.safetensors").items()}, half)
    shapes = {
        "a CLIPModel folder": clip,
        "its file": clip / "model.safetensors",
        "a CLIPTextModel folder": tmp_path / "text",
        "a run": run.path,
        "a file of others": text_only(clip, tmp_path / "te.safetensors", "text_model."),
        "a file without the prefix": text_only(clip, tmp_path / "bare.safetensors", ""),
    }
    for name, path in shapes.items():
        swapped = with_encoder(tiny_model, path)
        torch.testing.assert_close(states(swapped), expected, rtol=0, atol=1e-6, msg=name)
        told = " ".join(swapped.notices)
        assert ("does not tell its number of attention heads, activation" in told) == ("file " in name), name
    torch.testing.assert_close(states(with_encoder(tiny_model, half)), expected, rtol=0, atol=0.02)
    assert not torch.equal(states(tiny_model), expected), "the model itself stays as it is"


def test_a_pipelines_text_encoder_finds_its_vocabulary_beside_it(tiny_folder: Path, tiny_model: SD1Model) -> None:
    same = with_encoder(tiny_model, tiny_folder / "text_encoder")
    assert same.notices == ()
    assert torch.equal(states(same), states(tiny_model))
    assert same.text_encoder_hash() == tiny_model.text_encoder_hash()


def test_a_blend_has_the_weights_between(clip: Path, tiny_model: SD1Model) -> None:
    own = tiny_model.text_encoder.state_dict()
    tuned = CLIPModel.from_pretrained(clip).text_model.state_dict()
    mixed = with_encoder(tiny_model, clip, 0.25).text_encoder.state_dict()
    for name, value in own.items():
        torch.testing.assert_close(mixed[name], 0.75 * value + 0.25 * tuned[name])
    nothing = with_encoder(tiny_model, clip, 0)
    assert torch.equal(states(nothing), states(tiny_model))
    assert nothing.text_encoder_hash() == tiny_model.text_encoder_hash(), "nothing differs, so caches are shared"


def test_the_hash_of_the_text_encoder_knows_encoder_and_blend(clip: Path, tiny_folder: Path, tmp_path: Path) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=2)
    plain = SD1(path=str(tiny_folder)).load()
    choices = [TextEncoder(path=str(clip)), TextEncoder(path=str(clip), blend=0.5), TextEncoder(path=str(other))]
    models = [SD1(path=str(tiny_folder), text_encoder=choice).load() for choice in choices]
    assert len({model.text_encoder_hash() for model in (plain, *models)}) == 4
    assert len({model.identity()["text_encoder"] for model in (plain, *models)}) == 4
    for model, choice in zip(models, choices, strict=True):
        source = model.source.text_encoder
        assert source is not None
        assert (source.name, source.blend) == (choice.path, choice.blend)
        assert source.weights_hash == weights_hash(model.text_encoder)
        assert model.denoiser_hash() == plain.denoiser_hash()
        assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())
        assert not model.text_encoder.training


# --------------------------------------------------------------------------------------------------------- the misfits
def edit(file: Path, **changes: Any) -> None:
    """Changes the settings of a CLIPModel's text encoder in its config.json."""
    values = json.loads(file.read_text())
    values["text_config"] = {**values["text_config"], **changes}
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "gelu"}, "its activation is 'gelu', the model's 'quick_gelu'"),
        ({"num_attention_heads": 2}, "its number of attention heads is 2, the model's 4"),
        ({"layer_norm_eps": 1e-6}, "its epsilon of the layer norms is 1e-06, the model's 1e-05"),
        ({"hidden_size": 64}, "its hidden size is 64, the model's 32"),
        ({"num_hidden_layers": 3}, "its number of layers is 3, the model's 2"),
        ({"intermediate_size": 38}, "its width between the layers is 38, the model's 37"),
        ({"max_position_embeddings": 40}, "its number of positions is 40, the model's 77"),
        ({"eos_token_id": 7}, "its id of the end token is 7"),
    ],
)
def test_each_misfit_is_refused_by_name_before_and_after_weights_are_read(
    copy_clip: Callable[[], Path], tiny_folder: Path, changes: dict[str, Any], says: str
) -> None:
    folder = copy_clip()
    edit(folder / "config.json", **changes)
    model = SD1(path=str(tiny_folder), text_encoder=TextEncoder(path=str(folder)))
    for call in (model.load, model.token_counter):
        with pytest.raises(UserError) as caught:
            call()
        assert says in caught.value.what


def test_all_misfits_are_told_at_once(copy_clip: Callable[[], Path], tiny_model: SD1Model) -> None:
    folder = copy_clip()
    edit(folder / "config.json", hidden_act="gelu", num_attention_heads=8)
    with pytest.raises(UserError, match=r"heads is 8.*; its activation is 'gelu'"):
        with_encoder(tiny_model, folder)


def test_the_old_id_of_the_end_token_is_the_last_of_the_vocabulary(
    copy_clip: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_clip()
    edit(folder / "config.json", eos_token_id=2)
    with_encoder(tiny_model, folder)


def test_other_words_are_refused(copy_clip: Callable[[], Path], tiny_model: SD1Model) -> None:
    folder = copy_clip()
    swapped = [word if word not in ("dog", "cat") else {"dog": "cat", "cat": "dog"}[word] for word in WORDS]
    for file in [*folder.glob("*token*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        file.unlink()
    clip_tokenizer(swapped).save_pretrained(folder)
    with pytest.raises(UserError, match=r"its vocabulary has '.*' as \d+, the model's as \d+"):
        with_encoder(tiny_model, folder)


def test_the_same_words_put_together_in_another_order_are_refused(
    copy_clip: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_clip()
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["merges"].reverse()
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="puts words together in another way"):
        with_encoder(tiny_model, folder)


def test_a_file_alone_is_measured_by_its_shapes(tiny_model: SD1Model, tmp_path: Path) -> None:
    wide = CLIPTextModel(clip_text_config(clip_tokenizer(), width=64))
    save_file({f"text_model.{n}": v for n, v in wide.state_dict().items()}, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="its hidden size is 64, the model's 32"):
        with_encoder(tiny_model, tmp_path / "wide.safetensors")


@pytest.mark.parametrize("change", ["lost", "surplus", "shape", "nan"])
def test_there_is_no_partial_load(clip: Path, tiny_model: SD1Model, tmp_path: Path, change: str) -> None:
    file = text_only(clip, tmp_path / "te.safetensors", "text_model.")
    state = load_file(file)
    name = "text_model.encoder.layers.1.mlp.fc2.bias"
    if change == "lost":
        del state[name]
    elif change == "surplus":
        state["text_model.encoder.layers.1.more.weight"] = torch.ones(3)
    elif change == "shape":
        state[name] = torch.ones(5)
    else:
        state[name][0] = float("nan")
    save_file(state, file)
    before = states(tiny_model)
    with pytest.raises(UserError, match="NaN" if change == "nan" else "1 tensors are missing, too many"):
        with_encoder(tiny_model, file)
    assert torch.equal(states(tiny_model), before)


def test_what_is_no_text_encoder_is_said(tiny_folder: Path, tiny_model: SD1Model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.status.write_text("{}")
    save_file({"unet.a": torch.ones(2)}, tmp_path / "x.safetensors")
    for path, says in (
        (tiny_folder, "whole pipeline"),
        (tmp_path / "empty", "neither config.json nor open_clip_config.json"),
        (run.path, "without export/transformers"),
        (tmp_path / "x.safetensors", "other tensors, such as 'unet.a'"),
        (tmp_path / "absent", "is not there"),
    ):
        with pytest.raises(UserError, match=says):
            with_encoder(tiny_model, path)
    with pytest.raises(UserError, match="Name its text encoder") as caught:
        with_encoder(tiny_model, tiny_folder)
    assert str(tiny_folder / "text_encoder") in caught.value.fix


def test_a_pipeline_with_another_vocabulary_refuses(clip: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", words=(*WORDS[1:], "hippopotamus"))
    with pytest.raises(UserError, match=r"its size of the vocabulary is \d+, the model's \d+; .*; its vocabulary has"):
        SD1(path=str(other), text_encoder=TextEncoder(path=str(clip))).load()

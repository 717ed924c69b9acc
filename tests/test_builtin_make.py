"""The commands that make the built-in model, on a tiny one where its own size is not the point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from limner import builtin_make
from limner.builtin.pictures import draw_pictures
from limner.core.errors import UserError
from limner.models.probe import difference, probe
from limner.models.sd1 import SD1
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "secret-name")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder, count=20, seed=1, captions=2, side=64)
    return folder


@pytest.fixture(scope="module")
def clip(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel around the pipeline's text encoder."""
    text = CLIPTextModel.from_pretrained(pipeline / "text_encoder")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text.config, vision_config=vision | sizes, projection_dim=8))
    model.text_model.load_state_dict(text.state_dict())
    folder = tmp_path_factory.mktemp("clips") / "secret-clip"
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 32}}')
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------- pictures, new
def test_the_pictures_are_those_of_the_world_and_progress_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pictures", str(tmp_path / "made"), "--count", "3", "--seed", "5", "--captions", "4", "--processes", "1"]
    builtin_make.main(words)
    assert capsys.readouterr().err == "pictures: 3 of 3\n"
    draw_pictures(tmp_path / "drawn", count=3, seed=5, captions=4)
    assert bytes_of(tmp_path / "made") == bytes_of(tmp_path / "drawn")


def test_a_new_model_is_written_without_noise_and_nothing_is_overwritten(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    builtin_make.main(["new", str(tmp_path / "new")])
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    model = SD1(path=str(tmp_path / "new")).load()
    assert (model.default_size, model.token_limit) == (128, 40)
    before = bytes_of(tmp_path / "new")
    with pytest.raises(SystemExit, match=r"error: .*new: holds files"):
        builtin_make.main(["new", str(tmp_path / "new")])
    assert bytes_of(tmp_path / "new") == before


# ----------------------------------------------------------------------------------------------------------- rescale
def test_rescaled_latents_have_unit_variance_and_nothing_else_changes(
    pipeline: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(pipeline, tmp_path / "source")
    (source / "limner.json").write_text('{"files": ["model_index.json"]}')
    builtin_make.main(["rescale", str(source), str(table), str(tmp_path / "out"), "--count", "18"])
    before, after = bytes_of(source), bytes_of(tmp_path / "out")
    record = before.pop("limner.json")
    assert record
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"vae/config.json"}
    old, new = (json.loads(files["vae/config.json"]) for files in (before, after))
    assert {name for name in old | new if old.get(name) != new.get(name)} == {"scaling_factor"}

    vae = AutoencoderKL.from_pretrained(tmp_path / "out" / "vae")
    paths = sorted(path for path in table.rglob("*.png") if ".mask" not in path.name)[:18]
    rows = [torch.tensor(list(Image.open(path).tobytes()), dtype=torch.float32) for path in paths]
    pixels = torch.stack([row.view(64, 64, 3).permute(2, 0, 1) for row in rows]) / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(9)) * new["scaling_factor"]
    assert float(latents.std()) == pytest.approx(1, abs=0.01)  # other noise than that of the command

    said = capsys.readouterr()
    assert f"scaling_factor {new['scaling_factor']:.5f}, from 18 pictures" in said.out
    means = [line.split() for line in said.out.splitlines()[1:]]
    assert len(means) == 4
    for line, numbers in zip(means, latents.transpose(0, 1), strict=True):
        assert float(line[3].rstrip(",")) == pytest.approx(float(numbers.mean()), abs=0.05)
        assert float(line[5]) == pytest.approx(float(numbers.std()), abs=0.05)
    assert said.err.splitlines() == ["latents: 16 of 18", "latents: 18 of 18"]


def test_rescaling_twice_gives_the_same_bytes_and_the_old_factor_does_not_matter(
    pipeline: Path, table: Path, tmp_path: Path
) -> None:
    first = builtin_make.rescale(pipeline, table, tmp_path / "one", count=4)
    again = builtin_make.rescale(pipeline, table, tmp_path / "two", count=4)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert first == again
    assert builtin_make.rescale(tmp_path / "one", table, tmp_path / "three", count=4) == pytest.approx(first, rel=1e-5)


def test_too_few_pictures_and_a_model_that_is_not_there_are_errors(pipeline: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 20 pictures, not 21\. Use --count 20"):
        builtin_make.rescale(pipeline, table, tmp_path / "out", count=21)
    with pytest.raises(UserError, match="is no folder"):
        builtin_make.rescale(tmp_path / "absent", table, tmp_path / "out", count=2)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------------- pack
def test_the_packed_model_holds_halves_and_draws(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builtin_make.main(["pack", str(pipeline), str(tmp_path / "out")])
    said = capsys.readouterr().out
    size = sum(len(data) for data in bytes_of(tmp_path / "out").values())
    assert f"out: {size / 1e6:.1f} MB; float16 changes the prediction by " in said
    base, packed = (SD1(path=str(folder)).load() for folder in (pipeline, tmp_path / "out"))
    for part, network in packed.networks.items():
        files = list((tmp_path / "out" / part).glob("*.safetensors"))
        assert {value.dtype for file in files for value in load_file(file).values()} == {torch.float16}
        exact = base.networks[part].state_dict()
        assert all(torch.equal(value, exact[name].half().float()) for name, value in network.state_dict().items())
    change = difference(probe(packed), probe(base)).relative
    assert 0 < change < 1e-2
    assert f"by {change:.1e} of" in said
    generator = torch.Generator().manual_seed(0)
    image = packed.pipeline()("a red circle", num_inference_steps=2, generator=generator, height=64, width=64).images[0]
    assert image.size == (64, 64)
    assert len(image.getcolors(64 * 64) or []) > 100


def test_the_packed_model_is_written_for_older_releases_and_tells_no_names(
    pipeline: Path, clip: Path, tmp_path: Path
) -> None:
    builtin_make.pack(pipeline, tmp_path / "out", clip=clip)
    names = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    vocabulary = json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text())
    assert vocabulary == SD1(path=str(pipeline)).load().tokenizer.get_vocab()
    assert (tmp_path / "out" / "tokenizer" / "merges.txt").is_file()
    for name, data in bytes_of(tmp_path / "out").items():
        assert b"secret" not in data, name


def test_the_packed_clip_has_the_text_encoder_of_the_pipeline(pipeline: Path, clip: Path, tmp_path: Path) -> None:
    builtin_make.main(["pack", str(pipeline), str(tmp_path / "out"), "--clip", str(clip)])
    packed, found = CLIPModel.from_pretrained(
        tmp_path / "out" / "clip", dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    assert not any(found.values())
    text = SD1(path=str(tmp_path / "out")).load().text_encoder.state_dict()
    assert text.keys() == packed.text_model.state_dict().keys()
    assert all(torch.equal(value, text[name]) for name, value in packed.text_model.state_dict().items())
    exact = CLIPModel.from_pretrained(clip).vision_model.state_dict()
    assert all(
        torch.equal(value, exact[name].half().float()) for name, value in packed.vision_model.state_dict().items()
    )
    stored = load_file(tmp_path / "out" / "clip" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    tokens = [
        CLIPTokenizer.from_pretrained(folder)("a red dog").input_ids
        for folder in (tmp_path / "out" / "clip", pipeline / "tokenizer")
    ]
    assert tokens[0] == tokens[1]
    assert (tmp_path / "out" / "clip" / "preprocessor_config.json").is_file()


def one_bit(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "text_model.encoder.layers.1.mlp.fc1.weight"
    weights[name].view(torch.int32)[0, 0] ^= 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def another_activation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))


def a_missing_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (one_bit, r"another text encoder than the pipeline; it differs in 'encoder\.layers\.1\.mlp\.fc1\.weight'"),
        (another_activation, "another text encoder than the pipeline; it differs in 'hidden_act'"),
        (a_missing_tensor, r"lacks, or has too many of, 1 tensors of a CLIPModel, such as 'visual_projection\.weight'"),
        (no_config, r"has no config\.json with a model\.safetensors"),
    ],
)
def test_a_clip_model_that_does_not_belong_to_the_pipeline_is_refused(
    pipeline: Path, clip: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    other = shutil.copytree(clip, tmp_path / "other")
    damage(other)
    with pytest.raises(UserError, match=message):
        builtin_make.pack(pipeline, tmp_path / "out", clip=other)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_too_many_bytes_are_refused(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_make, "LARGEST_PACK", 100_000)
    with pytest.raises(UserError, match=r"would have \d\.\d MB, and 0 are allowed; unet/diffusion.*has \d\.\d"):
        builtin_make.pack(pipeline, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_weight_that_float16_cannot_hold_is_refused(pipeline: Path, tmp_path: Path) -> None:
    large = shutil.copytree(pipeline, tmp_path / "large")
    path = large / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_in.bias"][0] = 70_000
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"1 tensors with numbers that float16 cannot hold, .*vae\.decoder\.conv_in\.bias"
    ):
        builtin_make.pack(large, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


@pytest.mark.parametrize(
    "words", [[], ["new"], ["pictures", "out", "--count", "0"], ["pictures", "x", "--captions", "a"]]
)
def test_words_that_are_no_command_end_in_a_usage_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        builtin_make.main(words)
    assert "usage: python -m limner.builtin_make" in capsys.readouterr().err

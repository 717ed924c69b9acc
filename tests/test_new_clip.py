from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer
from typer.testing import CliRunner

from limner.cli import app
from limner.core.config import validate
from limner.core.errors import ConfigError, UserError
from limner.models.clip import Clip
from limner.models.sd1 import SD1
from limner.new_clip import PictureTower, new_clip
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_the_command_writes_a_clip_model_with_the_pipelines_text_encoder_bit_for_bit(
    pipeline: Path, tmp_path: Path
) -> None:
    out = tmp_path / "clip"
    words = ["--image-size", "32", "--patch-size", "8", "--width", "64", "--layers", "3"]
    result = CliRunner().invoke(app, ["new-clip", str(out), "--text", str(pipeline), *words])
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    clip = Clip(path=str(out)).load()
    vision = clip.network.config.vision_config
    assert (vision.image_size, vision.patch_size, vision.hidden_size, vision.num_hidden_layers) == (32, 8, 64, 3)
    assert (clip.means, clip.default_size, clip.notices) == ((0.5, 0.5, 0.5), 32, ())
    text = SD1(path=str(pipeline)).load()
    expected, found = text.text_encoder.state_dict(), clip.network.text_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    words_of = CLIPTokenizer.from_pretrained(out)
    assert words_of("a red car").input_ids == text.tokenizer("a red car").input_ids


def test_the_seed_decides_the_random_weights_and_nothing_outside_is_drawn(pipeline: Path, tmp_path: Path) -> None:
    tower = PictureTower(image_size=16, patch_size=8, width=32, layers=1)
    before = torch.get_rng_state()
    models = [new_clip(tmp_path / str(n), tower, text=str(pipeline), seed=seed) for n, seed in enumerate((0, 0, 1))]
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = ([*model.vision_model.parameters()] for model in models)
    assert all(torch.equal(one, two) for one, two in zip(first, same, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    written = CLIPModel.from_pretrained(tmp_path / "2").state_dict()
    assert all(torch.equal(written[name], value) for name, value in models[2].state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 32, "patch_size": 5}, "patch_size: pictures of 32 pixels cannot be cut into squares of 5"),
        ({"width": 100}, "width: 100 is no multiple of 32"),
        ({"layers": 0}, "layers: 0: input should be greater than or equal to 1"),
    ],
)
def test_towers_that_cannot_be_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(PictureTower, sizes, where="new-clip")


def test_a_folder_with_files_is_left_alone(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files"):
        new_clip(tmp_path, text=str(pipeline))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.core.errors import UserError
from limner.evaluation.change import pixel_change
from limner.evaluation.hidden_states import measure_move
from limner.evaluation.picture import read_picture
from limner.models.sd1 import SD1
from limner.models.text_encoder import TextEncoder
from limner.swap import SwapResult, swap
from tests.elements import Elements
from tests.tiny import save_tiny, save_tiny_clip

PROMPTS = ["a red circle", "a <b>dog</b> & a cat"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model")
    save_tiny_clip(root / "clip", seed=1)
    return root


def run(place: Path, out: Path, **changes: Any) -> SwapResult:
    options: dict[str, Any] = {
        "text_encoder": str(place / "clip"), "prompts": PROMPTS, "steps": 2, "size": "32x32", "device": "cpu",
    }  # fmt: skip
    return swap(str(place / "model"), out=out, **(options | changes))


@pytest.fixture(scope="module")
def done(place: Path) -> SwapResult:
    return run(place, place / "out", blends="1,0,0.5", count=2)


def test_each_blend_draws_the_same_prompts_and_seeds(done: SwapResult) -> None:
    assert [one.blend for one in done.swapped] == [0, 0.5, 1]
    recipes = []
    for files in (done.own, *(one.files for one in done.swapped)):
        found = [read_picture(path).settings for path in files]
        recipes.append([(one.prompt, one.seed) for one in found if one is not None])
    assert recipes == [[(prompt, seed) for prompt in PROMPTS for seed in (0, 1)]] * 4


def test_the_pixel_changes_are_those_of_the_files(done: SwapResult) -> None:
    for one in done.swapped:
        for own, other, change in zip(done.own, one.files, one.changes, strict=True):
            pair = [np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (own, other)]
            assert change == pytest.approx(abs(pair[0] - pair[1]).mean() / 255)
    assert done.swapped[0].changes == (0, 0, 0, 0)
    assert min(done.swapped[2].changes) > 0
    assert pixel_change(Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")) == 1


def test_the_gauge_is_that_of_the_two_encoders(place: Path, done: SwapResult) -> None:
    own = SD1(path=str(place / "model")).load()
    tuned = own.with_text_encoder(TextEncoder(path=str(place / "clip"), blend=0.5))
    expected = measure_move(own.text_encoder, tuned.text_encoder, own.tokenizer)
    assert done.swapped[1].gauge == expected
    assert done.swapped[0].gauge.moved == 0


def test_page_and_record_lie_in_the_folder(done: SwapResult) -> None:
    record = json.loads(done.page.with_name("swap.json").read_text())
    assert record == json.loads(json.dumps(done.as_dict()))
    assert [one["blend"] for one in record["blends"]] == [0, 0.5, 1]
    html = done.page.read_text(encoding="utf-8")
    images = [attributes for tag, attributes in Elements(html).elements if tag == "img"]
    assert len(images) == 4 * 4
    assert "<b>dog" not in html


def test_the_commands_go_on_with_the_largest_blend_within_the_bound(done: SwapResult, place: Path) -> None:
    draw, train = (shlex.split(command) for _, command in done.commands)
    assert done.swapped[1].gauge.too_far, "so that only blend 0 is within"
    assert f"{place / 'clip'}:0" in draw
    assert {"model.text_encoder.blend=0", f"model.text_encoder.path={place / 'clip'}"} <= set(train)


def test_a_blend_may_stand_with_the_encoder(place: Path, tmp_path: Path) -> None:
    result = run(place, tmp_path / "out", text_encoder=f"{place / 'clip'}:0.75", prompts=["a dog"])
    assert [one.blend for one in result.swapped] == [0.75]
    with pytest.raises(UserError, match="say two things"):
        run(place, tmp_path / "two", text_encoder=f"{place / 'clip'}:0.75", blends="0.5")


@pytest.mark.parametrize("blends", ["0.5,2", "half", "0.5,", "nan"])
def test_blends_that_are_none_are_refused(place: Path, tmp_path: Path, blends: str) -> None:
    with pytest.raises(UserError, match=r"are no numbers in \[0, 1\]"):
        run(place, tmp_path / "out", blends=blends)


def test_a_folder_in_use_is_left_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run(place, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

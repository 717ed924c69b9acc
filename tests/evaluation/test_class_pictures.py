"""Class pictures by the base model: the same set however it is batched or interrupted, and nothing useless in it."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.errors import UserError
from limner.data.class_pictures import RECORD, ClassDrawing, drawn_name
from limner.evaluation.class_pictures import ClassRequest, check_record, class_request, draw_missing, write_record
from limner.evaluation.picture import read_picture
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

REQUEST = ClassRequest("a photo of a dog", side=16, steps=2, guidance=2.0, scheduler="ddim", seed=7)
IDENTITY = {"denoiser": "d0", "text_encoder": "t0"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SD1Model:
    return SD1(path=str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))).load()


def pixels(folder: Path) -> np.ndarray:
    opened = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            opened.append(np.asarray(image.convert("RGB")).astype(int))
    return np.stack(opened)


@pytest.fixture(scope="module")
def whole(model: SD1Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert len(list(draw_missing(model, folder, REQUEST, range(6), drawn={}, batch_size=1))) == 6
    return folder


@pytest.mark.parametrize("batch_size", [2, 4, 6])
def test_the_set_is_the_same_however_it_is_batched(
    model: SD1Model, whole: Path, tmp_path: Path, batch_size: int
) -> None:
    list(draw_missing(model, tmp_path, REQUEST, range(6), drawn={}, batch_size=batch_size))
    found, expected = pixels(tmp_path), pixels(whole)
    assert np.abs(found - expected).max() <= 1  # rounding of float32 sums, in levels of 255
    assert min(np.abs(one - other).max() for one, other in itertools.combinations(expected, 2)) > 10


def test_an_interrupted_set_goes_on_and_holes_are_filled(model: SD1Model, whole: Path, tmp_path: Path) -> None:
    drawing = draw_missing(model, tmp_path, REQUEST, range(6), drawn={}, batch_size=4)
    for _ in range(3):
        next(drawing)
    drawing.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [drawn_name(number) for number in range(3)]
    kept = {number: (tmp_path / drawn_name(number)).read_bytes() for number in (0, 2)}
    (tmp_path / drawn_name(1)).unlink()
    there = {number: tmp_path / drawn_name(number) for number in kept}
    list(draw_missing(model, tmp_path, REQUEST, [1, 3, 4, 5], drawn=there, batch_size=2))
    assert np.abs(pixels(tmp_path) - pixels(whole)).max() <= 1
    assert all((tmp_path / drawn_name(number)).read_bytes() == data for number, data in kept.items())


def test_each_picture_says_how_it_was_made(whole: Path) -> None:
    for number in range(6):
        settings = read_picture(whole / drawn_name(number)).settings
        assert settings is not None
        assert (settings.prompt, settings.seed, settings.steps) == (REQUEST.prompt, 7 + number, 2)


def test_a_broken_model_is_refused_and_leaves_no_picture(model: SD1Model, whole: Path, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in model.vae.state_dict().items()}
    try:
        with torch.no_grad():
            model.vae.decoder.conv_out.weight.zero_()
        with pytest.raises(UserError, match=r"class_drawing: class picture 0, drawn from .* is of one colour \(#"):
            list(draw_missing(model, tmp_path, REQUEST, range(2), drawn={}, batch_size=2))
    finally:
        model.vae.load_state_dict(weights)
    assert not list(tmp_path.glob("*.png"))
    copy = {4: whole / drawn_name(1)}
    with pytest.raises(UserError, match=r"class picture 1, .* equals picture 4, although their seeds differ"):
        list(draw_missing(model, tmp_path, REQUEST, [1], drawn=copy, batch_size=1))


def test_the_record_tells_other_requests_and_models_apart(tmp_path: Path) -> None:
    write_record(tmp_path, REQUEST, model="mine", identity=IDENTITY, precision="fp32")
    check_record(tmp_path, REQUEST, drawn=3)
    check_record(tmp_path, REQUEST, drawn=3, model="moved", identity=IDENTITY)
    other = dataclasses.replace(REQUEST, prompt="a photo of a cat")
    with pytest.raises(UserError, match=r"prompt was 'a photo of a dog' and is 'a photo of a cat' now.*class_path"):
        check_record(tmp_path, other, drawn=3)
    check_record(tmp_path, other, drawn=0)  # nothing was drawn: the record will be written anew
    with pytest.raises(UserError, match="by 'mine' and this run starts from 'yours', which differs in denoiser"):
        check_record(tmp_path, REQUEST, drawn=1, model="yours", identity=IDENTITY | {"denoiser": "d1"})
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        check_record(tmp_path, REQUEST, drawn=1)
    (tmp_path / RECORD).unlink()
    with pytest.raises(UserError, match=f"has 2 drawn class pictures and no {RECORD}"):
        check_record(tmp_path, REQUEST, drawn=2)


def test_how_many_are_drawn_at_once_is_no_part_of_the_request() -> None:
    one, other = (class_request("a dog", 64, ClassDrawing(batch_size=size)) for size in (1, 8))
    assert one == other
    assert one != class_request("a dog", 64, ClassDrawing(steps=3))

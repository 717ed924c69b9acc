"""A tuned text encoder from the recipe to the exports: what is trained with it, what names it, what asks for it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from transformers import CLIPModel

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.core.rundir import RunDir, read_metrics
from limner.drawing import draw
from limner.evaluation.picture import PictureSettings, UsedTextEncoder, read_picture
from limner.inspect import inspect_path
from limner.models.blending import blended
from limner.models.sd1 import SD1
from limner.models.text_encoder import TextEncoder
from limner.preflight import plan
from limner.run import finetune
from tests.numerics.test_resume import assert_same_run
from tests.tiny import save_tiny, save_tiny_clip


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, two CLIPs, captioned pictures."""
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model")
    save_tiny_clip(root / "clip", seed=1)
    save_tiny_clip(root / "other", seed=2)
    draw_folder(root / "photos", count=2)
    return root


def config(place: Path, out: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "sd1", "path": str(place / "model"), "text_encoder": f"{place / 'clip'}:0.5"},
        "dataset": {"kind": "auto", "path": place / "photos"},
        "images": {"resolution": 32, "bucket_step": 16},
        "method": {"kind": "lora", "rank": 2},
        "optimizer": {"kind": "adamw", "lr": 1e-2},
        "train": {"steps": 2, "batch_size": 2, "device": "cpu", "save_every": 1, "ema_decay": 0.5},
        "cache": {"folder": out.parent / "cache"},
        "export": [{"kind": "diffusers"}],
        "report": {"at_end": "never"},
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def lora(place: Path) -> RunConfig:
    """A LoRA that was trained with the encoder; its run is finished."""
    done = config(place, place / "lora" / "run")
    finetune(done)
    return done


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def pictures(place: Path, out: Path, heard: Heard | None = None, **changes: Any) -> list[Path]:
    options: dict[str, Any] = {"prompts": ["a red circle"], "seed": 0, "steps": 2, "size": "32x32", "device": "cpu"}
    return list(draw(model=str(place / "model"), out=out, progress=heard, **(options | changes)))


def pixels(path: Path) -> bytes:
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB").tobytes()


# --------------------------------------------------------------------------------------------------------- pictures
def test_blend_0_and_an_equal_encoder_draw_the_plain_pipelines_pictures_bit_for_bit(
    place: Path, tmp_path: Path
) -> None:
    def drawn(name: str, encoder: str) -> bytes:
        return pixels(pictures(place, tmp_path / name, text_encoder=encoder)[0])

    plain = drawn("plain", "")
    assert drawn("none", f"{place / 'clip'}:0") == plain
    assert drawn("equal", f"{place / 'model' / 'text_encoder'}") == plain
    assert drawn("tuned", f"{place / 'clip'}") != plain


def test_a_picture_tells_its_text_encoder_and_inspect_reads_it(place: Path, tmp_path: Path) -> None:
    heard = Heard()
    (path,) = pictures(place, tmp_path / "out", heard, text_encoder=f"{place / 'clip'}:0.5")
    settings = read_picture(path).settings
    assert settings is not None
    used = settings.text_encoder
    model = SD1(path=str(place / "model"), text_encoder=TextEncoder(path=str(place / "clip"), blend=0.5)).load()
    source = model.source.text_encoder
    assert source is not None
    assert used == UsedTextEncoder("clip", 0.5, source.weights_hash[:12])
    assert inspect_path(path).facts["Text encoder"] == f"clip, blend 0.5, hash {used.hash}"
    (told,) = [text for text in heard.said if "hidden states" in text]
    assert f"text encoder {place / 'clip'}:0.5" in told
    assert any("is beyond 10.0 %" in text for text in heard.warned)


def test_pictures_of_older_versions_are_read_without_one(place: Path, tmp_path: Path) -> None:
    (path,) = pictures(place, tmp_path / "out")
    settings = read_picture(path).settings
    assert isinstance(settings, PictureSettings)
    assert settings.text_encoder is None
    assert "Text encoder" not in inspect_path(path).facts


def test_an_encoder_that_changes_nothing_is_told(place: Path, tmp_path: Path) -> None:
    heard = Heard()
    pictures(place, tmp_path / "out", heard, text_encoder=str(place / "model" / "text_encoder"))
    assert any("no picture will change" in text for text in heard.warned)


# ------------------------------------------------------------------------------------------------------------- runs
def test_a_lora_names_the_encoder_that_it_was_trained_with(place: Path, lora: RunConfig) -> None:
    file = RunDir(lora.out).export / "diffusers" / "pytorch_lora_weights.safetensors"
    texts = header(file)
    source = lora.model.load().source.text_encoder
    assert source is not None
    assert (texts["limner.base_model"], texts["limner.text_encoder"]) == ("model", "clip")
    assert (texts["limner.text_encoder_blend"], texts["limner.text_encoder_hash"]) == ("0.5", source.weights_hash)
    facts = inspect_path(file).facts
    assert (facts["text encoder"], facts["text encoder blend"]) == ("clip", "0.5")
    facts = inspect_path(lora.out).facts
    assert (facts["text encoder"], facts["text encoder blend"]) == (str(place / "clip"), 0.5)
    rows = dict(plan(lora).rows)
    assert rows["text encoder"] == f"{place / 'clip'}, blend 0.5, in place of the model's own"


def test_a_private_export_keeps_the_hash_and_not_the_name(place: Path, tmp_path: Path) -> None:
    run = config(place, tmp_path / "run", private=True)
    finetune(run)
    texts = header(RunDir(run.out).export / "diffusers" / "pytorch_lora_weights.safetensors")
    assert "limner.text_encoder" not in texts
    assert len(texts["limner.text_encoder_hash"]) == 64
    assert str(place) not in json.dumps(texts)


def test_drawing_with_its_lora_asks_for_the_encoder_where_it_is_missing(
    place: Path, lora: RunConfig, tmp_path: Path
) -> None:
    def asked(name: str, encoder: str, weight: float = 1) -> list[str]:
        heard = Heard()
        pictures(place, tmp_path / name, heard, adapters=[f"{lora.out}:{weight}"], text_encoder=encoder)
        return [text for text in heard.warned if "was trained with a tuned text encoder" in text]

    (told,) = asked("without", "")
    assert told.endswith("--text-encoder clip:0.5")
    assert asked("with", f"{place / 'clip'}:0.5") == []
    assert len(asked("other blend", f"{place / 'clip'}:0.25")) == 1
    assert len(asked("other", f"{place / 'other'}:0.5")) == 1
    assert asked("switched off", "", weight=0) == []


def test_a_run_is_resumed_with_its_own_encoder_only_and_bit_for_bit(place: Path, tmp_path: Path) -> None:
    whole, parts = config(place, tmp_path / "whole"), config(place, tmp_path / "parts")
    finetune(whole)
    finetune(parts.model_copy(update={"train": parts.train.model_copy(update={"steps": 1})}))
    path = str(place / "model")
    for text in (None, f"{place / 'clip'}:0.25", f"{place / 'other'}:0.5"):
        model = SD1.model_validate({"path": path, "text_encoder": text})
        with pytest.raises(UserError, match="text_encoder"):
            finetune(parts.model_copy(update={"model": model}), resume=True)
    finetune(parts, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(parts.out))


def test_the_cache_of_another_encoder_is_not_used(place: Path, tmp_path: Path) -> None:
    """Both runs share the cache's folder: a stale state would give the second the loss of the first."""
    losses = []
    for name, text in (("a", f"{place / 'clip'}:0.5"), ("b", f"{place / 'other'}:0.5")):
        model = {"kind": "sd1", "path": str(place / "model"), "text_encoder": text}
        finetune(config(place, tmp_path / name, model=model))
        losses.append(read_metrics(RunDir(tmp_path / name).metrics)[0]["loss"])
    alone = config(place, tmp_path / "c", model=model, cache={"folder": tmp_path / "fresh"})
    finetune(alone)
    assert losses[1] == read_metrics(RunDir(alone.out).metrics)[0]["loss"] != losses[0]


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_full_export_holds_the_swapped_encoder(place: Path, tmp_path: Path, text_encoder: bool) -> None:
    run = config(place, tmp_path / "run", method={"kind": "full", "text_encoder": text_encoder})
    finetune(run)
    folder = RunDir(run.out).export / "diffusers"
    theirs = StableDiffusionPipeline.from_pretrained(folder).text_encoder.state_dict()
    own = StableDiffusionPipeline.from_pretrained(place / "model").text_encoder.state_dict()
    tuned = CLIPModel.from_pretrained(place / "clip").text_model.state_dict()
    expected = blended(own, tuned, 0.5)
    equal = {name for name in own if torch.equal(theirs[name], expected[name])}
    assert equal == (set() if text_encoder else set(own))
    assert "clip" in json.loads((folder / "limner.json").read_text())["limner"]["limner.text_encoder"]
    assert inspect_path(folder).facts["text encoder blend"] == "0.5"
    read = SD1(path=str(folder)).load()
    assert all(torch.equal(value, theirs[name]) for name, value in read.text_encoder.state_dict().items())


def test_what_does_not_fit_is_refused_by_check(place: Path, tmp_path: Path) -> None:
    run = config(place, tmp_path / "run", model={"kind": "sd1", "path": str(place / "model"), "text_encoder": "absent"})
    with pytest.raises(UserError, match=r"'absent' is not there"):
        plan(run)

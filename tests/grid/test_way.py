"""Whole grids of tiny models: each picture is the one that limner generate draws, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.drawing import draw
from limner.evaluation.picture import read_picture
from limner.grid import GridResult, grid
from limner.grid.axes import Settings
from tests.elements import Elements
from tests.heard import Heard
from tests.numerics.conftest import run_values
from tests.tiny import save_tiny, save_tiny_clip

Train = Callable[[str], Path]
ASKED: dict[str, Any] = {"prompts": ["a red circle"], "size": "32x32", "device": "cpu"}
SHORT = {"steps": "2", "seed": "5", "scheduler": "ddim"}


def generated(place: Path, out: Path, *, model: str = "model", **changes: Any) -> Path:
    """Draws one picture as ``limner generate`` does."""
    options: dict[str, Any] = ASKED | {"seed": 5, "steps": 2, "scheduler": "ddim"}
    (path,) = draw(model=str(place / model), out=out, **(options | changes))
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def pictures(found: GridResult) -> dict[Settings, Path]:
    return {one.settings: one.picture for one in found.drawn}


def at(found: GridResult, **wanted: Any) -> Path:
    (path,) = {
        path
        for settings, path in pictures(found).items()
        if all(vars(settings)[name] == value for name, value in wanted.items())
    }
    return path


# ------------------------------------------------------------------------------------------------------------- of runs
@pytest.fixture(scope="module")
def done(place: Path, trained: Train) -> GridResult:
    run = trained("lora")
    stream = torch.random.get_rng_state()
    found = grid(str(run), x="checkpoint=2,base,1", y="weight=0.5,1,0", z="prompt", device="cpu")
    assert torch.equal(torch.random.get_rng_state(), stream)
    return found


def test_the_weights_of_a_run_are_those_of_its_export_and_0_is_the_base(
    place: Path, done: GridResult, tmp_path: Path
) -> None:
    for weight in (0.5, 1.0):
        other = generated(place, tmp_path, adapters=[f"{place / 'lora'}:{weight}"])
        mine = at(done, prompt="a red circle", checkpoint=2, weight=weight)
        assert np.array_equal(pixels(mine), pixels(other))
    base = pixels(generated(place, tmp_path))
    for checkpoint, weight in ((None, 1.0), (None, 0.0), (1, 0.0), (2, 0.0)):
        mine = at(done, prompt="a red circle", checkpoint=checkpoint, weight=weight)
        assert np.array_equal(pixels(mine), base)
    drawn = {pixels(path).tobytes() for settings, path in pictures(done).items() if settings.prompt == "a red circle"}
    assert len(drawn) == 5, "two checkpoints at two weights, and the base"


def test_the_pictures_of_a_run_are_its_samples(place: Path, done: GridResult) -> None:
    for checkpoint, step in ((None, 0), (2, 2)):
        mine = at(done, prompt="a red circle", checkpoint=checkpoint, weight=1.0)
        assert np.array_equal(pixels(mine), pixels(RunDir(place / "lora").samples / f"step_{step:06d}" / "00.png"))


def test_each_picture_tells_what_it_was_drawn_with_and_is_drawn_once(place: Path, done: GridResult) -> None:
    folder = done.page.parent / "pictures"
    assert done.page.parent == place / "lora" / "grid"
    assert [path.name for path in sorted(folder.iterdir())] == [f"{number:03d}.png" for number in range(10)]
    told = read_picture(at(done, prompt="a dog", checkpoint=1, weight=0.5)).settings
    assert told is not None
    assert (told.prompt, told.seed, told.steps, told.guidance, told.scheduler) == ("a dog", 5, 2, 7.5, "ddim")
    ((name, weight, digest),) = [(one.name, one.weight, one.hash) for one in told.adapters]
    assert (name, weight) == ("lora-step_000001", 0.5)
    assert len(digest) == 12
    base = read_picture(at(done, prompt="a dog", checkpoint=None, weight=0.5)).settings
    assert base is not None
    assert base.adapters == ()


@pytest.mark.parametrize("method", ["dora", "lokr"])
def test_every_kind_of_adapter_has_weights(method: str, place: Path, trained: Train, tmp_path: Path) -> None:
    run = trained(method)
    found = grid(str(run), x="weight=1,0,-0.5", out=tmp_path / "grid", **ASKED)
    other = grid(
        str(place / "model"),
        x="weight=1,0,-0.5",
        adapters=[str(run)],
        out=tmp_path / "as adapter",
        fixed=SHORT,
        **ASKED,
    )
    for weight in (1.0, 0.0, -0.5):
        made = generated(place, tmp_path, adapters=[f"{run}:{weight}"])
        assert at(other, weight=weight).read_bytes() == made.read_bytes()
        assert np.abs(pixels(at(found, weight=weight)).astype(int) - pixels(made)).max() <= (method == "lokr")
    assert np.array_equal(pixels(at(found, weight=0.0)), pixels(generated(place, tmp_path)))
    assert len({pixels(path).tobytes() for path in pictures(found).values()}) == 3


def test_a_full_fine_tune_is_drawn_as_its_export_and_has_no_weight(place: Path, trained: Train, tmp_path: Path) -> None:
    run = trained("full")
    found = grid(str(run), x="checkpoint", out=tmp_path / "grid", **ASKED)
    assert np.array_equal(pixels(at(found, checkpoint=2)), pixels(generated(place, tmp_path, model="full")))
    assert np.array_equal(pixels(at(found, checkpoint=None)), pixels(generated(place, tmp_path)))
    told = read_picture(at(found, checkpoint=2)).settings
    assert told is not None
    assert told.model == "full-step_000002"
    for asked in ({"x": "weight=0,1"}, {"x": "seed=1,2", "fixed": {"weight": "0.5"}}):
        assert "a run of method 'full' has no adapter" in refused(str(run), **asked)


def test_a_learned_word_stays_whatever_the_weight(place: Path, trained: Train, tmp_path: Path) -> None:
    run, heard = trained("pivotal"), Heard()
    asked = ASKED | {"prompts": ["a <rex>"]}
    found = grid(str(run), x="checkpoint=base,2", y="weight=0,0.5", out=tmp_path / "grid", progress=heard, **asked)
    assert "the base model reads '<rex>' as 'dog', from which the word began" in heard.warnings
    assert "the weight is that of the LoRA alone: '<rex>' keeps its learned vectors" in heard.warnings
    cases: list[tuple[float, dict[str, Any]]] = [(0.5, {}), (0.0, {"embeddings": [str(run)]})]
    for weight, words in cases:
        made = generated(place, tmp_path, adapters=[f"{run}:{weight}"], prompts=["a <rex>"], **words)
        assert np.array_equal(pixels(at(found, checkpoint=2, weight=weight)), pixels(made))
    made = generated(place, tmp_path, prompts=["a dog"])
    assert np.array_equal(pixels(at(found, checkpoint=None, weight=0.5)), pixels(made))
    plain = Heard()
    grid(str(run), x="seed=1", out=tmp_path / "plain", progress=plain, **ASKED)
    assert plain.warnings == ["The prompt does not hold '<rex>', so its embedding has no effect."]


# ----------------------------------------------------------------------------------------------------------- of models
def test_the_files_of_a_model_with_adapters_are_those_of_generate(place: Path, trained: Train, tmp_path: Path) -> None:
    first, second = trained("lora"), trained("lokr")
    found = grid(
        str(place / "model"),
        x="weight=1,0,2",
        y="guidance=1,7.5",
        adapters=[str(first), f"{second}:0.5"],
        fixed=SHORT,
        negative="a cat",
        out=tmp_path / "grid",
        **ASKED,
    )
    for weight in (1.0, 0.0, 2.0):
        for guidance in (1.0, 7.5):
            adapters = [f"{first}:{weight}", f"{second}:0.5"]
            made = generated(place, tmp_path, adapters=adapters, guidance=guidance, negative="a cat")
            assert at(found, weight=weight, guidance=guidance).read_bytes() == made.read_bytes()
    assert len({path.read_bytes() for path in pictures(found).values()}) == 6


def test_other_settings_lie_along_sides_too(place: Path, tmp_path: Path) -> None:
    found = grid(
        str(place / "model"), x="steps=1,2", y="scheduler=ddim,euler", z="seed=0,5", out=tmp_path / "grid", **ASKED
    )
    for steps, scheduler, seed in ((1, "euler", 5), (2, "ddim", 0), (2, "euler", 0)):
        made = generated(place, tmp_path, steps=steps, scheduler=scheduler, seed=seed)
        assert at(found, steps=steps, scheduler=scheduler, seed=seed).read_bytes() == made.read_bytes()
    assert [one.place for one in found.drawn] == [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]


# ---------------------------------------------------------------------------------------------------- what is written
def test_record_image_and_page_show_every_place(done: GridResult) -> None:
    record = json.loads(done.page.with_name("grid.json").read_text())
    assert record == json.loads(json.dumps(done.as_dict()))
    assert record["x"]["labels"] == ["checkpoint 2", "base", "checkpoint 1"]
    assert len(record["cells"]) == 18
    page = Elements(done.page.read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 18
    assert images[0]["alt"] == "checkpoint 2, weight 0.5: a red circle"
    assert {"checkpoint 1", "weight 1", "a dog"} <= set(page.texts)
    with Image.open(done.image) as image:
        assert image.width > 3 * 32
        assert image.height > 6 * 32


def test_what_a_user_wrote_is_shown_as_text(place: Path, tmp_path: Path) -> None:
    prompt = 'a <script>alert("1")</script> & <b>dog'
    found = grid(
        str(place / "model"),
        x="seed=0",
        y="prompt",
        out=tmp_path / "g",
        fixed={"steps": "1"},
        **ASKED | {"prompts": [prompt, "a cat"]},
    )
    html = found.page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>" not in html
    assert prompt in Elements(html).texts


def test_an_older_grid_is_replaced_and_nothing_else(place: Path, tmp_path: Path) -> None:
    asked = ASKED | {"out": tmp_path / "grid", "fixed": {"steps": "1"}}
    grid(str(place / "model"), x="seed=0,1,2", **asked)
    found = grid(str(place / "model"), x="seed=0,1", **asked)
    assert len(list((found.page.parent / "pictures").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["grid"]
    for name in ("mine.txt", "pictures/mine.png"):
        (tmp_path / "grid" / name).write_text("mine")
        told = refused(str(place / "nowhere"), x="seed=0", out=tmp_path / "grid")
        assert f"{Path(name).name!r} there is no part of a grid" in told
        (tmp_path / "grid" / name).unlink()
    (tmp_path / "photos" / "pictures").mkdir(parents=True)
    assert "'pictures' there is no part" in refused(str(place / "nowhere"), x="seed=0", out=tmp_path / "photos")


# ------------------------------------------------------------------------------------------------------ what is refused
def refused(target: str, **asked: Any) -> str:
    with pytest.raises(UserError) as caught:
        grid(target, **{"prompts": ["a dog"], **asked})
    return str(caught.value)


def test_what_is_wrong_is_told_before_the_model_is_loaded(place: Path, trained: Train, tmp_path: Path) -> None:
    """The models are not there, so that loading one would be told instead."""
    run, nowhere = tmp_path / "run", str(place / "nowhere")
    shutil.copytree(trained("lora"), run)
    config = RunDir(run).config
    config.write_text(config.read_text().replace(str(place / "model"), nowhere))
    assert "there is no checkpoint '7'; there are: base, 1, 2" in refused(str(run), x="checkpoint=base,7")
    assert "there is no checkpoint 'old'" in refused(str(run), x="seed=1", fixed={"checkpoint": "old"})
    assert "the base model has no adapter" in refused(str(run), x="weight=0,1", fixed={"checkpoint": "base"})
    assert "name the model as the target" in refused(str(run), x="weight=0,1", adapters=["x"])
    out = {"out": tmp_path / "out"}
    assert "there is no prompt" in refused(nowhere, x="seed=1", prompts=[], **out)
    assert "--out: must be named" in refused(nowhere, x="seed=1")
    assert "does not exist" in refused(nowhere, x="seed=1", adapters=[str(tmp_path / "none")], **out)
    assert "there is no adapter the weight" in refused(nowhere, x="weight=0,1", **out)
    for adapters in ([f"{run}:0.5"], [str(run), str(run)]):
        assert "not plain of which adapter" in refused(nowhere, x="weight=0,1", adapters=adapters, **out)
    assert "'big' is no size" in refused(nowhere, x="seed=1", size="big", **out)
    assert "'warm' is no guidance" in refused(nowhere, x="seed=1", fixed={"guidance": "warm"}, **out)
    assert nowhere in refused(nowhere, x="seed=1", **out)
    assert not (tmp_path / "out").exists()


def test_a_run_without_checkpoints_or_of_clip_is_refused(place: Path, trained: Train, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(trained("lora"), run.path)
    shutil.rmtree(run.checkpoint(1))
    shutil.rmtree(run.checkpoint(2))
    assert "has no checkpoint of a step that was taken" in refused(str(run.path))
    clip = save_tiny_clip(tmp_path / "clip")
    values = run_values(
        clip, place / "pictures", tmp_path, objective={"kind": "contrastive"}, method={"kind": "towers"}
    )
    values |= {"model": {"kind": "clip", "path": str(clip)}, "images": {"resolution": 32, "buckets": False}}
    values["train"] |= {"micro_batch_size": None}
    run.config.write_text(json.dumps(values))
    assert "limner swap" in refused(str(run.path))


def test_another_base_model_method_or_checkpoint_is_refused_before_the_first_picture(
    place: Path, trained: Train, tmp_path: Path
) -> None:
    run, out = RunDir(tmp_path / "run"), {"out": tmp_path / "out" / "grid"}
    shutil.copytree(trained("lora"), run.path)
    before = run.config.read_text()
    save_tiny(tmp_path / "other", seed=1)
    run.config.write_text(before.replace(str(place / "model"), str(tmp_path / "other")))
    told = "the base model is not the one that step_000001 was trained from (base.autoencoder"
    assert told in refused(str(run.path), **out)
    run.config.write_text(before.replace("rank: 4", "rank: 2"))
    assert run.config.read_text() != before
    assert "does not hold what the run's config.yaml trains" in refused(str(run.path), **out)
    run.config.write_text(before)
    file = run.checkpoint(2) / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "was changed or damaged" in refused(str(run.path), **out)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_fails_says_which(place: Path, trained: Train, tmp_path: Path) -> None:
    told = refused(
        str(place / "model"), x="weight=0,100", y="seed=5", adapters=[str(nan_adapter(trained("lora"), tmp_path))],
        out=tmp_path / "out", fixed={"steps": "1"}, size="32x32", device="cpu",
    )  # fmt: skip
    assert told.startswith("weight 100, seed 5: a dog: the picture of seed 5 is not finite")


def nan_adapter(run: Path, folder: Path) -> Path:
    """Writes a LoRA whose numbers grow beyond float32 at the weight 100."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = run / "export" / "diffusers" / "pytorch_lora_weights.safetensors"
    with safe_open(file, "pt") as header:
        metadata = header.metadata()
    save_file({name: value * 1e18 for name, value in load_file(file).items()}, folder / "huge.safetensors", metadata)
    return folder / "huge.safetensors"

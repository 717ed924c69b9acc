"""A whole comparison of a run on a tiny model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import limner
from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.intervals import paired_change
from limner.core.rundir import RunDir
from limner.evaluation.change import pixel_change
from limner.report import CompareResult, compare
from limner.report.card import local_card
from limner.report.evidence import HELD_OUT, LEARNED
from tests.heard import Heard
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny, save_tiny_clip

PROMPTS = ["a red circle", "a dog"]


def config(root: Path, name: str = "run", **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "samples": {"prompts": PROMPTS, "steps": 2, "size": (32, 32)},
        "validation": {"share": 0.3, "every": 2, "draws": 2, "export": "last"},
        "train": {"steps": 4, "save_every": 2, "keep_checkpoints": 9, "ema_decay": 0.5},
        "optimizer": {"lr": 1e-2},
        **changes,
    }
    return run_config(root / "model", root / "pictures", root / name, **values)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model")
    captions = draw_folder(root / "pictures", count=8)
    for number, caption in enumerate(captions):
        (root / "pictures" / f"{number:02d}.txt").write_text(f"{caption}\n", encoding="utf-8")
    limner.finetune(config(root))
    return root


@pytest.fixture(scope="module")
def done(place: Path) -> CompareResult:
    stream = torch.random.get_rng_state()
    result = compare(place / "run", prompts=["a cat"])
    assert torch.equal(torch.random.get_rng_state(), stream)
    return result


def lines(run: RunDir) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in map(json.loads, run.validation.read_text().splitlines())}


def test_the_losses_on_held_out_pictures_are_those_that_the_run_measured(place: Path, done: CompareResult) -> None:
    measured = lines(RunDir(place / "run"))
    assert [one.step for one in done.evidence] == [2, 4]
    for one in done.evidence:
        assert one.held_out is not None
        assert one.held_out.base == pytest.approx(measured[0]["loss"], rel=1e-9)
        assert one.held_out.tuned == pytest.approx(measured[one.step]["loss"], rel=1e-9)
        by_timestep = done.by_timestep[f"step_{one.step:06d}"][HELD_OUT]
        assert by_timestep == pytest.approx(measured[one.step]["by_timestep"], rel=1e-9)
    assert done.evidence[0].learned.base == done.evidence[1].learned.base
    assert done.evidence[0].learned.pictures == 6
    assert done.by_timestep["base"][LEARNED] != done.by_timestep["base"][HELD_OUT]


def test_the_pictures_are_the_samples_and_the_base_s_are_those_of_the_base(place: Path, done: CompareResult) -> None:
    run, folder = RunDir(place / "run"), done.page.parent / "pictures"
    assert done.page.parent == run.report
    assert sorted(path.name for path in folder.iterdir()) == ["base", "step_000002", "step_000004"]
    for name, step in (("base", 0), ("step_000004", 4)):
        for number in range(len(PROMPTS)):
            with (
                Image.open(folder / name / f"{number:03d}.png") as mine,
                Image.open(run.samples / f"step_{step:06d}" / f"{number:02d}.png") as theirs,
            ):
                assert pixel_change(mine, theirs) < 1e-3
    counts = {len(list(one.iterdir())) for one in folder.iterdir()}
    assert len(counts) == 1


def test_the_record_says_the_same_as_the_result_and_the_page_stands_beside_it(done: CompareResult) -> None:
    record = json.loads((done.page.parent / "report.json").read_text())
    assert record == json.loads(json.dumps(done.as_dict()))
    assert record["keep"]["step"] == done.recommendation.step
    assert [one["step"] for one in record["checkpoints"]] == [2, 4]
    assert "a cat" in done.page.read_text()
    assert {"recipe", "held out", "learned from", "unrelated"} == record["pixels_moved"]["step_000004"].keys()
    labels = [label for label, _ in done.rows()]
    assert labels[-2:] == ["keep", "advice"]


def test_the_model_card_is_made_of_the_record_and_its_pictures_are_there(place: Path, done: CompareResult) -> None:
    folder = done.page.parent
    card = (folder / "README.md").read_text()
    assert card == local_card(config(place), json.loads((folder / "report.json").read_text()))
    assert "# run\n" in card
    pictures = re.findall(r"\]\((pictures/[^)]+)\)", card)
    assert len(pictures) == 2 * len(list((folder / "pictures" / "base").iterdir()))
    assert all((folder / path).is_file() for path in pictures)
    for prompt in (*PROMPTS, "a cat"):
        assert f"| {prompt} |" in card


def test_the_change_is_the_paired_one_of_each_picture_s_mean(done: CompareResult, place: Path) -> None:
    """The checkpoint is put into a model by hand, and each picture's losses are measured again."""
    from limner.core.progress import Silent
    from limner.report.way import _parts
    from limner.session import open_session

    settings = config(place)
    session = open_session(settings, RunDir(place / "elsewhere"), Silent())
    _, held_out = _parts(session, settings.objective)
    assert held_out is not None
    base = held_out.by_picture(lambda done, total: None)
    averages = load_file(RunDir(place / "run").checkpoint(4) / "ema.safetensors")
    for name, parameter in session.state.params.items():
        parameter.data.copy_(averages[name])
    tuned = held_out.by_picture(lambda done, total: None)
    expected = paired_change([sum(base[name]) / 2 for name in base], [sum(tuned[name]) / 2 for name in base])
    found = done.evidence[1].held_out
    assert found is not None
    assert found.change.value == pytest.approx(expected.value, rel=1e-6)
    assert (found.change.low, found.change.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_a_second_report_replaces_the_first_and_one_checkpoint_may_be_named(place: Path, done: CompareResult) -> None:
    out = place / "again"
    shutil.copytree(done.page.parent, out)
    found = compare(place / "run", steps=[4], out=out, count=2)
    assert not (out / "pictures" / "step_000002").exists()
    (alone,), (_, after) = found.evidence, done.evidence
    assert (alone.learned, alone.held_out, alone.worth) == (after.learned, after.held_out, after.worth)
    assert alone.since_best is None
    assert after.since_best is not None
    assert after.since_best.step == 2
    wanted = len(list((place / "run" / "report" / "pictures" / "base").iterdir())) - 1  # without "a cat"
    assert len(list((out / "pictures" / "base").iterdir())) == 2 * wanted


def test_equal_captions_are_worth_nothing_and_a_run_without_a_held_out_part_says_so(place: Path) -> None:
    dataset = {"caption": "a circle", "kind": "folder", "path": str(place / "plain")}
    (place / "plain").mkdir()
    for path in (place / "pictures").glob("*.png"):
        shutil.copy(path, place / "plain")
    values = config(place, "plain run", validation=None).model_dump(mode="json")
    limner.finetune(RunConfig.model_validate({**values, "dataset": dataset}))
    found = compare(place / "plain run", steps=[4])
    assert found.evidence[0].held_out is None
    assert found.evidence[0].worth is None
    assert "none was held out" in found.page.read_text()


def refused(run: Path, **asked: Any) -> str:
    with pytest.raises(UserError) as caught:
        compare(run, **asked)
    return str(caught.value)


def test_what_cannot_be_compared_is_refused(place: Path, tmp_path: Path) -> None:
    assert "is no run folder" in refused(tmp_path)
    assert "has no checkpoint of step 3; there are: 2, 4" in refused(place / "run", steps=[3])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        assert "'letter.txt' there is no part of a report" in refused(place / "run", out=folder)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("mine")
    assert "'README.md' there is no part of a report" in refused(place / "run", out=tmp_path / "docs")
    assert "'nope' is no device" in refused(place / "run", device="nope")


def test_another_base_model_is_refused_and_other_pictures_are_told(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "copy")
    root = tmp_path / "copy"
    recipe = RunDir(root / "run").config
    recipe.write_text(recipe.read_text().replace(str(place), str(root)))
    (root / "pictures" / "03.txt").write_text("something else\n", encoding="utf-8")
    heard = Heard()
    compare(root / "run", steps=[4], progress=heard)
    assert any("are not those that step 4 learned from" in text for text in heard.warnings)
    shutil.rmtree(root / "model")
    save_tiny(root / "model", seed=1)
    assert "the base model is not the one that step_000004 was trained from" in refused(root / "run", steps=[4])


def test_a_run_of_clip_is_sent_to_its_own_command(place: Path, tmp_path: Path) -> None:
    values = config(place).model_dump(mode="json")
    values |= {"model": {"kind": "clip", "path": str(save_tiny_clip(tmp_path / "clip"))}, "method": {"kind": "towers"}}
    values |= {"objective": {"kind": "contrastive"}, "samples": {}, "validation": None, "out": str(tmp_path / "run")}
    values["images"] |= {"buckets": False}
    values["train"] |= {"micro_batch_size": None}
    limner.finetune(RunConfig.model_validate(values))
    assert "limner measure" in refused(tmp_path / "run")

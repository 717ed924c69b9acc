from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import limner.demo.way
import limner.models.weights
from limner.builtin.drawings import draw_captioned
from limner.builtin.judge import Reading, Seen
from limner.builtin.scoring import Share
from limner.builtin.world.sitter import SITTER as CHARACTER
from limner.cli import main
from limner.config import load_config
from limner.core.errors import UserError
from limner.core.rundir import read_metrics
from limner.data.class_pictures import RECORD
from limner.data.dreambooth import DreamBooth
from limner.demo import DemoResult, demo
from limner.demo.judging import CALLED, STYLE_IS, UNCALLED, Goal
from limner.demo.lessons import Settings
from limner.evaluation.picture import PictureSettings, read_picture
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

FEW = Settings(
    pictures=3,
    prompts=4,
    steps=2,
    warmup_steps=1,
    batch_size=2,
    lr=1e-2,
    rank=2,
    text_encoder=False,
    drawing_steps=2,
    drawing_batch=3,
)


class Judge:
    """Sees a style in the first pictures that it reads, and another in the second."""

    def __init__(self, before: Reading, after: Reading) -> None:
        self.answers = [before, after]
        self.pictures: list[Sequence[Image.Image]] = []

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        self.pictures.append(pictures)
        return [self.answers.pop(0)] * len(pictures)


def seen(kind: str, style: str) -> Reading:
    return Reading((Seen(kind, "red", 0.5, 0.5, 1.0),), "sky", style)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    save_tiny(root / "model")
    return root


@pytest.fixture(autouse=True)
def _own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(place / "cache"))


def run(place: Path, name: str, **options: Any) -> DemoResult:
    options = {"model": str(place / "model"), "settings": FEW, **options}
    return demo(place / name, **options)


@pytest.fixture(scope="module")
def style(place: Path) -> tuple[DemoResult, Judge]:
    judge = Judge(seen("cat", "flat"), seen("cat", "stained glass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(place / "cache"))
        return run(place, "style", judge=judge), judge


def recipes(folder: Path) -> list[PictureSettings]:
    found = [read_picture(path).settings for path in sorted(folder.glob("*.png"))]
    assert None not in found
    return [settings for settings in found if settings is not None]


def test_the_same_prompts_and_seeds_are_drawn_before_and_after(place: Path, style: tuple[DemoResult, Judge]) -> None:
    before, after = recipes(place / "style" / "before"), recipes(place / "style" / "after")
    assert len(before) == FEW.prompts
    assert [settings.seed for settings in before] == [0, 0, 0, 1]
    assert [replace(settings, adapters=()) for settings in after] == before
    assert all(not settings.adapters for settings in before)
    assert all(len(settings.adapters) == 1 for settings in after)


def test_the_judge_reads_what_was_drawn_and_the_lora_changed_it(place: Path, style: tuple[DemoResult, Judge]) -> None:
    read = style[1].pictures
    for pictures, name in zip(read, ("before", "after"), strict=True):
        files = [Image.open(path).tobytes() for path in sorted((place / "style" / name).glob("*.png"))]
        assert [picture.tobytes() for picture in pictures] == files
    assert all(one.tobytes() != other.tobytes() for one, other in zip(*read, strict=True))


def test_the_numbers_are_those_of_the_judge(style: tuple[DemoResult, Judge]) -> None:
    result = style[0]
    (found,) = [measure for measure in result.measures if measure.name == STYLE_IS]
    assert (found.before, found.after) == (Share(0, 4), Share(4, 4))
    assert result.page is not None
    html = result.page.read_text(encoding="utf-8")
    assert "0 of 4" in html
    assert "4 of 4" in html
    assert dict(result.numbers())[f"{STYLE_IS}, after"].startswith("100 % (4 of 4;")
    as_json = json.loads(json.dumps(result.as_dict()))
    assert as_json["measures"][0] == {"name": STYLE_IS, "before": [0, 4], "after": [4, 4], "reached": True}
    assert as_json["measures"][-1]["reached"] is None


def test_the_page_has_every_picture_inside_and_the_runs_losses(place: Path, style: tuple[DemoResult, Judge]) -> None:
    result = style[0]
    assert result.page == place / "style" / "index.html"
    html = result.page.read_text(encoding="utf-8")
    assert html.count("<img ") == FEW.pictures + 2 * FEW.prompts == html.count('src="data:image/')
    losses = [line["loss"] for line in read_metrics(place / "style" / "run" / "metrics.jsonl")]
    assert f"{losses[0]:.3f} at the first, {losses[-1]:.3f} at the last" in html
    assert "3 found, 3 used, 0 left out" in html
    for _, path in result.files:
        assert path in html.replace("<wbr>", "")  # where a long path may break


def test_every_file_that_is_named_is_there(style: tuple[DemoResult, Judge]) -> None:
    for _, paths in style[0].files:
        for path in paths.split(", "):
            assert Path(path).exists()


@pytest.mark.slow
def test_the_commands_to_try_next_run(
    place: Path, style: tuple[DemoResult, Judge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_captioned(tmp_path / "path" / "to" / "photos", count=2)
    monkeypatch.chdir(tmp_path)
    assert [shlex.split(command)[1] for _, command in style[0].commands] == ["check", "train", "generate"]
    for _, command in style[0].commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    assert (tmp_path / "runs" / "mine" / "export").is_dir()
    assert list((tmp_path / "drawings").glob("*.png"))


@pytest.mark.slow
def test_a_character_is_learned_beside_its_class_as_the_base_draws_it(place: Path) -> None:
    judge = Judge(seen("cat", "flat"), seen(CHARACTER, "flat"))
    settings = replace(FEW, class_pictures=4, text_encoder=True)
    result = run(place, "sitter", sitter=True, judge=judge, settings=settings)
    drawn = recipes(place / "sitter" / "class_pictures")
    assert [(one.prompt, one.seed, one.adapters) for one in drawn] == [("a cat", seed, ()) for seed in range(4)]
    assert {(one.steps, one.guidance, one.scheduler) for one in drawn} == {(FEW.drawing_steps, FEW.guidance, "")}
    record = json.loads((place / "sitter" / "class_pictures" / RECORD).read_text())
    assert record["request"]["prompt"] == "a cat"  # the run drew them
    config = load_config(place / "sitter" / "run" / "config.yaml")
    assert isinstance(config.dataset, DreamBooth)
    assert config.dataset.class_path == place / "sitter" / "class_pictures"
    assert (config.dataset.class_pictures, config.dataset.class_drawing.batch_size) == (4, FEW.drawing_batch)
    assert config.trigger_word == config.dataset.token
    found = {measure.name: measure for measure in result.measures}
    assert (found[CALLED].before, found[CALLED].after) == (Share(0, 2), Share(2, 2))
    assert (found[UNCALLED].before, found[UNCALLED].after) == (Share(0, 2), Share(2, 2))
    assert result.page is not None
    assert found[UNCALLED].goal == Goal(most=0.1)
    html = result.page.read_text(encoding="utf-8")
    assert "not reached: </span>at most 10 %" in html
    assert "8 found, 7 used, 1 left out" in html  # the class among them, and the record of its drawing
    assert html.count("<img ") == FEW.pictures + 2 * FEW.prompts
    for _, path in result.files:
        for one in path.split(", "):
            assert Path(one).exists()


@pytest.mark.slow
def test_the_base_model_is_loaded_for_a_class_no_more_often_than_without_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = SD1.load

    def counting(self: SD1) -> SD1Model:
        loads.append(self.path)
        return load(self)

    monkeypatch.setattr(SD1, "load", counting)
    settings, counts = replace(FEW, prompts=2, class_pictures=2), []
    for sitter in (False, True):
        judge = Judge(seen("cat", "flat"), seen("cat", "flat"))
        run(place, f"loads-{sitter}", sitter=sitter, judge=judge, settings=settings)
        counts.append(len(loads))
        loads.clear()
    assert counts[0] == counts[1]


def test_photos_get_pictures_and_no_numbers(place: Path, tmp_path: Path) -> None:
    captions = draw_captioned(tmp_path / "photos", count=2)
    result = run(place, "photos", photos=tmp_path / "photos", settings=replace(FEW, prompts=2))
    assert result.measures == ()
    assert [settings.prompt for settings in recipes(place / "photos" / "after")] == captions
    assert result.page is not None
    html = result.page.read_text(encoding="utf-8")
    assert "Nobody has judged these" in html
    assert "interval" not in html.partition("<body>")[2]
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["00.png", "01.png", "metadata.csv"]


def test_without_the_built_in_weights_nothing_pretends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limner.models.weights, "BUILTIN_FOLDER", tmp_path / "weights")
    with pytest.raises(UserError, match="built-in model's weights are not in this installation"):
        demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photos_and_the_sitter_do_not_go_together(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no --photos"):
        run(place, "both", sitter=True, photos=tmp_path)


def test_what_no_demo_made_is_not_emptied(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo made it"):
        demo(tmp_path, model=str(place / "model"), judge=Judge(seen("cat", "flat"), seen("cat", "flat")))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_photos_in_the_folder_that_is_emptied_are_refused(place: Path, tmp_path: Path) -> None:
    draw_captioned(tmp_path / "photos", count=1)
    with pytest.raises(UserError, match="which the demo empties"):
        demo(tmp_path, photos=tmp_path / "photos", model=str(place / "model"))
    assert (tmp_path / "photos" / "00.png").exists()


@pytest.mark.slow
def test_the_command_prints_the_page_the_files_and_what_to_try_next(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_captioned(tmp_path / "photos", count=2)
    monkeypatch.setattr(limner.models.weights, "BUILTIN_FOLDER", place / "model")
    monkeypatch.setattr(limner.demo.way, "PHOTOS", replace(FEW, prompts=1))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["limner", "demo", "--photos", str(tmp_path / "photos"), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert not end.value.code
    assert printed.out.split() == [str(out / "index.html")]
    assert "\nnumbers" not in printed.err
    for word in ("check", "train", "generate"):
        assert f"\n  limner {word} " in printed.err


def test_the_command_ends_with_a_sentence_where_nothing_is_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limner.models.weights, "BUILTIN_FOLDER", tmp_path / "weights")
    monkeypatch.setattr(sys, "argv", ["limner", "demo", "--sitter", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "the built-in model's weights are not in this installation" in capsys.readouterr().err

"""What the end of a run does with the report: it is made, its advice is followed, and its failure costs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import limner
from limner.builtin.drawings import draw_folder
from limner.config import RunConfig, conflicts
from limner.core.rundir import RunDir
from limner.exporting import export_checkpoint
from limner.report.evidence import Evidence
from limner.report.verdict import Recommendation, Verdict
from tests.heard import Heard
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny


def config(root: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "samples": {"prompts": ["a red circle"], "steps": 1, "size": (32, 32)},
        "validation": {"share": 0.3, "every": 2, "draws": 1},
        "train": {"steps": 6, "save_every": 2, "keep_checkpoints": 9},
        "optimizer": {"lr": 1e-2},
        "report": {"at_end": "auto", "clip": "", "vision": ""},
        "export": [{"kind": "peft"}],
        **changes,
    }
    return run_config(root / "model", root / "pictures", root / "run", **values)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    captions = draw_folder(tmp_path / "pictures", count=6)
    for number, caption in enumerate(captions):
        (tmp_path / "pictures" / f"{number:02d}.txt").write_text(f"{caption}\n", encoding="utf-8")
    return tmp_path


def recommending(step: int | None) -> Any:
    verdict = Verdict("good", "reason", "advice")

    def recommend(row: tuple[Evidence, ...]) -> Recommendation:
        return Recommendation(step, verdict, "because")

    return recommend


def exported_step(run: RunDir) -> str:
    (file,) = run.export.glob("peft/**/*.safetensors")
    with safe_open(file, "pt") as opened:
        return str(opened.metadata()["limner.step"])


def test_a_run_ends_with_a_report_on_its_last_and_its_exported_weights(place: Path) -> None:
    done = limner.finetune(config(place, validation={"share": 0.3, "every": 2, "draws": 1, "export": "last"}))
    run = RunDir(place / "run")
    assert done.report is not None
    assert done.report.page == run.report / "index.html"
    assert [one.step for one in done.report.evidence] == [6]
    assert json.loads(run.status.read_text())["state"] == "finished"
    record = json.loads((run.report / "report.json").read_text())
    assert json.loads(json.dumps(done.as_dict()))["report"] == record


def test_it_can_be_switched_off(place: Path) -> None:
    assert limner.finetune(config(place, report={"at_end": "never"})).report is None
    assert not RunDir(place / "run").report.exists()


def test_a_report_that_cannot_be_made_is_told_and_the_run_is_done(place: Path) -> None:
    report = RunDir(place / "run").report
    report.mkdir(parents=True)
    (report / "mine.txt").write_text("a note of the user's")
    heard = Heard()
    done = limner.finetune(config(place), progress=heard)
    assert done.report is None
    assert done.exports
    assert any("there is no report" in text and "mine.txt" in text for text in heard.warnings)
    assert (report / "mine.txt").read_text() == "a note of the user's"
    assert json.loads(RunDir(place / "run").status.read_text())["state"] == "finished"


def test_the_recommended_checkpoint_is_exported_where_that_is_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.report.way.recommend", recommending(4))
    settings = config(place, train={"steps": 6, "save_every": 2, "keep_checkpoints": 9, "keep_best": True})
    done, run = limner.finetune(settings), RunDir(place / "run")
    assert done.report is not None
    assert [one.step for one in done.report.evidence] == [2, 4, 6]
    assert exported_step(run) == "4"
    best = json.loads(run.best.read_text())
    assert (best["exported_step"], best["exported_checkpoint"]) == (4, "checkpoints/step_000004")
    export_checkpoint(run.path, 4, out=place / "again")
    for file in (place / "again").rglob("*.safetensors"):
        assert file.read_bytes() == (run.export / file.relative_to(place / "again")).read_bytes()


def test_where_no_checkpoint_is_better_than_the_base_the_files_stay_and_it_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.report.way.recommend", recommending(None))
    heard = Heard()
    validation = {"share": 0.3, "every": 2, "draws": 1, "export": "last"}
    train = {"steps": 6, "save_every": 2, "keep_checkpoints": 9, "keep_best": True}
    limner.finetune(config(place, train=train, validation=validation), progress=heard)
    assert exported_step(RunDir(place / "run")) == "6"
    assert any("train.keep_best: the report recommends because" in text for text in heard.warnings)


def test_best_without_a_report_is_refused(place: Path) -> None:
    settings = config(place, train={"steps": 2, "keep_best": True}, report={"at_end": "never"})
    assert any("report.at_end=never makes none" in problem for problem in conflicts(settings))


def test_a_report_that_takes_longer_than_the_training_is_left_out_and_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.evaluation.report.LEAST_SECONDS", 0.0)
    long: dict[str, Any] = {"prompts": [], "steps": 900, "size": (32, 32)}
    heard = Heard()
    assert limner.finetune(config(place, samples=long), progress=heard).report is None
    (told,) = [text for text in heard.warnings if "there is no report" in text]
    assert "limner compare" in told
    assert "report.at_end=always" in told
    assert not RunDir(place / "run").report.exists()
    shutil.rmtree(place / "run")
    again = config(place, samples={**long, "steps": 1}, report={"at_end": "always", "clip": "", "vision": ""})
    assert limner.finetune(again).report is not None

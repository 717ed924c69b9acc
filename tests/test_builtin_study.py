"""The command: what is missing is told before the work, and table and plot end where they were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import limner.builtin_study
from limner.builtin_study import main, write
from limner.core.errors import UserError
from limner.study.grid import Setting, Study, lora
from limner.study.table import markers
from tests.study.test_table import MEASURED

PNG = b"\x89PNG"


def guide(root: Path, study: str) -> Path:
    page = root / "docs" / "guides" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text("# A guide\n\n{}\n{}\n".format(*markers(study)), encoding="utf-8")
    return page


def test_table_and_plot_go_into_the_page_and_the_folder_of_pictures(tmp_path: Path) -> None:
    page = guide(tmp_path, "trial")
    assert write(MEASURED, page=page, out=tmp_path / "out") == (page, tmp_path / "docs/images/study_trial.png")
    assert (tmp_path / "docs/images/study_trial.png").read_bytes().startswith(PNG)
    assert "](../images/study_trial.png)" in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").startswith("# A guide\n")


def test_without_a_page_both_go_below_out(tmp_path: Path) -> None:
    text, picture = write(MEASURED, page=None, out=tmp_path / "out")
    assert "](study_trial.png)" in text.read_text(encoding="utf-8")
    assert picture == tmp_path / "out" / "study_trial.png"
    assert picture.read_bytes().startswith(PNG)


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(limner.builtin_study, "measure_study", work)


@pytest.mark.usefixtures("_no_work")
def test_a_page_without_markers_and_too_few_seeds_are_refused_before_the_work(tmp_path: Path) -> None:
    page = guide(tmp_path, "another")
    with pytest.raises(SystemExit, match="does not hold <!-- study rank: begin -->"):
        main(["rank", "--write", str(page), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="--seeds: 0 is less than 1"):
        main(["rank", "--seeds", "0", "--out", str(tmp_path)])


@pytest.mark.usefixtures("_no_work")
def test_without_the_plotting_library_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError("matplotlib is not installed.", where="plot", fix="install it")

    monkeypatch.setattr(limner.builtin_study, "check_plotting", missing)
    with pytest.raises(SystemExit, match="matplotlib is not installed"):
        main(["rank", "--out", str(tmp_path)])


@pytest.mark.slow
def test_the_command_measures_the_built_in_model_with_the_judge_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Study("rank", "Rank", "style", (Setting("LoRA", lora(2), 1e-3, (12,)),))
    monkeypatch.setattr(limner.builtin_study, "STUDIES", {"rank": short})
    page = guide(tmp_path, "rank")
    main(["rank", "--prompts", "2", "--seeds", "2", "--out", str(tmp_path / "out"), "--write", str(page)])
    assert capsys.readouterr().out.split() == [str(page), str(tmp_path / "docs/images/study_rank.png")]
    text = page.read_text(encoding="utf-8")
    assert "| base model | 0 |" in text
    assert "| LoRA | 12 |" in text
    assert "--prompts 2 --seeds 2" in text

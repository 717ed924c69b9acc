"""The commands and the code of the guide on captions and search run, on tiny models in place of those of the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from limner.builtin.drawings import draw_folder
from tests.test_guides import ROOT, commands, python_of, run

PAGE = "captions_and_search"


@pytest.fixture
def user_folder(clip: Path, blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders and files that the page names; runs/my-clip is a run that has exported the tiny model."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for name in ("style", "uncaptioned", "untagged"):
        draw_folder(tmp_path / "photos" / name, count=4, seed=len(name))
    for name in ("uncaptioned", "untagged"):
        for sidecar in (tmp_path / "photos" / name).glob("*.txt"):
            sidecar.unlink()
    (tmp_path / "tags.txt").write_text("cat\ndog\nbackground\n")
    shutil.copytree(clip, tmp_path / "runs" / "my-clip" / "export" / "transformers")
    (tmp_path / "runs" / "my-clip" / "status.json").write_text("{}")
    (tmp_path / "blip").symlink_to(blip)
    return tmp_path


def offline(words: list[str]) -> list[str]:
    """Returns a command of the page with a tiny model where it names none."""
    if words[1] == "check":
        return [*words, "model.path=builtin", "images.resolution=128"]
    if "--model" in words:
        return words
    writes = words[1] == "caption" and "--rank" not in words
    return [*words, "--model", "blip" if writes else "runs/my-clip"]


def test_the_commands_run_one_after_the_other(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = commands(PAGE)
    assert {words[1] for words in todo} == {"caption", "check", "search", "score"}
    for words in todo:
        printed = run(offline(words), monkeypatch)
        assert ".png" in printed or words[1] == "check" or "--rank" in words
    photos = user_folder / "photos"
    assert len(list((photos / "uncaptioned").glob("*.txt"))) == 4
    rows = (photos / "untagged" / ".limner" / "captioning.jsonl").read_text().splitlines()
    assert {json.loads(row)["outcome"] for row in rows} <= {"captioned", "empty"}
    assert (user_folder / "found.html").is_file()
    assert (user_folder / "worst.html").is_file()


def test_the_code_runs(user_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_of(PAGE, "limner.score"), PAGE, "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count(".png") >= 6


def test_json_lines_hold_the_same_as_the_words(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def events(*words: str) -> list[dict[str, object]]:
        printed = run(["limner", *words, "--json"], monkeypatch)
        return [json.loads(line) for line in printed.splitlines()]

    rows = [event for event in events("caption", "photos/uncaptioned", "--model", "blip") if event["event"] == "row"]
    assert [row["outcome"] for row in rows] == ["captioned"] * 4
    (*_, found) = events("search", "photos/style", "a cat", "--model", "runs/my-clip", "--top", "2")
    assert found["pictures"] == 4
    (*_, scored) = events("score", "photos/style", "--model", "runs/my-clip", "--worst", "2")
    pairs = scored["pairs"]
    assert isinstance(pairs, list)
    assert len(pairs) == 2
    assert isinstance(scored["interval"], list)
    assert scored["mean"]

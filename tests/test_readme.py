"""What the README says is true: its commands run, its output is real, its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.make_options import TARGET, render
from limner.builtin.drawings import draw_folder
from limner.cli import main
from tests.tiny import save_tiny

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("limner ")]


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes, captioned photos and a small model, and nothing else."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    draw_folder(tmp_path / "photos", count=4)
    save_tiny(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    return tmp_path


SMALLER = [
    "model.path=model",
    "images={resolution: 64, bucket_step: 16}",
    "train={steps: 2, batch_size: 2, device: cpu}",
    "schedule.warmup_steps=0",
    "samples.steps=2",
]


@contextlib.contextmanager
def captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", words)
    code = 0
    with captured() as (out, err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue() + err.getvalue()


def test_the_commands_run_as_they_stand_on_a_small_model(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(commands()) == 4
    for command in commands():
        words = shlex.split(
            command.replace("path/to/photos", "photos").replace("CompVis/stable-diffusion-v1-4", "model")
        )
        smaller = {"generate": ["--steps", "2", "--size", "64x64"], "compare": []}
        extra = smaller.get(words[1], SMALLER)
        code, printed = run([*words, *extra], monkeypatch)
        assert code == 0, printed
    assert list((user_folder / "drawings").glob("*.png"))


def test_the_errors_are_printed_as_shown(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = [block for block in blocks("console") if "error:" in block]
    command, expected = shown.split("\n", 1)
    code, printed = run(shlex.split(command.removeprefix("$ ")), monkeypatch)
    assert code == 2
    assert printed == expected


def test_the_plan_is_printed_as_shown(user_folder: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    (shown,) = [block for block in blocks("console") if "pictures  " in block]
    command, expected = shown.split("\n", 1)
    words = shlex.split(command.removeprefix("$ ").replace("=photos", f"={data_root / 'flickr8k'}"))
    code, printed = run([*words, "model.path=model"], monkeypatch)
    assert code == 0, printed
    lines = [line.rstrip() for line in printed.splitlines()]
    for line in expected.strip().splitlines():
        assert line == "..." or line in lines, printed


def test_the_python_runs(user_folder: Path) -> None:
    (code,) = blocks("python")
    smaller = ", ".join(repr(change) for change in SMALLER)
    assert '"dataset.path=photos"' in code
    with captured() as (out, _):
        exec(compile(code.replace('"dataset.path=photos"', f'"dataset.path=photos", {smaller}'), "README", "exec"), {})
    assert "pictures" in out.getvalue()
    assert "runs/mine/export" in out.getvalue()


def test_the_links_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_tree_names_what_is_there() -> None:
    tree = README[README.index("\nlimner/\n") :].split("```")[0]
    named = set(re.findall(r"(\w+(?:\.py|/))", tree)) - {"limner/"}
    package = ROOT / "limner"
    there = {path.name + ("/" if path.is_dir() else "") for path in package.iterdir()}
    assert named == {name for name in there if not name.startswith(("_", "py."))}


def test_the_list_of_options_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run python docs/make_options.py"

"""The commands as a user types them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limner.builtin.drawings import draw_folder
from limner.cli import main
from limner.core.rundir import RunDir, read_metrics
from tests.tiny import save_tiny

LIMNER = str(Path(sys.executable).parent / "limner")


def limner(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command through the entry point in this process, which has the heavy libraries already."""
    out, err = io.StringIO(), io.StringIO()
    arguments, sys.argv = sys.argv, ["limner", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = arguments
    return subprocess.CompletedProcess(list(words), code, out.getvalue(), err.getvalue())


def limner_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command as a shell does."""
    return subprocess.run([LIMNER, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures and a recipe, as a user has them."""
    root = tmp_path_factory.mktemp("work")
    save_tiny(root / "model")
    draw_folder(root / "pictures", count=5)
    (root / "recipe.yaml").write_text(
        f"""
out: {root / "run"}
model: {{kind: sd1, path: {root / "model"}}}
dataset: {{kind: auto, path: {root / "pictures"}}}
images: {{resolution: 64, bucket_step: 16}}
method: {{kind: lora}}
train: {{steps: 4, batch_size: 2, save_every: 2, device: cpu}}
samples: {{prompts: [a red boat], steps: 2}}
cache: {{folder: {root / "cache"}}}
trigger_word: glass
"""
    )
    return root


@pytest.fixture(scope="module")
def trained(workplace: Path) -> subprocess.CompletedProcess[str]:
    return limner_process("train", workplace / "recipe.yaml", "--json")


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_takes_under_half_a_second_of_computing() -> None:
    """Computing, and not waiting for a core that other tests hold."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert limner_process("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0.05 < min(seconds) < 0.5


def test_a_run_is_told_in_json_lines_and_leaves_its_files(
    trained: subprocess.CompletedProcess[str], workplace: Path
) -> None:
    assert trained.returncode == 0, trained.stderr
    told = events(trained)
    steps = [event for event in told if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert {"loss", "lr", "grad_norm", "seconds", "images_per_second"} <= steps[0].keys()
    assert told[-1]["event"] == "result"
    assert told[-1]["step"] == 4
    run = workplace / "run"
    names = {path.name for path in run.iterdir()}
    expected = {"config.yaml", "environment.json", "ledger.jsonl", "metrics.jsonl", "status.json"}
    assert expected <= names
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step_000000", "step_000004"]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert {Path(export["path"]).name for export in told[-1]["exports"]} == {"diffusers", "kohya", "peft"}


def test_check_shows_the_plan_and_trains_nothing(workplace: Path) -> None:
    done = limner("check", workplace / "recipe.yaml", f"out={workplace / 'unused'}")
    assert done.returncode == 0, done.stderr
    assert "5 found, 5 used" in done.stderr
    assert "4 of 2 pictures: 1.6 epochs" in done.stderr
    assert not (workplace / "unused").exists()


def test_every_mistake_in_a_recipe_is_named_at_once_with_exit_code_2(workplace: Path) -> None:
    done = limner("check", workplace / "recipe.yaml", "train.stepz=3", "method.rank=0", "optimizer.kind=adamx")
    assert done.returncode == 2
    assert "3 problems" in done.stderr
    assert "Did you mean 'steps'" in done.stderr
    assert "Did you mean 'adamw'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["dataset.path=nowhere"], "nowhere"),
        (["model.path=nowhere/at-all"], "nowhere/at-all"),
        (["trigger_word=giraffe"], "'giraffe' stands in no caption"),
        (["schedule.warmup_steps=4"], "warmup_steps"),
        (["train.epochs=3"], "exactly one of"),
        (["train.device=cuda"], "sees no such device"),
        (["images.resolution=66", "images.buckets=false"], "multiples of 4"),
    ],
)
def test_a_mistake_ends_in_a_sentence(workplace: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    done = limner("train", workplace / "recipe.yaml", f"out={tmp_path / 'run'}", *changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_draws_the_same_picture_again_and_the_adapter_changes_it(
    trained: subprocess.CompletedProcess[str], workplace: Path, tmp_path: Path
) -> None:
    from PIL import Image

    assert trained.returncode == 0
    common = [
        "--model",
        workplace / "model",
        "--prompt",
        "a red boat",
        "--seed",
        "7",
        "--steps",
        "2",
        "--size",
        "64x64",
    ]
    for name, adapter in {
        "base": [],
        "again": [],
        "none": ["--adapter", f"{workplace / 'run'}:0"],
        "tuned": ["--adapter", workplace / "run"],
    }.items():
        done = limner("generate", *common, *adapter, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert [Path(line).parent for line in done.stdout.splitlines()] == [tmp_path / name]
    pictures = {}
    for name in ("base", "again", "none", "tuned"):
        (path,) = (tmp_path / name).glob("*.png")
        with Image.open(path) as image:
            pictures[name] = image.tobytes()
            text = image.info["parameters"]
        assert text.startswith("a red boat")
        assert "Steps: 2" in text
        assert "Seed: 7" in text
    assert pictures["base"] == pictures["again"] == pictures["none"]
    assert pictures["base"] != pictures["tuned"]


def test_inspect_names_what_it_sees(trained: subprocess.CompletedProcess[str], workplace: Path) -> None:
    assert trained.returncode == 0
    run = workplace / "run"
    for path, words in {
        run / "export" / "diffusers" / "pytorch_lora_weights.safetensors": ("LoRA", "rank"),
        run / "export" / "peft": ("PEFT", "rank"),
        run: ("run",),
        workplace / "model": ("diffusers",),
        workplace / "recipe.yaml": ("recipe",),
        next((run / "samples").rglob("*.png")): ("a picture made by Limner", "a red boat"),
    }.items():
        done = limner("inspect", path)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words), done.stdout
    assert limner("inspect", workplace / "absent").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on(workplace: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    command = ["train", str(workplace / "recipe.yaml"), f"out={out}", "train.steps=400", "train.save_every=1000"]
    process = subprocess.Popen([LIMNER, *command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "step":
            break
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    steps = RunDir(out).checkpoint_steps()
    assert 1 <= steps[-1] < 400
    assert len(read_metrics(RunDir(out).metrics)) == steps[-1]
    assert json.loads((out / "status.json").read_text())["state"] == "stopped"
    again = limner("train", workplace / "recipe.yaml", f"out={out}", f"train.steps={steps[-1] + 1}", "--resume")
    assert again.returncode == 0, again.stderr
    assert RunDir(out).checkpoint_steps()[-1] == steps[-1] + 1


def test_a_mistake_in_a_recipe_is_an_event_for_machines(workplace: Path) -> None:
    done = limner("check", workplace / "recipe.yaml", "train.stepz=3", "--json")
    assert done.returncode == 2
    (event,) = events(done)
    assert event["event"] == "error"
    assert "Did you mean 'steps'" in event["text"]

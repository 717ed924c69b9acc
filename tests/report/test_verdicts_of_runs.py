"""Four runs on the built-in model, one good and three that went wrong, each called by its name."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import limner
from limner.builtin.drawings import draw_captioned
from limner.config import RunConfig
from limner.core.rundir import RunDir
from limner.report import compare
from limner.report.verdict import Name

PICTURES = 48


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in a style that the model does not know: with their captions, with each other's, and a few of them."""
    root = tmp_path_factory.mktemp("place")
    draw_captioned(root / "fitting", count=PICTURES, seed=5)
    with (root / "fitting" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["text"] for row in rows]
    random.Random(1).shuffle(texts)
    folders = {
        "shuffled": [{**row, "text": text} for row, text in zip(rows, texts, strict=True)],
        "few": rows[:14],
    }
    for name, found in folders.items():
        (root / name).mkdir()
        for row in found:
            shutil.copy(root / "fitting" / row["file_name"], root / name)
        with (root / name / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(found)
    return root


RUNS: dict[Name, dict[str, Any]] = {
    "good": {"data": "fitting", "steps": 60, "lr": 1e-3},
    "undertrained": {"data": "fitting", "steps": 4, "lr": 1e-5},
    "captions do not fit": {"data": "shuffled", "steps": 60, "lr": 1e-3},
    "overtrained": {"data": "few", "steps": 250, "lr": 5e-3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_called_by_its_name(name: Name, place: Path) -> None:
    values = RUNS[name]
    config = RunConfig.model_validate({
        "out": place / name.replace(" ", "_"),
        "model": {"kind": "sd1", "path": "builtin"},
        "dataset": {"kind": "table", "path": place / values["data"]},
        "images": {"resolution": 128, "buckets": False},
        "method": {"kind": "lora", "rank": 32},
        "optimizer": {"kind": "adamw", "lr": values["lr"]},
        "schedule": {"kind": "constant", "warmup_steps": 2},
        "train": {"steps": values["steps"], "batch_size": 8, "save_every": 25, "keep_checkpoints": 20, "device": "cpu"},
        "validation": {"share": 0.25 if values["data"] != "few" else 0.5, "every": 1000, "export": "last"},
        "samples": {"steps": 2},
        "cache": {"folder": place / "cache"},
        "export": [],
        "report": {"at_end": "never"},  # it is made below, of these checkpoints
    })  # fmt: skip
    limner.finetune(config)
    found = compare(config.out, steps=[25, 250] if name == "overtrained" else [values["steps"]])
    assert found.verdicts[-1].name == name, found.rows()
    assert found.recommendation.step == {"good": 60, "overtrained": 25}.get(name)
    assert RunDir(config.out).report.joinpath("index.html").is_file()

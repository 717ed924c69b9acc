"""A DreamBooth run draws the class pictures that lack, once, and says beforehand how many."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from limner.builtin.drawings import draw_folder
from limner.class_pictures import draw_class_pictures
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.core.rundir import RunDir, read_metrics
from limner.data.class_pictures import RECORD
from limner.models.sd1 import SD1, SD1Model
from limner.preflight import plan
from limner.run import finetune
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subject")
    draw_folder(folder, count=2)
    for sidecar in folder.glob("*.txt"):
        sidecar.unlink()
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets a name for each time that a base model is loaded."""
    counted: list[str] = []
    load = SD1.load

    def counting(self: SD1) -> SD1Model:
        counted.append(self.path)
        return load(self)

    monkeypatch.setattr(SD1, "load", counting)
    return counted


def config(model: Path, subject: Path, root: Path, name: str = "run", **changes: Any) -> RunConfig:
    dataset = {
        "kind": "dreambooth",
        "path": str(subject),
        "class_noun": "dog",
        "class_path": str(root / "class"),
        "class_pictures": 5,
        "class_drawing": {"steps": 2, "batch_size": 2},
        **changes,
    }
    values = run_config(model, subject, root / name, train={"steps": 6}).model_dump(mode="json")
    return RunConfig.model_validate({**values, "dataset": dataset})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_run_draws_what_lacks_and_later_runs_use_it(model: Path, subject: Path, tmp_path: Path) -> None:
    first = config(model, subject, tmp_path)
    listener = Listener()
    planned = plan(first, progress=listener)
    assert "5 class pictures of 5 will be drawn by the base model" in " ".join(listener.said)
    assert not (tmp_path / "class").exists()  # checking draws nothing

    result = finetune(first)
    folder = tmp_path / "class"
    assert len(list(folder.glob("*.png"))) == 5
    record = json.loads((folder / RECORD).read_text())
    assert record["request"]["prompt"] == "a photo of a dog"
    rows = [json.loads(line) for line in RunDir(first.out).ledger.read_text().splitlines()]
    used = [row for row in rows if row["used"]]
    assert [row["role"] for row in used] == ["class"] * 5 + ["instance"] * 2
    assert [row["reason"] for row in rows if row["id"] == f"class/{RECORD}"] == [
        "says how the class pictures were drawn"
    ]
    assert (result.steps, plan(first).epochs) == (planned.steps, planned.epochs)  # as it was foretold

    before = contents(folder)
    finetune(config(model, subject, tmp_path, "second"))
    assert contents(folder) == before
    fewer = plan(config(model, subject, tmp_path, "third", class_pictures=3)).ledger
    assert sum(picture.example.role == "class" for picture in fewer.prepared) == 3
    reasons = [row.reason for row in fewer.rows if not row.used]
    assert reasons.count("drawn for a run that asked for more class pictures") == 2


def test_the_loss_of_subject_and_class_are_logged_apart(model: Path, subject: Path, tmp_path: Path) -> None:
    finetune(config(model, subject, tmp_path))
    lines = read_metrics(RunDir(tmp_path / "run").metrics)
    assert any({"loss_subject", "loss_class"} <= line.keys() for line in lines)
    for line in lines:
        parts = [line[name] for name in ("loss_subject", "loss_class") if name in line]
        assert min(parts) - 1e-6 <= line["loss"] <= max(parts) + 1e-6


def test_one_s_own_pictures_count(model: Path, subject: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    draw_folder(folder, count=3)
    for sidecar in folder.glob("*.txt"):
        sidecar.unlink()
    own = contents(folder)
    draw_class_pictures(config(model, subject, tmp_path), Silent())
    assert contents(folder).items() > own.items()
    assert len(list(folder.glob("limner-class-*.png"))) == 2
    assert sum(p.example.role == "class" for p in plan(config(model, subject, tmp_path)).ledger.prepared) == 5


def test_what_was_drawn_is_kept_and_only_the_rest_is_drawn(model: Path, subject: Path, tmp_path: Path) -> None:
    draw_class_pictures(config(model, subject, tmp_path, class_pictures=2), Silent())
    before = contents(tmp_path / "class")
    draw_class_pictures(config(model, subject, tmp_path), Silent())
    after = contents(tmp_path / "class")
    assert after.items() > before.items()
    assert len(after) == 6


def test_pictures_of_another_prompt_or_model_are_refused(model: Path, subject: Path, tmp_path: Path) -> None:
    draw_class_pictures(config(model, subject, tmp_path, class_pictures=2), Silent())
    with pytest.raises(UserError, match="prompt was 'a photo of a dog' and is 'a dog' now"):
        plan(config(model, subject, tmp_path, class_pictures=2, class_prompt="a dog"))
    other = save_tiny(tmp_path / "other", seed=1)
    for wanted in (2, 4):  # nothing lacks; two lack
        with pytest.raises(UserError, match=r"by '.*/tiny' and this run starts from '.*/other', which differs in"):
            finetune(config(other, subject, tmp_path, f"run{wanted}", class_pictures=wanted))
    assert len(list((tmp_path / "class").glob("*.png"))) == 2
    moved = shutil.copytree(model, tmp_path / "moved")
    assert finetune(config(moved, subject, tmp_path, "again", class_pictures=2)).step == 6


@pytest.mark.parametrize(
    ("method", "precision", "times"),
    [
        ({"kind": "lora", "rank": 2}, "fp32", 1),
        ({"kind": "lora", "rank": 2, "text_encoder": True}, "bf16", 1),  # all that drawing rounds is frozen and rounded
        ({"kind": "full"}, "bf16", 2),  # the weights that train must be those of the files
    ],
)
def test_a_run_that_draws_loads_as_often_as_it_must_and_trains_as_one_whose_pictures_are_there(
    model: Path, subject: Path, tmp_path: Path, loads: list[str], method: dict[str, Any], precision: str, times: int
) -> None:
    found = []
    for name in ("draws", "finds"):
        values = config(model, subject, tmp_path, name).model_dump(mode="json")
        train = {**values["train"], "precision": precision}
        finetune(RunConfig.model_validate({**values, "method": method, "train": train}))
        run = RunDir(tmp_path / name)
        found.append(load_file(run.checkpoint(6) / "weights.safetensors"))
        assert loads == [str(model)] * (times if name == "draws" else 1)
        loads.clear()
    one, other = found
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_nothing_is_drawn_beside_pictures_of_another_model(model: Path, subject: Path, tmp_path: Path) -> None:
    draw_class_pictures(config(model, subject, tmp_path), Silent())
    values = config(save_tiny(tmp_path / "other", seed=1), subject, tmp_path).model_dump(mode="json")
    cat = shutil.copytree(subject, tmp_path / "cat")
    cats = {**values["dataset"], "path": str(cat), "class_noun": "cat", "class_path": str(tmp_path / "cats")}
    values["dataset"] = {
        "kind": "several",
        "sources": [{"name": "cats", "dataset": cats}, {"name": "dogs", "dataset": values["dataset"]}],
    }
    with pytest.raises(UserError, match="which differs in"):
        draw_class_pictures(RunConfig.model_validate(values), Silent())
    assert not (tmp_path / "cats").exists()


def test_nothing_is_drawn_for_a_run_that_cannot_start(model: Path, subject: Path, tmp_path: Path) -> None:
    values = config(model, subject, tmp_path).model_dump(mode="json")
    wide = tmp_path / "wide"
    shutil.copytree(subject, wide)
    Image.linear_gradient("L").convert("RGB").resize((64, 32)).save(wide / "wide.png")
    values["dataset"]["path"] = str(wide)
    images = {"resolution": 32, "buckets": False, "max_cut": 0.0}
    with pytest.raises(UserError, match=r"images\.max_cut"):
        draw_class_pictures(RunConfig.model_validate({**values, "images": images}), Silent())
    assert not (tmp_path / "class").exists()

"""A run of CLIP that is measured before and after, by hand, and at shares between base and tuned."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from limner.blend_curve import Blend, blend, parse_shares, propose, write_model
from limner.cli import main
from limner.config import RunConfig, Train, conflicts
from limner.core.errors import UserError
from limner.core.intervals import Change
from limner.core.rundir import RunDir
from limner.models.clip import Clip
from limner.preflight import plan
from limner.run import RunResult, finetune
from tests.tiny import save_tiny_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, captioned pictures, others of them to measure on, and colours in class folders."""
    from limner.builtin.pictures import draw_pictures

    folder = tmp_path_factory.mktemp("measured")
    save_tiny_clip(folder / "model")
    draw_pictures(folder / "pictures", count=8, seed=3, captions=2, side=32)
    draw_pictures(folder / "others", count=8, seed=4, captions=2, side=32)
    for name, colour in COLOURS.items():
        (folder / "colours" / name).mkdir(parents=True)
        for number in range(5):
            picture = Image.new("RGB", (32, 32), tuple(value + 3 * number for value in colour))
            picture.save(folder / "colours" / name / f"{number}.png")
    return folder


def metrics(root: Path) -> list[dict[str, Any]]:
    colours = {"kind": "folder", "path": str(root / "colours"), "uncaptioned": "empty"}
    return [
        {"kind": "retrieval", "dataset": {"kind": "table", "path": str(root / "others")}},
        {"kind": "zero_shot", "name": "colours", "guard": True, "dataset": colours},
    ]


def config(root: Path, out: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "clip", "path": str(root / "model")},
        "dataset": {"kind": "table", "path": root / "pictures"},
        "images": {"resolution": 32, "buckets": False},
        "method": {"kind": "towers", "text": "none"},
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-2},
        "train": {"steps": 4, "batch_size": 4, "device": "cpu", "save_every": 2},
        "metrics": metrics(root),
        "cache": {"folder": out.parent / "cache"},
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def run(root: Path) -> RunResult:
    return finetune(config(root, root / "run"))


class Listening:
    """Keeps what a job says, and stops it in the stage that is named."""

    def __init__(self, stops_at: str = "") -> None:
        self.stops_at = stops_at
        self.stages: set[str] = set()
        self.said: list[str] = []
        self.tables: dict[str, list[tuple[str, str]]] = {}

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(f"warning: {text}")

    def table(self, title: str, rows: Any) -> None:
        self.tables[title] = list(rows)

    def stage(self, name: str, done: int, total: int) -> None:
        self.stages.add(name)
        if name == self.stops_at:
            raise KeyboardInterrupt

    def step(self, line: Any, steps: int) -> None:
        pass


# --------------------------------------------------------------------------------------------------------- in a run
def test_a_run_tells_before_and_after(root: Path, run: RunResult) -> None:
    report = root / "run" / "metrics_report"
    written = json.loads((report / "measurements.json").read_text())
    assert [one["metric"] for one in written["metrics"]] == ["retrieval_table", "colours"]
    assert [one["pictures"] for one in written["metrics"]] == [8, 15]
    assert [one["guard"] for one in written["metrics"]] == [False, True]
    numbers = [number for one in written["metrics"] for number in one["numbers"]]
    assert any(number["before"] != number["after"] for number in numbers)
    for number in numbers:
        assert number["change"]["value"] == pytest.approx(number["after"] - number["before"])
        assert number["before_interval"][0] <= number["before"] <= number["before_interval"][1] + 1e-9
    assert run.as_dict()["metrics"] == written["metrics"]
    assert Image.open(report / "colours_before.png").width > 100
    assert (report / "colours_after.png").read_bytes() != (report / "colours_before.png").read_bytes()


def test_what_was_measured_is_the_base_and_the_exported_model(root: Path, run: RunResult) -> None:
    chosen = config(root, root / "run").metrics
    for folder, when in ((root / "model", "before"), (root / "run" / "export" / "transformers", "after")):
        model = Clip(path=str(folder)).load()
        for metric, comparison in zip(chosen, run.metrics, strict=True):
            measured = metric.measure(model)
            assert [n.value for n in measured.numbers] == [getattr(n, when) for n in comparison.numbers]


def test_measuring_does_not_change_what_is_learned(root: Path, run: RunResult, tmp_path: Path) -> None:
    plain = finetune(config(root, tmp_path / "plain", metrics=[]))
    assert plain.metrics == ()
    one, other = (load_file(RunDir(result.out).checkpoint(4) / "weights.safetensors") for result in (run, plain))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_base_is_not_measured_twice_after_a_stop_unless_the_metric_changed(root: Path, tmp_path: Path) -> None:
    train = {"steps": 2, "batch_size": 4, "device": "cpu", "save_every": 2}
    finetune(config(root, tmp_path / "run", train=train))
    path = tmp_path / "run" / "metrics_report" / "before.json"
    stored = json.loads(path.read_bytes())
    expected = stored["measured"][0]["measurement"]["raw"]
    for entry in stored["measured"]:
        entry["measurement"]["notes"] = ["kept from the first process"]
    path.write_text(json.dumps(stored))
    changed = metrics(root)
    changed[0]["name"] = "renamed"
    result = finetune(config(root, tmp_path / "run", metrics=changed), resume=True)
    assert result.metrics[1].before.notes == ("kept from the first process",)
    assert result.metrics[0].before.notes != ("kept from the first process",)
    assert result.metrics[0].before.raw == expected  # of the base, not of step 2
    assert result.metrics[0].after.raw != expected


def test_damaged_or_foreign_numbers_are_measured_anew(root: Path, run: RunResult, tmp_path: Path) -> None:
    (tmp_path / "run" / "metrics_report").mkdir(parents=True)
    for text in ("{", json.dumps({"base": {"base.clip": "other"}, "measured": []}), json.dumps([1])):
        (tmp_path / "run" / "metrics_report" / "before.json").write_text(text)
    result = finetune(config(root, tmp_path / "run"))
    assert [one.before for one in result.metrics] == [one.before for one in run.metrics]


# ----------------------------------------------------------------------------------------------------- what is refused
def test_a_guard_that_is_trained_on_is_refused_and_a_target_is_told(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied"  # other names, the same bytes
    (copy / "one").mkdir(parents=True)
    picture = next((root / "pictures").rglob("*.png"))
    (copy / "one" / "renamed.png").write_bytes(picture.read_bytes())
    (copy / "two").mkdir()
    Image.new("RGB", (32, 32)).save(copy / "two" / "black.png")
    metric = {"kind": "zero_shot", "dataset": {"kind": "folder", "path": str(copy), "uncaptioned": "empty"}}
    with pytest.raises(UserError, match=r"1 of its 2 pictures are trained on, such as one/renamed\.png"):
        plan(config(root, tmp_path / "run", metrics=[metric | {"guard": True}]))
    listening = Listening()
    rows = dict(plan(config(root, tmp_path / "run", metrics=[metric]), progress=listening).rows)
    assert rows["zero_shot_folder"] == "zero_shot before and after, 2 pictures"
    assert "measures memory" in listening.said[-1]


def test_metrics_that_cannot_be_are_refused(root: Path, tmp_path: Path) -> None:
    one = metrics(root)[0]
    (problem,) = conflicts(config(root, tmp_path / "run", metrics=[one, one]))
    assert "two are called 'retrieval_table'" in problem
    drawing = {
        "model": {"kind": "sd1", "path": "builtin"},
        "method": {"kind": "lora"},
        "objective": {"kind": "denoising"},
    }
    (problem,) = conflicts(config(root, tmp_path / "run", metrics=[one], **drawing))
    assert "'retrieval' measures model clip, not 'sd1'" in problem
    with pytest.raises(ValueError, match="is no name"):
        config(root, tmp_path / "run", metrics=[one | {"name": "a/b"}])


# ------------------------------------------------------------------------------------------------------------- by hand
def limner(*words: object) -> tuple[int, str, str]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments, sys.argv = sys.argv, ["limner", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = arguments
    return code, out.getvalue(), err.getvalue()


def test_the_command_measures_a_run_as_the_run_did(root: Path, run: RunResult, tmp_path: Path) -> None:
    code, out, _ = limner("measure", root / "run", "--device", "cpu", "--json", "--out", tmp_path / "by_hand")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["metrics"] == run.as_dict()["metrics"]
    assert json.loads((tmp_path / "by_hand" / "measurements.json").read_text())["metrics"] == result["metrics"]


def test_the_command_measures_a_model_with_the_metrics_of_a_recipe(root: Path, run: RunResult, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config(root, tmp_path / "run").model_dump(mode="json")))
    code, _, err = limner("measure", root / "model", "--recipe", recipe, "--metric", "colours", "--device", "cpu")
    assert code == 0
    number = run.metrics[1].numbers[0]
    assert f"top-1 accuracy  {100 * number.before:5.1f} %" in err
    assert "retrieval" not in err
    code, _, err = limner("measure", root / "model", "--recipe", recipe, "--metric", "colour")
    assert code == 2
    assert "Known: retrieval_table, colours" in err
    code, _, err = limner("measure", root / "model")
    assert code == 2
    assert "--recipe" in err


# --------------------------------------------------------------------------------------------------------------- blends
def test_the_ends_of_the_curve_are_the_base_and_the_tuned_model(root: Path, run: RunResult, tmp_path: Path) -> None:
    found = blend(root / "run", (0.5, 1), out=tmp_path / "blend", write=0.5, device="cpu")
    assert found.shares == (0.0, 0.5, 1.0)
    written = json.loads((tmp_path / "blend" / "blend.json").read_text())
    assert (written["target"], written["guard"]) == ("retrieval_table", "colours")
    for share, when in ((0, "before"), (2, "after")):
        for comparison in run.metrics:
            values = [number["value"] for number in written["shares"][share]["metrics"][comparison.after.metric]]
            assert values == [getattr(number, when) for number in comparison.numbers]
    assert written["proposed"]["share"] == found.proposal.share
    assert Image.open(tmp_path / "blend" / "curve.png").width > 100


def test_the_written_blend_is_the_mean_of_both_and_transformers_reads_it(
    root: Path, run: RunResult, tmp_path: Path
) -> None:
    found = blend(root / "run", (0.25,), out=tmp_path / "blend", write=0.25, names=["retrieval_table"], device="cpu")
    assert found.written is not None
    folder = found.written.path
    CLIPModel.from_pretrained(folder)
    places = (root / "model", root / "run" / "export" / "transformers", folder)
    base, tuned, between = (load_file(place / "model.safetensors") for place in places)
    assert base.keys() == between.keys()
    for name, value in between.items():
        torch.testing.assert_close(value, 0.75 * base[name] + 0.25 * tuned[name])
    assert any(not torch.equal(between[name], base[name]) for name in base)
    assert "no guard" in found.proposal.reason or "no share" in found.proposal.reason


def test_the_written_blend_reads_pictures_as_its_base_does(root: Path, tmp_path: Path) -> None:
    base = Clip(path=str(root / "model")).load()
    base = dataclasses.replace(
        base, preprocessing=dataclasses.replace(base.preprocessing, resize=40, interpolation="bilinear")
    )
    weights = {name: value * 1.01 for name, value in base.network.state_dict().items()}
    written = write_model(base, weights, tmp_path / "blend", "run")
    assert Clip(path=str(written.path)).load().preprocessing == base.preprocessing


def test_what_cannot_be_blended_is_refused(root: Path, run: RunResult, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        blend(root / "model")
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        blend(root / "run", (1.5,))
    with pytest.raises(UserError, match="all metrics are guards"):
        blend(root / "run", (1,), names=["colours"])
    with pytest.raises(UserError, match="no list of numbers"):
        parse_shares("0,half")
    assert parse_shares("0,0.5,1") == (0, 0.5, 1)


def test_a_blend_that_was_stopped_goes_on_and_writes_the_same_bytes(root: Path, run: RunResult, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    blend(root / "run", (0.5, 1), out=whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        blend(root / "run", (0.5, 1), out=stopped, device="cpu", progress=Listening("colours, share 0.5"))
    assert not (stopped / "blend.json").exists()
    listening = Listening()
    blend(root / "run", (0.5, 1), out=stopped, device="cpu", progress=listening)
    assert listening.stages == {"colours, share 0.5", "retrieval_table, share 1", "colours, share 1"}
    assert f"3 of 6 measurements are those of an earlier call, in {stopped / 'measured'}" in listening.said
    assert (stopped / "blend.json").read_bytes() == (whole / "blend.json").read_bytes()


def test_a_blend_measures_what_it_has_not_measured_of_this_run_metric_and_data(
    root: Path, run: RunResult, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "root"))
    recipe, tuned = other / "run" / "config.yaml", other / "run" / "export" / "transformers" / "model.safetensors"
    recipe.write_text(recipe.read_text().replace(str(root), str(other)))
    colours, retrieval = (
        {"colours, share 0", "colours, share 1"},
        {"retrieval_table, share 0", "retrieval_table, share 1"},
    )

    def measured(**choice: Any) -> set[str]:
        listening = Listening()
        blend(other / "run", (1,), device="cpu", progress=listening, **choice)
        return listening.stages

    assert measured(names=["retrieval_table"]) == retrieval
    assert measured() == colours
    assert measured(names=["retrieval_table"]) == set()

    values = yaml.safe_load(recipe.read_text())
    values["metrics"][1]["templates"] = ["{label}"]
    recipe.write_text(yaml.safe_dump(values))
    table = other / "others" / "metadata.jsonl"
    table.write_text(table.read_text().replace(" a ", " one ", 1))
    assert measured() == colours | retrieval
    kept = other / "run" / "blend" / "measured"
    (kept / "share_0.0.json").write_bytes((kept / "share_0.0.json").read_bytes()[:-200])
    lost = re.sub(r'"high": [\d.e-]+', '"high": null', (kept / "share_1.0.json").read_text(), count=1)
    (kept / "share_1.0.json").write_text(lost)
    assert measured() == {"retrieval_table, share 0", "colours, share 0", "retrieval_table, share 1"}

    for file in (tuned, other / "model" / "model.safetensors"):
        save_file({name: value * 1.01 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
        assert measured() == colours | retrieval
    (other / "model" / "preprocessor_config.json").write_text('{"resample": 2, "size": 32, "crop_size": 32}')
    assert measured() == colours | retrieval
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # another environment: its last digits may be others
    try:
        assert measured() == colours | retrieval
    finally:
        torch.set_num_threads(threads)


def point(share: float, gain: float, guard: float | None = None, *, sure: bool = True, sure_loss: bool = True) -> Blend:
    def change(value: float, certain: bool) -> Change:
        half = abs(value) / 2 if certain else abs(value) + 0.1
        return Change(value, value - half, value + half, 50 if value else 0)

    return Blend(share, change(gain, sure), () if guard is None else (change(guard, sure_loss),))


def test_the_largest_gain_that_costs_nothing_sure_is_proposed() -> None:
    base = point(0, 0, 0)
    assert propose([base, point(0.5, 0.10, -0.01, sure_loss=False), point(1, 0.15, -0.2)]).share == 0.5
    assert propose([base, point(0.5, 0.10, 0.01), point(1, 0.15, -0.01, sure_loss=False)]).share == 1
    assert propose([base, point(0.5, 0.10, 0.02), point(1, 0.10, 0.03)]).share == 0.5  # of equals the smaller
    assert propose([base, point(0.5, 0.02, 0.02, sure=False), point(1, -0.10, 0.03)]).share == 0


def test_the_reason_says_what_was_not_seen() -> None:
    base = point(0, 0, 0)
    lost = propose([base, point(0.5, 0.1, -0.2)])
    assert (lost.share, lost.reason) == (0, "every share that gains on the target loses on a guard: the base model")
    assert "no share gains" in propose([base, point(0.5, 0.01, 0, sure=False)]).reason
    assert "no guard loses" in propose([base, point(0.5, 0.1, 0.0)]).reason
    assert "forgetting does not show" in propose([point(0, 0), point(0.5, 0.1)]).reason


# --------------------------------------------------------------------------------------------------------------- epochs
def test_a_checkpoint_after_each_epoch(root: Path, tmp_path: Path) -> None:
    train = {"epochs": 3, "batch_size": 4, "device": "cpu", "save_every": "epoch", "keep_checkpoints": 10}
    finetune(config(root, tmp_path / "run", train=train, metrics=[]))
    assert RunDir(tmp_path / "run").checkpoint_steps() == [0, 2, 4, 6]


@pytest.mark.parametrize(("batch", "visits"), [(4, 8), (3, 8), (5, 3), (16, 6000), (7, 1)])
def test_an_epoch_ends_with_the_step_that_sees_its_last_picture(batch: int, visits: int) -> None:
    train = Train(epochs=3, batch_size=batch, save_every="epoch")
    last = -(-3 * visits // batch)
    ends = {-(-epoch * visits // batch) for epoch in range(1, 4)}
    assert {step for step in range(1, last + 1) if train.saves(step, visits=visits)} == ends

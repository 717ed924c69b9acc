"""A sweep of tiny runs: finished ones are not taken again, stopped ones go on, and what fails is told."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest

from limner.config import load_config
from limner.core.errors import UserError
from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune
from limner.sweep import SweepResult, sweep
from limner.sweep.apart import _train
from limner.sweep.grid import read_grid
from tests.numerics.test_resume import assert_same_run
from tests.processes import clean_processes
from tests.sweep.conftest import Heard, write_recipe
from tests.test_cli import limner

WORDS = ["seed=1,2", "method.rank=2,4"]
QUICK: dict[str, Any] = {"batch_size": 1, "micro_batch_size": 1}
HELD_OUT: dict[str, Any] = {"validation": {"share": 0.3, "every": 1, "draws": 1}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, drawings: Path) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_recipe(folder, tiny_model, drawings, **HELD_OUT)
    return folder


@pytest.fixture(scope="module")
def swept(place: Path) -> tuple[SweepResult, Heard]:
    heard = Heard()
    return sweep(place / "recipe.yaml", WORDS, progress=heard), heard


def record(folder: Path) -> Any:
    return json.loads((folder / "swept" / "sweep.json").read_bytes())


def test_every_run_is_that_of_train_and_stands_in_its_folder(swept: tuple[SweepResult, Heard], place: Path) -> None:
    found, heard = swept
    names = ["seed=1,method.rank=2", "seed=1,method.rank=4", "seed=2,method.rank=2", "seed=2,method.rank=4"]
    assert heard.steps == [(name, step) for name in names for step in (1, 2, 3)]
    assert found.count("finished") == 4
    alone = finetune(load_config(place / "recipe.yaml", ["seed=2", "method.rank=4", f"out={place / 'alone'}"]))
    assert_same_run(RunDir(alone.out), RunDir(place / "swept" / names[3]))
    run = record(place)["runs"][3]
    assert run["name"] == names[3]
    numbers = run["numbers"]
    assert numbers["change of the prediction from the base model's"] == alone.change
    assert numbers["training loss, mean of the last steps"] == alone.loss
    assert alone.validation is not None
    assert numbers["validation loss, the best"] == alone.validation.best_loss
    assert numbers["step of the best validation loss"] == alone.validation.best_step
    change = numbers["validation loss, change from the base model's"]
    assert change == pytest.approx(alone.validation.best_loss / alone.validation.base_loss - 1)


def test_the_report_averages_over_the_seeds(swept: tuple[SweepResult, Heard], place: Path) -> None:
    found, heard = swept
    told = {measure["title"]: measure for measure in record(place)["measures"]}
    for setting in ("2", "4"):
        logs = [read_metrics(place / "swept" / f"seed={seed},method.rank={setting}" / "metrics.jsonl") for seed in "12"]
        losses = [numpy.mean([line["loss"] for line in log]) for log in logs]
        rows = told["training loss, mean of the last steps"]["settings"]
        (row,) = [row for row in rows if row["setting"] == f"method.rank={setting}"]
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(numpy.mean(losses))
        assert row["deviation"] == pytest.approx(numpy.std(losses, ddof=1))
    assert "2 pairs of equal seeds" in told["validation loss, the best"]["verdict"]
    assert len(heard.tables["validation loss, the best"]) == 2
    page = found.page.read_text()
    assert page.count("<circle") == sum(len(cell.runs) for table in found.tables() for cell in table.cells)
    for table in found.tables():
        assert table.verdict() in page.replace("&#x27;", "'")
    assert "To do" not in page


def test_a_finished_sweep_trains_nothing_again(swept: tuple[SweepResult, Heard], place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "swept").glob("seed*/*.json")}
    heard = Heard()
    again = sweep(place / "recipe.yaml", WORDS, progress=heard)
    assert not heard.steps
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.as_dict() == swept[0].as_dict()


def test_a_finished_run_of_other_settings_is_not_taken_for_the_wanted_one(
    swept: tuple[SweepResult, Heard], place: Path
) -> None:
    assert swept[0].count("finished") == 4
    with pytest.raises(UserError, match=r"optimizer\.lr was 0\.001, wanted 0\.002; train\.steps was 3, wanted 4"):
        sweep(place / "recipe.yaml", [*WORDS, "optimizer.lr=0.002", "train.steps=4"])


def test_the_losses_of_other_pictures_are_not_compared(
    swept: tuple[SweepResult, Heard], place: Path, tiny_model: Path
) -> None:
    """The runs of one setting are made to look as if their pictures had changed in between."""
    assert swept[0].count("finished") == 4
    for path in (place / "swept").glob("seed*,method.rank=4/result.json"):
        changed = json.loads(path.read_bytes())
        changed["identity"]["data"] = "others"
        path.write_text(json.dumps(changed))
    found = sweep(place / "recipe.yaml", WORDS)
    verdicts = {table.measure.title: table.verdict() for table in found.tables()}
    assert verdicts["training loss, mean of the last steps"].startswith("not compared")
    # the base model's loss shows that this was not so
    assert verdicts["validation loss, the best"].startswith("lowest")


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, drawings)
    words = [f"dataset.path={tmp_path / 'nowhere'},{drawings}", "train.steps=1"]
    done = limner("sweep", recipe, *words)
    assert done.returncode == 1
    assert "1 failed, 1 finished" in done.stderr
    states = {run["name"]: (run["state"], run["message"]) for run in record(tmp_path)["runs"]}
    (failed,) = [message for state, message in states.values() if state == "failed"]
    assert "nowhere" in failed
    assert sorted(state for state, _ in states.values()) == ["failed", "finished"]
    page = Path(done.stdout.strip()).read_text()
    assert "Failed" in page
    assert "not finished: 1 of the runs" in page
    assert "limner sweep" in page
    draw_again = limner("sweep", recipe, *words, "--json")
    assert draw_again.returncode == 1
    events = [json.loads(line) for line in draw_again.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert [run["state"] for run in events[-1]["runs"]] == ["failed", "finished"]


class Signals(Heard):
    """Sends a signal to this process, or to that of the run, when a run is at a step."""

    def __init__(self, at: tuple[str, int], number: int, out: Path | None = None) -> None:
        super().__init__()
        self._at, self._number, self._out = at, number, out

    def step(self, line: Any, steps: int) -> None:
        super().step(line, steps)
        if (line["run"], line["step"]) == self._at:
            pid = os.getpid()
            if self._out is not None:
                pid = json.loads(RunDir(self._out / line["run"]).status.read_bytes())["pid"]
            os.kill(pid, self._number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_goes_on_where_it_was(
    tmp_path: Path, tiny_model: Path, drawings: Path, number: signal.Signals
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, drawings, train={**QUICK, "steps": 15, "save_every": 100})
    listener = Signals(("seed=1", 2), number)
    found = sweep(recipe, ["seed=1,2"], progress=listener)
    assert found.interrupted == number
    stopped = RunDir(tmp_path / "swept" / "seed=1")
    (step,) = stopped.checkpoint_steps()[-1:]
    assert 2 <= step < 15
    assert [run["state"] for run in record(tmp_path)["runs"]] == ["stopped", "waiting"]
    assert not (tmp_path / "swept" / "seed=2").exists()
    if number == signal.SIGTERM:
        return
    heard = Heard()
    again = sweep(recipe, ["seed=1,2"], progress=heard)
    assert again.count("finished") == 2
    assert heard.steps[0] == ("seed=1", step + 1)
    alone = finetune(load_config(recipe, ["seed=1", f"out={tmp_path / 'alone'}"]))
    assert_same_run(RunDir(alone.out), stopped)
    whole = {value.measure.title: value.value for value in again.numbers["seed=1"]}
    assert whole["training loss, mean of the last steps"] == alone.loss


def test_a_run_that_is_killed_fails_and_goes_on_from_its_newest_checkpoint(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, drawings, train={**QUICK, "steps": 12, "save_every": 1})
    killer = Signals(("seed=1", 3), signal.SIGKILL, tmp_path / "swept")
    found = sweep(recipe, ["seed=1,2"], progress=killer)
    assert found.failed[0][0] == "seed=1"
    assert "SIGKILL" in found.failed[0][1]
    assert found.outcomes["seed=2"].state == "finished"
    killed = RunDir(tmp_path / "swept" / "seed=1")
    newest = killed.checkpoint_steps()[-1]
    assert 2 <= newest < 12
    heard = Heard()
    assert sweep(recipe, ["seed=1,2"], progress=heard).count("finished") == 2
    assert heard.steps[0] == ("seed=1", newest + 1)
    assert {name for name, _ in heard.steps} == {"seed=1"}
    alone = finetune(load_config(recipe, ["seed=1", f"out={tmp_path / 'alone'}"]))
    assert_same_run(RunDir(alone.out), killed)


def test_a_run_whose_sweep_is_gone_writes_its_checkpoint_and_stops(
    tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, drawings, train={"steps": 400, "save_every": 1000})
    run = read_grid(recipe, ["seed=1,2"]).runs[0]
    context = clean_processes()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(run.config, run.origins, False, {}, sender))
    process.start()
    sender.close()
    while receiver.recv()[0] != "step":
        pass
    receiver.close()
    process.join(60)
    assert process.exitcode == 0
    assert json.loads(run.rundir.status.read_bytes())["state"] == "stopped"
    assert 1 <= run.rundir.checkpoint_steps()[-1] < 400


def test_one_sweep_at_a_time_and_not_into_the_folder_of_a_run(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, drawings)
    with RunDir(tmp_path / "swept").locked(), pytest.raises(UserError, match="another limner process"):
        sweep(recipe, ["seed=1,2"])
    (tmp_path / "swept" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="holds a run"):
        sweep(recipe, ["seed=1,2"])


def test_a_mistake_is_told_before_anything_is_written(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    done = limner("sweep", write_recipe(tmp_path, tiny_model, drawings), "seed=1,2", "train.seed=3")
    assert done.returncode == 2
    assert "train.seed (command line): unknown key" in done.stderr
    assert not (tmp_path / "swept").exists()

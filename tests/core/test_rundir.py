from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.core.rundir import MetricsLog, RunDir, read_metrics, reported, write_atomic


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_log_that_a_kill_cut_short_goes_on_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, keep_to_step=0)
    for step in range(1, 6):
        log.write({"step": step, "loss": 0.1 * step})
    log.close()
    path.write_text(path.read_text() + '{"step": 6, "lo')
    resumed = MetricsLog(path, keep_to_step=3)
    resumed.write({"step": 4, "loss": 9.0})
    resumed.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert read_metrics(path)[-1]["loss"] == 9.0


def test_a_number_that_is_not_finite_is_never_logged(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", keep_to_step=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 1, "loss": float("nan")})
    log.close()


def _hold(path: Path, ready: object, done: object) -> None:
    with RunDir(path).locked():
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", ready, done))
    process.start()
    assert ready.wait(20)
    with pytest.raises(UserError, match="another limner process"), RunDir(tmp_path / "run").locked():
        pass
    process.kill()  # however it dies, the folder is free again
    process.join()
    with RunDir(tmp_path / "run").locked():
        pass


def test_half_written_checkpoints_are_not_counted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("step_000010", "step_000002", ".step_000020.part", "other"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.checkpoint_steps() == [2, 10]


def test_an_error_is_written_into_the_status(tmp_path: Path) -> None:
    with pytest.raises(UserError), reported(RunDir(tmp_path)):
        raise UserError("out of paint.")
    assert '"failed"' in RunDir(tmp_path).status.read_text()
    assert "out of paint." in RunDir(tmp_path).status.read_text()

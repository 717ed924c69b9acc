"""The whole way of the built-in model, from random weights to the report, in miniature."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MINIATURE = ("COUNT=32", "CAPTIONS=2", "JOBS=1", "SETTINGS=train.steps=2 train.batch_size=4 schedule.warmup_steps=0")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not (ROOT / ".venv" / "ready").exists(), reason="needs the environment that make sets up")
def test_make_builtin_goes_from_random_weights_to_the_report_and_does_nothing_twice(tmp_path: Path) -> None:
    def make() -> str:
        command = ["make", "builtin", f"B={tmp_path / 'made'}", *MINIATURE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr + done.stdout

    assert "training" in make()
    report = tmp_path / "made" / "report" / "builtin.md"
    assert "**The dual encoder**" in report.read_text(encoding="utf-8")
    packed = sum(path.stat().st_size for path in (tmp_path / "made" / "packed").rglob("*") if path.is_file())
    assert 20_000_000 < packed <= 30_000_000
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.safetensors")}
    assert "training" not in make()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.safetensors")} == made

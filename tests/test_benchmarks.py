"""The benchmarks run: in small, so that what they measure is still there when somebody needs the number."""

from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path
from types import ModuleType

import pytest

from limner.builtin.drawings import draw_folder
from limner.builtin.pictures import draw_pictures
from limner.core.intervals import paired_change
from limner.core.rundir import RunDir
from limner.new_clip import PictureTower
from tests.known_sets import draw_cifar10

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """Returns the script as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_step_of_clip_is_measured_beside_plain_loops(tmp_path: Path) -> None:
    script = benchmark("clip_step")
    script.make_model(tmp_path / "model")
    draw_pictures(tmp_path / "pictures", count=script.COUNT, seed=0, captions=2, side=script.SIDE)
    found = script.measure_steps(tmp_path, 2)
    assert found["limner_images_per_second"] > 0
    assert found["speed_against_habit"] == pytest.approx(
        found["limner_images_per_second"] / found["habit_images_per_second"]
    )
    assert script.alone(tmp_path, script.BATCH) > 50


@pytest.mark.slow
def test_a_step_of_diffusion_is_measured_beside_its_floor(tmp_path: Path) -> None:
    script = benchmark("train_step")
    script.make_model(tmp_path / "model")
    draw_folder(tmp_path / "pictures")
    found = script.measure_steps(tmp_path, 2)
    assert min(found.values()) > 0


@pytest.mark.slow
def test_duplicates_are_compared_seed_by_seed_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    script = benchmark("clip_duplicates")
    script.TOWER = PictureTower(image_size=32, patch_size=16, width=32, layers=1)
    data = draw_cifar10(tmp_path / "cifar10")
    settings = ["train.batch_size=10", "schedule.warmup_steps=0"]
    found = {
        positives: [
            script.outcomes(data, tmp_path / "out", seed=seed, positives=positives, steps=2, settings=settings)
            for seed in range(2)
        ]
        for positives in script.POSITIVES
    }
    assert all(len(right) == 10 and set(right) <= {0.0, 1.0} for runs in found.values() for right in runs)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = script.outcomes(data, tmp_path / "out", seed=1, positives="own", steps=2, settings=settings)
    assert again == found["own"][1]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written
    runs = [json.loads(RunDir(tmp_path / "out" / f"{name}-0").status.read_text()) for name in script.POSITIVES]
    assert [run["state"] for run in runs] == ["finished", "finished"]


def test_the_interval_over_seeds_is_students() -> None:
    script = benchmark("clip_duplicates")
    differences = [0.01, 0.02, 0.06]
    low, high = script.over_seeds(differences)
    half = 4.3027 * statistics.stdev(differences) / 3**0.5
    assert (low, high) == pytest.approx((0.03 - half, 0.03 + half), rel=1e-3)
    told = script.told(paired_change([0.0] * 10, [1.0] * 10), differences)
    assert told.startswith("duplicates - own: +100.00 points; over the pictures +100.00 to +100.00, over the seeds -3.")

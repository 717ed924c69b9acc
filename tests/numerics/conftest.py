"""A tiny pipeline on disk, a few pictures, and runs of them in clean child processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of two shapes; the sidecars have two captions each, one per line."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("drawings")
    captions = draw_folder(folder, count=7)
    for number in (1, 4, 5):
        with Image.open(folder / f"{number:02d}.png") as picture:
            wide = picture.convert("RGB").crop((0, 60, 256, 200))
        wide.save(folder / f"{number:02d}.png")
    for number, caption in enumerate(captions):
        (folder / f"{number:02d}.txt").write_text(f"{caption}\na painting of {caption}\n", encoding="utf-8")
    return folder


def run_values(model: Path, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Returns a recipe that uses everything that is random: buckets, captions, dropout, flips, random crops.

    It exports nothing and makes no report: that takes more than half of a run as short as these. A test that looks at
    the files gives ``export=None`` for all that there are.
    """
    values: dict[str, Any] = {
        "out": str(out),
        "seed": 3,
        "model": {"kind": "sd1", "path": str(model)},
        "dataset": {"kind": "folder", "path": str(data), "caption_lines": "each"},
        "images": {"resolution": 32, "bucket_step": 8, "crop": "random", "flip": True},
        "method": {"kind": "lora", "rank": 4, "dropout": 0.1},
        "objective": {"kind": "denoising", "caption_dropout": 0.2, "offset_noise": 0.05},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "schedule": {"kind": "cosine", "warmup_steps": 2},
        "train": {
            "steps": 8,
            "batch_size": 3,
            "micro_batch_size": 2,
            "save_every": 2,
            "ema_decay": 0.9,
            "precision": "fp32",
            "device": "cpu",
        },
        "cache": {"folder": str(out.parent / "cache")},
        "export": [],
        "report": {"at_end": "never"},
    }
    for name, value in changes.items():
        section = values.setdefault(name, {})
        whole = name == "method" or (name == "objective" and "kind" in value) or not isinstance(value, dict)
        values[name] = value if whole else {**section, **value}
    return values


def run_config(model: Path, data: Path, out: Path, **changes: Any) -> RunConfig:
    return RunConfig.model_validate(run_values(model, data, out, **changes))

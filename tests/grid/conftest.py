"""Tiny runs of several methods, each with a folder that other commands draw from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import limner
from limner.builtin.drawings import draw_folder
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny

METHODS: dict[str, dict[str, Any]] = {
    "lora": {
        "method": {"kind": "lora", "text_encoder": True},
        "export": [{"kind": "diffusers"}],
        "samples": {"prompts": ["a red circle", "a dog"], "steps": 2, "size": (32, 32), "seed": 5},
    },
    "dora": {"method": {"kind": "lora", "dora": True}, "export": [{"kind": "peft"}]},
    "lokr": {"method": {"kind": "lokr", "rank": 2}, "export": [{"kind": "kohya"}]},
    "full": {"method": {"kind": "full"}, "export": [{"kind": "diffusers"}]},
    "pivotal": {
        "method": {"kind": "pivotal", "token": "<rex>", "initialise": "dog"},
        "export": [{"kind": "diffusers"}],
        "dataset": {"caption": "a <rex>", "caption_lines": "whole", "ignore_sidecars": True},
    },
}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model")
    draw_folder(root / "pictures", count=3)
    return root


@pytest.fixture(scope="session")
def trained(place: Path) -> Callable[[str], Path]:
    """Returns the folder of a finished run of a method, with its checkpoints of the steps 1 and 2."""

    def train(name: str) -> Path:
        changes: dict[str, Any] = {
            "dataset": {"caption": "a dog", "caption_lines": "whole", "ignore_sidecars": True},
            "samples": {"steps": 2, "size": (32, 32), "seed": 5},
            "train": {"steps": 2, "batch_size": 2, "save_every": 1, "keep_checkpoints": 9, "ema_decay": 0.5},
            "optimizer": {"lr": 3e-2},
            "schedule": {"kind": "constant", "warmup_steps": 0},
        }
        out = place / name
        if not out.exists():
            limner.finetune(run_config(place / "model", place / "pictures", out, **{**changes, **METHODS[name]}))
        return out

    return train

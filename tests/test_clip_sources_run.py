"""A run that starts from open_clip's files: it trains, goes on, and writes what other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from limner.builtin.pictures import draw_pictures
from limner.config import RunConfig
from limner.core.rundir import RunDir
from limner.models.clip import Clip
from limner.run import finetune
from tests.reference_clip import ReferenceClip
from tests.tiny import clip_tokenizer

WHOLE = {"kind": "towers"}
PICTURES_ONLY = {"kind": "towers", "text": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of open_clip."""
    folder = tmp_path_factory.mktemp("open_clip")
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    save_file(ReferenceClip(words=len(tokenizer)).state_dict(), folder / "open_clip_model.safetensors")
    vision = {"image_size": 16, "layers": 2, "width": 128, "patch_size": 8}
    text = {"vocab_size": len(tokenizer), "width": 64, "heads": 1, "layers": 2}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    return folder


def config(folder: Path, out: Path, steps: int, **changes: Any) -> RunConfig:
    pictures = out.parent / "pictures"
    if not pictures.exists():
        draw_pictures(pictures, count=8, seed=3, captions=2, side=32)
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "clip", "path": str(folder)},
        "dataset": {"kind": "table", "path": pictures},
        "images": {"resolution": 16, "buckets": False},
        "method": WHOLE,
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "train": {"steps": steps, "batch_size": 4, "device": "cpu", "save_every": 1},
        "cache": {"folder": out.parent / "cache"},
    }
    return RunConfig.model_validate(values | changes)


def test_a_run_from_open_clips_files_goes_on_bit_for_bit_and_leaves_every_format(folder: Path, tmp_path: Path) -> None:
    formats = {"export": [{"kind": "open_clip"}, {"kind": "transformers"}]}
    whole = finetune(config(folder, tmp_path / "whole", 2, **formats))
    finetune(config(folder, tmp_path / "parts", 1, **formats))
    parts = finetune(config(folder, tmp_path / "parts", 2, **formats), resume=True)
    assert [export.path.name for export in whole.exports] == ["open_clip", "transformers"]
    first, second = (load_file(run.exports[0].path / "open_clip_model.safetensors") for run in (whole, parts))
    base = load_file(folder / "open_clip_model.safetensors")
    assert first.keys() == second.keys() == base.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], base[name]) for name in first)
    one, other = (Clip(path=str(export.path)).load().network.state_dict() for export in whole.exports)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "kinds"), [(WHOLE, ["clip_text_encoder", "transformers"]), (PICTURES_ONLY, ["transformers"])]
)
def test_a_text_encoder_is_written_unasked_only_where_it_trained(
    folder: Path, tmp_path: Path, method: dict[str, Any], kinds: list[str]
) -> None:
    run = config(folder, tmp_path / "run", 1, method=method)
    finetune(run)
    assert sorted(path.name for path in RunDir(run.out).export.iterdir()) == kinds

"""New heads on frozen towers: what the towers make of the data is computed once, and changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limner.config import RunConfig
from limner.core.progress import Silent
from limner.core.rundir import RunDir, read_metrics
from limner.inspect import inspect_path
from limner.models.clip import Clip, ClipModel
from limner.models.probe import probe_dual_encoder
from limner.reading.embedding import load_clip
from limner.run import finetune
from tests.tiny import save_tiny_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from limner.builtin.pictures import draw_pictures

    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder, count=8, seed=3, captions=2, side=48)
    return folder


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each time that a tower is asked."""
    found: list[str] = []
    images, prompts = ClipModel.pool_images, ClipModel.pool_prompts

    def pool_images(self: ClipModel, pixels: torch.Tensor) -> torch.Tensor:
        found.append("picture")
        return images(self, pixels)

    def pool_prompts(self: ClipModel, texts: Any) -> torch.Tensor:
        found.append("caption")
        return prompts(self, texts)

    monkeypatch.setattr(ClipModel, "pool_images", pool_images)
    monkeypatch.setattr(ClipModel, "pool_prompts", pool_prompts)
    return found


def config(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "clip", "path": str(model)},
        "dataset": {"kind": "table", "path": pictures},
        "images": {"resolution": 32, "buckets": False},
        "method": {"kind": "heads", "image": "mlp"},
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "train": {"epochs": 6, "batch_size": 4, "device": "cpu"},
        "cache": {"folder": out.parent / "cache"},
        "export": [],
    }
    return RunConfig.model_validate(values | changes)


def weights(run: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(RunDir(run.out).checkpoint(12) / "weights.safetensors")


def test_a_picture_and_a_caption_are_read_once_in_six_epochs_and_by_the_next_run_never(
    model: Path, pictures: Path, tmp_path: Path, looks: list[str]
) -> None:
    first = config(model, pictures, tmp_path / "first")
    finetune(first)
    before_and_after = 2  # the fixed question of the proof of change
    assert looks.count("picture") == 8 + before_and_after
    assert looks.count("caption") <= 16 + before_and_after
    looks.clear()
    other = config(model, pictures, tmp_path / "other", method={"kind": "heads", "text": "none"})
    finetune(other)
    assert looks.count("picture") == looks.count("caption") == before_and_after


def test_what_is_kept_changes_no_number(model: Path, pictures: Path, tmp_path: Path, looks: list[str]) -> None:
    crops = {"resolution": 32, "buckets": False, "crop": "random", "flip": True}
    kept = config(model, pictures, tmp_path / "kept", images=crops)
    finetune(kept)
    looks.clear()
    computed = config(model, pictures, tmp_path / "computed", images=crops, cache={"latents": False, "captions": False})
    finetune(computed)
    assert looks.count("picture") == looks.count("caption") == 48 + 2
    mine, theirs = weights(kept), weights(computed)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    losses = [[line["loss"] for line in read_metrics(RunDir(run.out).metrics)] for run in (kept, computed)]
    assert losses[0] == losses[1]


def test_another_tower_is_not_answered_from_the_cache(
    model: Path, pictures: Path, tmp_path: Path, looks: list[str]
) -> None:
    finetune(config(model, pictures, tmp_path / "run"))
    looks.clear()
    finetune(config(save_tiny_clip(tmp_path / "clip", seed=1), pictures, tmp_path / "other"))
    assert looks.count("picture") == 8 + 2


def test_a_run_of_heads_is_measured_on_held_out_pictures_and_exported_as_it_learned(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    run = config(model, pictures, tmp_path / "run", validation={"share": 0.4, "every": 5}, export=None)
    result = finetune(run)
    assert result.validation is not None
    told = inspect_path(result.exports[0].path)
    assert told.kind == "a CLIP model with heads of its own"
    assert told.facts["visual projection"].startswith("head mlp, dim ")
    assert told.facts["heads: parameters"] < told.facts["towers: parameters"]
    read = Clip(path=str(result.exports[0].path)).load()
    assert not torch.equal(probe_dual_encoder(read), probe_dual_encoder(Clip(path=str(model)).load()))
    assert (result.exports[0].path / "clip" / "config.json").is_file()


def test_a_run_with_new_heads_is_read_with_them_by_the_commands(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = config(model, pictures, tmp_path / "run", export=None, train={"steps": 2, "batch_size": 4, "device": "cpu"})
    finetune(run)
    exported = tmp_path / "run" / "export" / "transformers"
    assert not (exported / "config.json").exists()
    loaded = load_clip(str(tmp_path / "run"), revision=None, device="cpu", progress=Silent())
    expected, base = (Clip(path=str(path)).load() for path in (exported, model))
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.embed_images(pixels), expected.embed_images(pixels))
        assert not torch.equal(loaded.embed_images(pixels), base.embed_images(pixels))

"""Every layout of the field, as it lies on people's disks, trains end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limner.config import RunConfig
from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune
from tests.tiny import save_tiny

Make = Callable[[Path, Path], dict[str, Any]]


def some_photos(data: Path, folder: Path, count: int = 6) -> list[Path]:
    """Copies a few photos; returns their new paths."""
    folder.mkdir(parents=True)
    photos = sorted((data / "flickr8k" / "Images").iterdir())[:count]
    return [Path(shutil.copy(photo, folder / photo.name)) for photo in photos]


def sidecars(data: Path, root: Path) -> dict[str, Any]:
    for photo in some_photos(data, root / "photos"):
        photo.with_suffix(".caption").write_text("a photo\n")
    return {"kind": "auto", "path": root / "photos"}


def one_caption(data: Path, root: Path) -> dict[str, Any]:
    some_photos(data, root / "photos")
    return {"kind": "folder", "path": root / "photos", "caption": "a photo of people"}


def no_caption(data: Path, root: Path) -> dict[str, Any]:
    some_photos(data, root / "photos")
    return {"kind": "folder", "path": root / "photos", "uncaptioned": "empty"}


def flickr8k_original(data: Path, root: Path) -> dict[str, Any]:
    photos = some_photos(data, root / "Flicker8k_Dataset")
    names = {photo.name for photo in photos}
    lines = (data / "flickr8k" / "Flickr8k_text" / "Flickr8k.token.txt").read_text().splitlines(keepends=True)
    (root / "Flickr8k.token.txt").write_text("".join(line for line in lines if line.split("#")[0] in names))
    return {"kind": "auto", "path": root}


def metadata(kind: str) -> Make:
    def make(data: Path, root: Path) -> dict[str, Any]:
        rows = [{"file_name": photo.name, "text": "a photo"} for photo in some_photos(data, root / "photos")]
        path = root / "photos" / f"metadata.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "csv":
            path.write_text("file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in rows))
        else:
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return {"kind": "auto", "path": path.parent}

    return make


def dreambooth(data: Path, root: Path) -> dict[str, Any]:
    source = data / "dreambooth"
    return {
        "kind": "dreambooth", "path": source / "dog", "class_path": source / "dog6", "class_noun": "dog",
    }  # fmt: skip


LAYOUTS: dict[str, Make] = {
    "sidecar captions": sidecars,
    "one caption for all": one_caption,
    "no captions, asked for": no_caption,
    "one caption per line": lambda data, root: {"kind": "auto", "path": data / "custom_folder"},
    "Flickr8k, Kaggle": lambda data, root: {"kind": "auto", "path": data / "flickr8k"},
    "Flickr8k, original": flickr8k_original,
    "Flickr30k": lambda data, root: {"kind": "auto", "path": data / "flickr30k"},
    "metadata.jsonl": metadata("jsonl"),
    "metadata.csv": metadata("csv"),
    "metadata.parquet": metadata("parquet"),
    "CIFAR-10, batches": lambda data, root: {"kind": "auto", "path": data / "cifar10" / "cifar-10-batches-py"},
    "CIFAR-10, parquet": lambda data, root: {"kind": "auto", "path": data / "cifar10" / "parquet_sample"},
    "DreamBooth": dreambooth,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    save_tiny(root / "model")
    return root


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_trains(make: Make, data_root: Path, shared: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "out": tmp_path / "run",
            "model": {"kind": "sd1", "path": str(shared / "model")},
            "dataset": make(data_root, tmp_path / "data"),
            "images": {"resolution": 32, "bucket_step": 8},
            "method": {"kind": "lora"},
            "train": {"steps": 2, "batch_size": 2, "device": "cpu"},
            "cache": {"folder": shared / "cache"},
            "export": [],
            "report": {"at_end": "never"},
        }
    )
    assert finetune(config).step == 2
    run = RunDir(config.out)
    assert len(read_metrics(run.metrics)) == 2
    rows = [json.loads(line) for line in run.ledger.read_text().splitlines()]
    assert sum(row["used"] for row in rows) >= 6
    assert all(row["used"] or row["reason"] for row in rows)

"""Data sets of the Hub; a local folder goes the same way through the package datasets."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.data.example import Reading
from limner.data.hub import HubDataset


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


with_datasets = pytest.mark.usefixtures("_offline")


def make(folder: Path, **columns: object) -> Path:
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"picture %d" % number)
    rows = [{"file_name": f"{n}.png", "text": f"text {n}", **columns} for n in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def write_parquet(folder: Path, cells: list[dict[str, Any]], split: str = "train") -> Path:
    import datasets

    folder.mkdir(exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_list([{"image": cell, "text": f"text {n}"} for n, cell in enumerate(cells)], features)
    rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def read(folder: Path, *, roots: bool = True, **values: object) -> Reading:
    config = HubDataset.model_validate({"id": "someone/something", **values})
    return config.read_from(str(folder), roots=[folder] if roots else [])


@with_datasets
def test_pictures_in_files_are_read_encoded_as_they_are(tmp_path: Path) -> None:
    reading = read(make(tmp_path / "data"))
    assert [(e.id, e.captions, e.image.read()) for e in reading.examples] == [
        (f"train#{n}", (f"text {n}",), b"picture %d" % n) for n in range(3)
    ]
    assert reading.layout == "Hub data set someone/something, train"


@with_datasets
def test_pictures_in_parquet_files_are_read_encoded_as_they_are(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data", [{"bytes": b"one", "path": "1.png"}])
    write_parquet(folder, [{"bytes": b"two", "path": "2.png"}], split="test")
    assert [e.image.read() for e in read(folder).examples] == [b"one"]
    assert [e.image.read() for e in read(folder, split="test").examples] == [b"two"]
    with pytest.raises(UserError, match=r"has no split 'tests'\. Did you mean 'test'\?"):
        read(folder, split="tests")


@with_datasets
def test_pictures_in_a_zip_file_are_read(tmp_path: Path) -> None:
    make(tmp_path / "files")
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/train.zip", "w") as archive:
        for path in (tmp_path / "files").iterdir():
            archive.write(path, path.name)
    assert [e.image.read() for e in read(tmp_path / "data").examples] == [b"picture 0", b"picture 1", b"picture 2"]


@with_datasets
def test_a_row_that_names_a_file_outside_of_the_data_set_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = write_parquet(tmp_path / "data", [{"bytes": b"x", "path": None}])
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = folder / "train-00000-of-00001.parquet"
    names = [str(tmp_path / "secret.png"), str(folder / "../secret.png"), f"zip://a::{tmp_path}/secret.png", None]
    schema = parquet.read_schema(file)
    cells = [{"bytes": None, "path": name} for name in names]
    columns = {"image": arrow.array(cells, type=schema.field("image").type), "text": ["x"] * len(names)}
    parquet.write_table(arrow.table(columns).cast(schema), file)
    examples = read(folder).examples
    for example in examples[:3]:
        with pytest.raises(OSError, match="outside of the data set"):
            example.image.read()
    with pytest.raises(OSError, match="row 3 holds no picture"):
        examples[3].image.read()


@with_datasets
def test_a_builder_that_is_not_known_to_be_safe_is_refused_before_it_reads(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.txt").write_text("a\nb", encoding="utf-8")
    with pytest.raises(
        UserError, match="is read by 'text', and only imagefolder, parquet, json, csv are known to be safe"
    ):
        read(tmp_path / "data")
    assert not list(tmp_path.rglob("*.arrow"))


@with_datasets
def test_offline_the_copy_on_this_machine_is_used_and_that_is_said(tmp_path: Path) -> None:
    write_parquet(tmp_path / "something", [{"bytes": b"one", "path": None}])
    read(tmp_path / "something")
    (info,) = (tmp_path / "hf").rglob("dataset_info.json")
    copy = tmp_path / "hf" / "someone___something" / "default" / "0.0.0" / "1234abcd"
    shutil.copytree(info.parent, copy)
    values = json.loads((copy / "dataset_info.json").read_text(encoding="utf-8"))
    (copy / "dataset_info.json").write_text(json.dumps(values | {"config_name": "default"}), encoding="utf-8")
    reading = HubDataset(id="someone/something").read()
    assert [e.image.read() for e in reading.examples] == [b"one"]
    assert reading.notes == (
        "The Hub cannot be reached: the copy of someone/something on this machine is used, commit 1234abcd.",
    )
    assert HubDataset(id="someone/something", revision="1234abcd").read().examples
    with pytest.raises(UserError, match=r"dataset\.revision: .* the copy on this machine is 1234abcd, not 'v2'"):
        HubDataset(id="someone/something", revision="v2").read()


@with_datasets
def test_columns_must_be_clear(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", prompt="a prompt", size=3)
    with pytest.raises(UserError, match=r"dataset\.caption_column: .*several columns .*: text, prompt"):
        read(folder)
    with pytest.raises(UserError, match=r"no column 'prompts'\. Did you mean 'prompt'\?"):
        read(folder, caption_column="prompts")
    with pytest.raises(UserError, match="the caption is no text but int: 3"):
        read(folder, caption_column="size")
    with pytest.raises(UserError, match=r"dataset\.image_column: .*no pictures in 'img'"):
        read(folder, caption_column="text", image_column="img")
    assert read(folder, caption_column="prompt", image_column="image").examples[0].captions == ("a prompt",)


@with_datasets
def test_a_data_set_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"url": "https://x.org/a.jpg", "text": "x"}', encoding="utf-8")
    with pytest.raises(UserError, match="has 0 columns of pictures; its columns are url, text"):
        read(tmp_path / "data")


@with_datasets
def test_empty_captions_go_where_the_config_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", caption="")
    with pytest.raises(UserError, match="3 pictures of 'someone/something' without a caption: train#0"):
        read(folder, caption_column="caption")
    assert read(folder, caption_column="caption", uncaptioned="empty").examples[0].captions == ("",)


@with_datasets
def test_a_folder_of_the_same_name_is_not_taken_for_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone/something").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a folder here as well as a name on the Hub"):
        HubDataset(id="someone/something").read()


@with_datasets
def test_a_data_set_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.id: 'someone/something' cannot be loaded: Couldn't reach"):
        HubDataset(id="someone/something").read()


@pytest.mark.parametrize("id", ["name", "a/b/c", "../x", "/a/b", "hf://datasets/a/b", "a/b@c", "buckets/a/b", "a/.."])
def test_only_owner_and_name_are_an_id(id: str) -> None:
    with pytest.raises(ValidationError):
        HubDataset(id=id)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "limner\[hub\]"'):
        HubDataset(id="someone/something").read()

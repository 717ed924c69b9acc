"""CIFAR-10 in its three forms; labels become prompts."""

from __future__ import annotations

import io
import json
import pickle
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.data.cifar10 import LABELS, Cifar10, Cifar10Image
from limner.data.example import Reading

FILES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")


def write_batches(folder: Path, per_file: int = 4, protocol: int = 2, **changes: object) -> Path:
    """Writes tiny files in the original layout; ``changes`` replace entries of the first batch."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(LABELS)}, protocol=2))
    for number, name in enumerate(FILES):
        rows = random.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        value = {"data": rows, "labels": [(number + n) % 10 for n in range(per_file)]}
        value |= changes if name == FILES[0] else {}
        (folder / name).write_bytes(pickle.dumps(value, protocol=protocol))
    return folder


def write_parquet(path: Path, labels: list[object], names: list[str] | None = None) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    struct = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    pictures = arrow.array([{"bytes": b"%d" % n, "path": None} for n in range(len(labels))], type=struct)
    table = arrow.table({"img": pictures, "label": arrow.array(labels)})
    if names is not None:
        note = json.dumps({"info": {"features": {"label": {"names": names}}}})
        table = table.replace_schema_metadata({"huggingface": note})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def captions(reading: Reading) -> dict[str, tuple[str, ...]]:
    return {example.id: example.captions for example in reading.examples}


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "."])
def test_python_batches_in_their_order(tmp_path: Path, folder: str) -> None:
    write_batches(tmp_path / folder)
    reading = Cifar10(path=tmp_path).read()
    assert list(captions(reading)) == [f"data_batch_{file}#{row}" for file in range(1, 6) for row in range(4)]
    assert captions(reading)["data_batch_1#0"] == ("an image of an airplane",)
    assert captions(reading)["data_batch_1#2"] == ("an image of a bird",)
    assert [example.group for example in reading.examples[:3]] == ["airplane", "automobile", "bird"]
    assert list(captions(Cifar10(path=tmp_path, split="test").read())) == [f"test_batch#{row}" for row in range(4)]


def test_a_row_becomes_the_png_that_pillow_reads_back(tmp_path: Path) -> None:
    row = np.random.default_rng(1).integers(0, 256, 3072, dtype=np.uint8)
    data = Cifar10Image(row.tobytes()).read()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, row.reshape(3, 32, 32).transpose(1, 2, 0))
    assert data == Cifar10Image(row.tobytes()).read()


def test_class_folders(tmp_path: Path) -> None:
    for name in ("train/ship/10.png", "train/ship/2.png", "train/cat/1.jpg", "train/notes.md", "test/dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    reading = Cifar10(path=tmp_path).read()
    assert captions(reading) == {
        "train/cat/1.jpg": ("an image of a cat",),
        "train/ship/2.png": ("an image of a ship",),
        "train/ship/10.png": ("an image of a ship",),
    }
    assert [(row.id, row.reason) for row in reading.left_out] == [("train/notes.md", "not a picture")]
    assert reading.notes[0].startswith("No pictures of these classes: airplane,")
    (tmp_path / "train/lion").mkdir()
    (tmp_path / "train/lion/1.png").write_bytes(b"x")
    with pytest.raises(UserError, match="has lion, which is no class of CIFAR-10"):
        Cifar10(path=tmp_path).read()


@pytest.mark.parametrize("folder", [".", "data", "plain_text"])
def test_parquet_files_with_the_names_noted_in_them(tmp_path: Path, folder: str) -> None:
    write_parquet(tmp_path / folder / "train-00000-of-00001.parquet", [0, 9], [*LABELS[::-1]])
    reading = Cifar10(path=tmp_path).read()
    assert [example.captions for example in reading.examples] == [
        ("an image of a truck",),
        ("an image of an airplane",),
    ]
    assert reading.examples[1].image.read() == b"1"
    assert reading.examples[1].id.endswith("train-00000-of-00001.parquet#1")


def test_parquet_files_of_other_data_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0], ["lion", "tiger"])
    with pytest.raises(UserError, match="names the classes lion, tiger, which are not those of CIFAR-10"):
        Cifar10(path=tmp_path).read()
    for label in (10, -1, None):
        write_parquet(tmp_path / "train.parquet", [0, label])
        with pytest.raises(UserError, match=rf"train\.parquet#1: has no picture, or the label {label}"):
            Cifar10(path=tmp_path).read()
    write_parquet(tmp_path / "train.parquet", ["cat"])
    with pytest.raises(UserError, match="the label 'cat'"):
        Cifar10(path=tmp_path).read()


def test_several_templates_are_several_captions(tmp_path: Path) -> None:
    write_batches(tmp_path)
    reading = Cifar10(path=tmp_path, templates=("{label}", "a photo of {article} {label}, small")).read()
    assert captions(reading)["data_batch_1#1"] == ("automobile", "a photo of an automobile, small")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("an image", r"lacks \{label\}"),
        ("{label} {colour}", r"has \{colour\}; it can have \{article\}, \{label\}"),
        ("{label.__class__}", r"has \{label\.__class__\}"),
        ("{label} {", "curly bracket without its partner"),
    ],
)
def test_a_template_that_cannot_work_is_a_config_error(template: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Cifar10(path=Path("x"), templates=(template,))
    with pytest.raises(ValidationError):
        Cifar10(path=Path("x"), templates=())


def test_per_class_takes_the_first_of_each_class_and_leaves_rows_for_the_rest(tmp_path: Path) -> None:
    write_batches(tmp_path)
    whole, small = Cifar10(path=tmp_path).read(), Cifar10(path=tmp_path, per_class=1).read()
    assert Counter(small_captions := [example.captions for example in small.examples]).most_common(1)[0][1] == 1
    assert set(small_captions) == {example.captions for example in whole.examples}
    assert len(small.examples) + len(small.left_out) == len(whole.examples) == 20
    assert {row.reason for row in small.left_out} == {"beyond the first 1 of its class"}


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 1, 2]},
        {"labels": [0, 1, 2, 10]},
        {"labels": [0, 1, 2, True]},
        {"labels": "0123"},
        {"data": np.zeros((4, 3071), dtype=np.uint8)},
        {"data": np.zeros((4, 3, 32, 32), dtype=np.uint8)},
        {"data": "x"},
    ],
)
def test_a_batch_with_other_content_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    write_batches(tmp_path, **changes)
    with pytest.raises(UserError, match="data_batch_1: does not hold rows of 3,072 bytes with a label for each"):
        Cifar10(path=tmp_path).read()


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_batches(tmp_path)
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(UserError, match="data_batch_3 not there"):
        Cifar10(path=tmp_path).read()
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": ["lion"]}, protocol=2))
    with pytest.raises(UserError, match="does not name the ten classes"):
        Cifar10(path=tmp_path).read()


def test_a_folder_without_cifar10_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold CIFAR-10's test pictures\. Looked for cifar-10-batches-py"):
        Cifar10(path=tmp_path, split="test").read()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"Unpack cifar-10-python\.tar\.gz there"):
        Cifar10(path=tmp_path).read()


def test_ten_thousand_pictures_are_read_within_a_second(tmp_path: Path) -> None:
    write_batches(tmp_path, per_file=2000, protocol=4)
    start = time.process_time()
    assert len(Cifar10(path=tmp_path).read().examples) == 10_000
    assert time.process_time() - start < 1


def test_real_cifar10_batches_agree_with_an_ordinary_unpickler(data_root: Path) -> None:
    folder = data_root / "cifar10" / "cifar-10-batches-py"
    train = Cifar10(path=data_root / "cifar10").read()
    test = Cifar10(path=data_root / "cifar10", split="test").read()
    assert (len(train.examples), len(test.examples)) == (2000, 400)
    with (folder / "test_batch").open("rb") as file:
        expected = pickle.load(file, encoding="bytes")
    for row in (0, 17, 399):
        with Image.open(io.BytesIO(test.examples[row].image.read())) as image:
            np.testing.assert_array_equal(
                np.asarray(image), expected[b"data"][row].reshape(3, 32, 32).transpose(1, 2, 0)
            )
        assert test.examples[row].captions[0].endswith(f" {LABELS[expected[b'labels'][row]]}")


def test_real_parquet_sample(data_root: Path) -> None:
    pytest.importorskip("pyarrow")
    reading = Cifar10(path=data_root / "cifar10" / "parquet_sample").read()
    assert len(reading.examples) == 600
    with Image.open(io.BytesIO(reading.examples[0].image.read())) as image:
        assert image.size == (32, 32)

"""CIFAR-10's pickles: nothing that a pickle may ask for is ever run."""

from __future__ import annotations

import os
import pickle
import pickletools
import time
from pathlib import Path

import numpy as np
import pytest

from limner.core.errors import UserError
from limner.data.pickled import ByteArray, read_batch


class Command:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def write(path: Path, value: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_protocol_of_a_batch_is_read(tmp_path: Path, protocol: int) -> None:
    rows = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    value = {b"data": rows, "labels": [3, 7], "filenames": ["a.png", "b.png"], "batch_label": "one"}
    batch = read_batch(write(tmp_path / "batch", value, protocol))
    assert batch["labels"] == [3, 7]
    assert batch["filenames"] == ["a.png", "b.png"]
    assert batch["data"] == ByteArray((2, 3072), rows.tobytes())


def test_python_2_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "meta").write_bytes(b"\x80\x02}q\x00(U\x0blabel_namesq\x01]q\x02(U\x03catq\x03U\x03dogq\x04eu.")
    assert read_batch(tmp_path / "meta") == {"label_names": ["cat", "dog"]}


def test_a_command_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = write(tmp_path / "batch", {"data": Command(marker), "labels": []})
    pickle.loads(path.read_bytes())
    assert marker.exists()  # the pickle is really dangerous
    marker.unlink()
    with pytest.raises(UserError, match=r"is no file of CIFAR-10: it asks for posix\.system"):
        read_batch(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "builtins.getattr", "numpy.fromfile", "numpy.core.multiarray.scalar", "numpy.load", "codecs.open",
     "_codecs.decode", "copyreg._reconstructor", "limner.data.pickled.read_batch", "numpy.ndarray.tofile"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["GLOBAL", "STACK_GLOBAL"])
def test_no_other_name_is_looked_up(tmp_path: Path, name: str, form: str) -> None:
    module, _, attribute = name.rpartition(".")
    if form == "GLOBAL":
        data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    else:
        parts = (b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
        data = b"\x80\x04" + b"".join(parts) + b"\x93."
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(UserError, match="it asks for"):
        read_batch(tmp_path / "batch")


@pytest.mark.parametrize(
    "operations",
    [
        b"cnumpy\nndarray\n(K\x01tR",  # what numpy would make an array of
        b"cnumpy\nndarray\n)\x81",
        b"(inumpy\nndarray\n",
        b"(cnumpy\nndarray\no",
        b"\x82\x01",
        b"Pid\n",
        b"c_codecs\nencode\n}X\x01\x00\x00\x00xK\x01sb",  # sets an attribute on what it got
        b"c_codecs\nencode\nN}X\x07\x00\x00\x00__new__Ns\x86b",
        b"cnumpy\nndarray\nN}X\x08\x00\x00\x00__init__Ns\x86b",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x03\x00\x00\x00hextR",  # doubles a text, again and again
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xtR",
    ],
)
def test_other_ways_to_make_objects_are_refused(tmp_path: Path, operations: bytes) -> None:
    data = b"\x80\x02}U\x01k" + operations + b"s."
    list(pickletools.genops(data))  # the bytes are a well-formed pickle
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(UserError, match="is no file of CIFAR-10"):
        read_batch(tmp_path / "batch")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x02]p2000000000\n.",
        b"\x80\x02K\x01" + b"\x85" * 100_000 + b"}q\x00h\x00.",  # tuples in tuples
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"I" + b"1" * 1_000_000 + b"\n.",
    ],
)
def test_asking_for_much_memory_is_refused_at_once(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "batch").write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UserError, match="is no file of CIFAR-10"):
        read_batch(tmp_path / "batch")
    assert time.perf_counter() - start < 1


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.data.pickled.MAX_PICKLE_BYTES", 1000)
    with pytest.raises(UserError, match="it has more than"):
        read_batch(write(tmp_path / "batch", {"data": b"x" * 1000}))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), dtype=np.int64),
        np.zeros((2, 3), dtype=np.float32),
        np.array([["a", "b"]], dtype=object),
        np.asfortranarray(np.zeros((2, 3), dtype=np.uint8)),
        np.zeros((), dtype=np.uint8),
        np.zeros(2, dtype=[("a", "u1")]),
    ],
)
def test_an_array_of_anything_but_bytes_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(UserError, match="is no file of CIFAR-10"):
        read_batch(write(tmp_path / "batch", {"data": array}))


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02", b"not a pickle", b"\x80\x02}U\xffx", b"\x80\x02]q\x00.", b"\x80\x02}K\x01K\x02s."]
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(UserError, match="is no file of CIFAR-10"):
        read_batch(tmp_path / "batch")


def test_other_values_than_texts_numbers_and_lists_are_refused(tmp_path: Path) -> None:
    for value in ({"a": 1}, (1, 2), [[1]], 1.5, None):
        with pytest.raises(UserError, match="it holds a "):
            read_batch(write(tmp_path / "batch", {"data": value}))


def test_an_array_whose_shape_does_not_fit_its_bytes_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"data": np.zeros((1, 12), dtype=np.uint8)}, protocol=2)
    assert whole.count(b"K\x01K\x0c\x86") == 1  # the shape
    (tmp_path / "batch").write_bytes(whole.replace(b"K\x01K\x0c\x86", b"K\x02K\x0c\x86"))
    with pytest.raises(UserError, match="its array is not one of single bytes"):
        read_batch(tmp_path / "batch")


def test_every_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"data": np.zeros((1, 12), dtype=np.uint8), "labels": [1]}, protocol=2)
    for length in range(len(whole)):
        (tmp_path / "batch").write_bytes(whole[:length])
        with pytest.raises(UserError, match="is no file of CIFAR-10"):
            read_batch(tmp_path / "batch")


def test_a_damaged_byte_never_raises_anything_else(tmp_path: Path) -> None:
    whole = bytearray(pickle.dumps({"data": np.zeros((1, 12), dtype=np.uint8), "labels": [1]}, protocol=2))
    refused = 0
    for place in range(len(whole)):
        for value in (0, 0x52, 0xFF):
            damaged = bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            (tmp_path / "batch").write_bytes(damaged)
            try:
                read_batch(tmp_path / "batch")
            except UserError:
                refused += 1
    assert refused > len(whole) / 2

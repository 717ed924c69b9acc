"""PyTorch's files: tensors come out as PyTorch reads them, and nothing that a file asks for is done."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limner.core.errors import UserError
from limner.models.pickle_program import Refused, StoredTensor, read_pickle
from limner.models.torch_file import open_torch_file


class Evil:
    """Runs a command where Python's unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


def read_all(path: Path) -> dict[str, torch.Tensor]:
    file = open_torch_file(path)
    return file.read(list(file.tensors))


def replaced(path: Path, changes: dict[str, bytes], *, compress: bool = False) -> Path:
    """Rewrites entries of an archive, by their names below its folder."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, changes.get(name.partition("/")[2], data))
    return path


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def traced(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), torch.zeros(2, 3)).save(str(path))
    return path


# -------------------------------------------------------------------------------------------------- as PyTorch reads
def test_every_number_format_and_every_view_comes_out_as_pytorch_reads_it(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "whole": base, "turned": base.T, "part": base[1:3, ::2], "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "half": base.half(), "brain": base.bfloat16(), "double": base.double(),
        "bool": base > 3, "int": base.long(), "parameter": nn.Parameter(base.clone()),
    }  # fmt: skip
    path = saved(tmp_path / "state.pt", state)
    ours, theirs = read_all(path), torch.load(path, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name


def test_an_archive_has_the_names_and_numbers_of_its_state_dict(tmp_path: Path) -> None:
    path = traced(tmp_path / "traced.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(str(path)).state_dict()
    ours, file = read_all(path), open_torch_file(path)
    assert file.form == "TorchScript archive"
    assert {"Linear", "BatchNorm1d"} <= file.classes
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_checkpoint_tells_what_it_has_beside_its_weights(tmp_path: Path) -> None:
    file = open_torch_file(saved(tmp_path / "a.pt", {"epoch": 1, "state_dict": nn.Linear(2, 2).state_dict()}))
    assert (file.form, file.others, set(file.tensors)) == ("checkpoint", ("epoch",), {"weight", "bias"})


# ------------------------------------------------------------------------------------------------------ hostile files
@pytest.mark.parametrize("place", ["checkpoint", "beside", "key", "archive"])
def test_a_command_in_a_pickle_is_refused_by_name_and_does_nothing(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "ran"
    path, evil = tmp_path / "evil.pt", Evil(marker)
    if place == "archive":
        replaced(traced(path), {"data.pkl": pickle.dumps(evil, protocol=2)})
    else:
        weights = nn.Linear(2, 2).state_dict()
        values = {"checkpoint": evil, "beside": {"state_dict": weights, "args": evil}, "key": {**weights, "x": evil}}
        saved(path, values[place])
    with pytest.raises(UserError, match=r"it asks for (posix|nt)\.system"):
        open_torch_file(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if place != "archive" else pickle.loads(pickle.dumps(evil))
    assert marker.exists()  # the trap works


def test_a_whole_pickled_model_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*save its state dict"):
        open_torch_file(saved(tmp_path / "model.pt", nn.Linear(2, 2)))


def program(*operations: bytes) -> bytes:
    return b"\x80\x02" + b"".join(operations) + b"."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


REBUILD = name("torch._utils", "_rebuild_tensor_v2")
STORAGE = (
    b"(" + b"X\x07\x00\x00\x00storage" + name("torch", "FloatStorage") + b"X\x01\x00\x00\x000" + b"X\x03\x00\x00\x00cpu"
)


def tensor(count: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    return program(REBUILD, b"(", STORAGE, count, b"tQ", offset, shape, strides, b"\x89", b"tR")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (program(name("builtins", "eval"), b"X\x01\x00\x00\x001\x85R"), r"asks for builtins\.eval"),
        (program(name("torch", "load")), r"asks for torch\.load"),
        (program(name("torch.hub", "load")), r"asks for torch\.hub\.load"),
        (program(name("torch._utils", "_rebuild_device_tensor_from_numpy")), "asks for torch._utils"),
        (program(name("__torch__evil", "X")), "asks for __torch__evil"),
        (program(b"(ios\nsystem\n"), "operation INST"),
        (program(b"cos\nsystem\n"), "asks for os.system"),
        (program(b"\x82\x01"), "operation EXT1"),
        (program(b"(X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93"), "asks for os.system"),
        (program(name("__torch__.a", "B"), b")R"), "it calls __torch__.a.B"),
        (program(name("collections", "OrderedDict"), b")\x81"), "it makes collections.OrderedDict"),
        (program(name("collections", "OrderedDict"), b"}b"), "changes what it may only read"),
        (program(b"}", b")K\x01s"), "a tuple as a key"),
        (program(b"NK\x01a"), "appends to something"),
        (program(b"NQ"), "numbers outside its file"),
        (program(b"("), "damaged"),
        (program(b"0"), "operation POP"),
        (program(b"h\x05"), "damaged: it takes values"),
        (program(b"K\x01K\x02"), "does not end with one value"),
        (b"\x80\x02}", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (tensor(b"K\x04", b"K\x00", b"K\x05\x85", b"K\x01\x85"), "does not fit its numbers"),
        (tensor(b"K\x04", b"K\x01", b"K\x04\x85", b"K\x01\x85"), "does not fit its numbers"),
        (tensor(b"K\x04", b"K\x00", b"M\xff\xff\x85", b"K\x00\x85"), "does not fit its numbers"),
        (tensor(b"K\x04", b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85"), "does not fit its numbers"),
        (tensor(b"K\x04", b"K\x00", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), "does not fit its numbers"),
        (tensor(b"K\x04", b"K\x00", b"K\x02\x85", b")"), "does not fit its numbers"),
    ],
)
def test_a_program_that_wants_more_than_tensors_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says):
        read_pickle(data)


def test_the_same_program_with_fitting_numbers_is_read() -> None:
    found = read_pickle(tensor(b"K\x04", b"K\x01", b"K\x03\x85", b"K\x01\x85"))
    assert found == StoredTensor("0", "FloatStorage", 4, 1, (3,), (1,))


def test_deep_and_entangled_objects_end_with_an_error_not_with_the_process(tmp_path: Path) -> None:
    deep = program(b")", b"\x85" * 300_000)
    with pytest.raises(UserError, match="holds a tuple"):
        open_torch_file(replaced(saved(tmp_path / "deep.pt", {}), {"data.pkl": deep}))
    thing = name("__torch__", "A")
    doubled = thing + b")\x81"
    for number in range(28):  # each holds the one before twice: 2**28 names for 29 objects
        at = bytes([number])
        doubled = thing + b")\x81}(X\x01\x00\x00\x00a" + doubled + b"q" + at + b"X\x01\x00\x00\x00bh" + at + b"ub"
    with pytest.raises(UserError, match="it has 100,000 objects or more"):
        open_torch_file(replaced(saved(tmp_path / "doubled.pt", {}), {"data.pkl": program(doubled)}))
    itself = program(thing, b")\x81q\x00", b"}(X\x01\x00\x00\x00ah\x00ub")
    with pytest.raises(UserError, match="nested too deeply"):
        open_torch_file(replaced(saved(tmp_path / "itself.pt", {}), {"data.pkl": itself}))


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def compressed(path: Path) -> None:
    replaced(path, {}, compress=True)


def fewer_numbers(path: Path) -> None:
    replaced(path, {"data/0": b"1234"})


def big_endian(path: Path) -> None:
    replaced(path, {"byteorder": b"big"})


def of_old(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


def no_tensors(path: Path) -> None:
    torch.save({"a": torch.zeros(3), "b": 3}, path)


def other_bytes(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(torch.arange(5.0).numpy().tobytes())
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shorter, "damaged"),
        (compressed, "is compressed, which PyTorch's are not"),
        (fewer_numbers, "data/0 has 4 bytes, and its tensor needs 20"),
        (big_endian, "another kind of machine"),
        (of_old, "older ones are not read"),
        (no_tensors, "'b' is none"),
        (other_bytes, "damaged: Bad CRC"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    path = saved(tmp_path / "state.pt", {"a": torch.arange(5.0)})
    assert torch.equal(read_all(path)["a"], torch.arange(5.0))
    damage(path)
    with pytest.raises(UserError, match=says):
        read_all(path)

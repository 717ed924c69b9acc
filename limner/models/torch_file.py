"""PyTorch's own files: checkpoints and TorchScript archives, their tensors by name, nothing of theirs run."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import UserError
from limner.models.pickle_program import ITEM_BYTES, MAX_PICKLE_BYTES, Refused, ScriptObject, StoredTensor, read_pickle

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
"""What such files are called."""
_MOST_ENTRIES = 100_000
_DEEPEST = 32
_DOWNLOAD_AGAIN = "Download it again, from a place that you trust."
_STATE_DICT = "Where running that file is acceptable, save its state dict alone: torch.save(model.state_dict(), path)."


@dataclass(frozen=True)
class TorchFile:
    """The tensors of a file, not read yet."""

    path: Path
    form: Literal["TorchScript archive", "checkpoint", "state dict"]
    tensors: Mapping[str, StoredTensor]
    """By the names of a state dict."""
    classes: frozenset[str] = frozenset()
    """The classes of a TorchScript archive's objects, without their modules: ``QuickGELU``."""
    others: tuple[str, ...] = ()
    """What a checkpoint has beside its state dict."""

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Returns the tensors of these names on the CPU, in the number formats of the file."""
        stored = {name: self.tensors[name] for name in names}
        with _as_user_error(self.path), zipfile.ZipFile(self.path) as archive:
            prefix = _prefix(archive)
            _check_storages(self.path, archive, prefix, stored.values())
            return {name: _numbers(archive, prefix, tensor) for name, tensor in stored.items()}


def open_torch_file(path: Path) -> TorchFile:
    """Returns what a checkpoint or TorchScript archive holds.

    Raises UserError for a file in another form, a damaged one, and one that asks for anything but tensors.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":
        raise UserError(
            "is no file of PyTorch's: those since release 1.6 begin as a zip archive, and older ones are not read.",
            where=str(path),
            fix=_STATE_DICT,
        )
    with _as_user_error(path), zipfile.ZipFile(path) as archive:
        prefix = _prefix(archive)
        if f"{prefix}byteorder" in archive.namelist() and _entry(archive, f"{prefix}byteorder", 16) != b"little":
            raise Refused("its numbers have their bytes in the order of another kind of machine")
        value = read_pickle(_entry(archive, f"{prefix}data.pkl", MAX_PICKLE_BYTES))
        return _told(path, value)


def _told(path: Path, value: Any) -> TorchFile:
    if isinstance(value, ScriptObject):
        found = dict(itertools.islice(_fields(value, "", _DEEPEST), _MOST_ENTRIES))
        if len(found) == _MOST_ENTRIES:
            raise Refused(f"it has {_MOST_ENTRIES:,} objects or more")
        tensors = {name: one for name, one in found.items() if isinstance(one, StoredTensor)}
        kinds = frozenset(one.kind.rpartition(".")[2] for one in found.values() if isinstance(one, ScriptObject))
        return TorchFile(path, "TorchScript archive", tensors, kinds)
    if not isinstance(value, dict):
        raise Refused(f"it holds a {type(value).__name__}, not tensors by name")
    state = value.get("state_dict")
    if isinstance(state, dict):
        others = tuple(str(key) for key in value if key != "state_dict")
        return TorchFile(path, "checkpoint", _named_tensors(state), others=others)
    return TorchFile(path, "state dict", _named_tensors(value))


def _named_tensors(state: dict[Any, Any]) -> dict[str, StoredTensor]:
    strange = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, StoredTensor))]
    if strange or not state:
        raise Refused(f"it holds no tensors by name: {str(strange[0])[:60]!r} is none" if strange else "it is empty")
    return dict(state)


def _fields(value: ScriptObject, prefix: str, deepest: int) -> Iterator[tuple[str, Any]]:
    """Yields the objects and tensors below an object, named as PyTorch names them in a state dict."""
    if deepest == 0:
        raise Refused("its objects are nested too deeply")
    for name, inner in value.fields.items():
        if isinstance(inner, ScriptObject):
            yield f"{prefix}{name}.", inner
            yield from _fields(inner, f"{prefix}{name}.", deepest - 1)
        elif isinstance(inner, StoredTensor):
            yield f"{prefix}{name}", inner


# -------------------------------------------------------------------------------------------------------- the archive
def _prefix(archive: zipfile.ZipFile) -> str:
    """Returns the folder inside the archive, as in "archive/"."""
    names = archive.namelist()
    if len(names) > _MOST_ENTRIES:
        raise Refused(f"it has more than {_MOST_ENTRIES:,} entries")
    if len(set(names)) != len(names):
        raise Refused("it has two entries of one name")
    programs = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise Refused("it has no data.pkl, or several")
    return programs[0].removesuffix("data.pkl")


def _entry(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Returns the bytes of an entry, which PyTorch never compresses, so that it is as long as it says."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Refused(f"its entry {name[:80]!r} is compressed, which PyTorch's are not")
    if info.file_size > limit:
        raise Refused(f"its entry {name[:80]!r} has {info.file_size:,} bytes, not {limit:,}")
    return archive.read(info)


def _check_storages(path: Path, archive: zipfile.ZipFile, prefix: str, tensors: Collection[StoredTensor]) -> None:
    """Raises before anything is allocated where the numbers are not in the file as the tensors say."""
    wanted = {(tensor.storage, tensor.length * ITEM_BYTES[tensor.kind]) for tensor in tensors}
    for key, size in wanted:
        there = archive.getinfo(f"{prefix}data/{key}").file_size
        if there != size:
            raise Refused(f"its entry data/{key} has {there:,} bytes, and its tensor needs {size:,}")
    needed, there = sum(size for _, size in wanted), path.stat().st_size
    if needed > there:
        raise Refused(f"its tensors need {needed:,} bytes, and the file has {there:,}")


def _numbers(archive: zipfile.ZipFile, prefix: str, tensor: StoredTensor) -> Tensor:
    import torch

    dtypes = {
        "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
        "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    }  # fmt: skip
    dtype = dtypes[tensor.kind]
    data = _entry(archive, f"{prefix}data/{tensor.storage}", tensor.length * ITEM_BYTES[tensor.kind])
    if not data:
        return torch.empty(tensor.shape, dtype=dtype)
    whole = torch.frombuffer(bytearray(data), dtype=dtype)
    return whole.as_strided(tensor.shape, tensor.strides, tensor.offset).clone()


@contextlib.contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    """Says what is wrong with a file where reading it raises one of these exceptions."""
    damage = (zipfile.BadZipFile, NotImplementedError, LookupError, EOFError, OSError, struct.error, ValueError)
    try:
        yield
    except Refused as error:
        raise UserError(
            f"is not read, since {error}; a pickle can run any code, so only tensors are taken.",
            where=str(path),
            fix=_STATE_DICT,
        ) from None
    except damage as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"is damaged: {reason}.", where=str(path), fix=_DOWNLOAD_AGAIN) from None

"""CIFAR-10's pickles, read without running what a pickle may ask for.

A pickle is a program. The files of the data set need dicts, lists, numbers, texts and one numpy array of bytes, so that
is all that can come out of here: numpy's names stand for classes of ours that only remember their arguments, and
operations that could ask for much memory are refused before anything runs.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from limner.core.errors import UserError

MAX_PICKLE_BYTES = 200_000_000
"""A file of 10,000 pictures has 31 MB."""

_MAX_TUPLES = 20  # tuples nested by the thousand overflow the C stack when they are hashed; a real file has 6

_CALLS = frozenset(["NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"])
"""Operations that a real file does not have: other ways to call a class, and objects from outside the file."""


@dataclass(frozen=True)
class ByteArray:
    """A numpy array of unsigned bytes as it stands in the file, row by row."""

    shape: tuple[int, ...]
    data: bytes


class _Dtype:
    """Stands for ``numpy.dtype``; remembers which."""

    def __init__(self, name: object = None, align: object = None, copy: object = None) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Array:
    """Stands for ``numpy.ndarray`` and for the function that makes an empty one; remembers its state."""

    def __init__(self, *arguments: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Encode:
    """Stands for ``_codecs.encode``, with which Python 3 writes bytes in old protocols."""

    def __new__(cls, text: object, encoding: object = None) -> bytes:  # type: ignore[misc]
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes something other than bytes")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it may only call")


_ALLOWED: Mapping[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
}
"""Classes only: a pickle can set attributes on what it gets, and ``__setstate__`` is how a class refuses that."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_batch(path: Path) -> dict[str, object]:
    """Returns the dict in a file of CIFAR-10: texts, numbers, lists of them, and :class:`ByteArray`.

    Raises UserError for a pickle that holds or asks for anything else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PICKLE_BYTES + 1)
        _check_operations(data)
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
        return {_text(key): _plain(item) for key, item in value.items()}
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}.", where=str(path), fix="Allow yourself to read it."
        ) from None
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        EOFError,
        OverflowError,
    ) as error:
        raise UserError(
            f"is no file of CIFAR-10: {' '.join(str(error).split())[:200] or 'it is damaged'}.",
            where=str(path),
            fix="Download the data set again, from a place that you trust.",
        ) from None


def _check_operations(data: bytes) -> None:
    if len(data) > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"it has more than {MAX_PICKLE_BYTES // 1_000_000} MB")
    tuples = 0
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in _CALLS:
            raise pickle.UnpicklingError(f"it has the operation {operation.name}")
        if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("it asks for too much memory")
        tuples += operation.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
        if tuples > _MAX_TUPLES:
            raise pickle.UnpicklingError("it is nested too deeply")


def _plain(value: object) -> object:
    if isinstance(value, _Array):
        return _byte_array(value.state)
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, (bytes, str, int)):
                raise pickle.UnpicklingError(f"it holds a list of {type(item).__name__}")
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    if not isinstance(value, (str, int)):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
    return value


def _text(value: object) -> str:
    """Python 2's texts come out as bytes."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if not isinstance(value, str):
        raise pickle.UnpicklingError("it has a key that is no text")
    return value


def _byte_array(state: object) -> ByteArray:
    """Checks what numpy would be given: (version, shape, dtype, Fortran order, bytes)."""
    match state:
        case (1, tuple(shape), _Dtype(name=name), False, bytes(data)):
            kind = name.decode("ascii") if isinstance(name, bytes) else name
            if kind in ("u1", "|u1") and shape and all(type(side) is int and side >= 0 for side in shape):
                product = 1
                for side in shape:
                    product *= side
                if product == len(data):
                    return ByteArray(shape, data)
    raise pickle.UnpicklingError("its array is not one of single bytes, row by row")

"""What a pickle of PyTorch's holds, told without running it.

A pickle is a program, and Python's unpickler runs it. This is no unpickler: it reads the operations one by one and
keeps what they would call as plain data. The few names that make up tensors and plain containers are known; every other
one is refused, and nothing is imported or called for any.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_PICKLE_BYTES = 20_000_000
"""The program alone, without the tensors' numbers; that of a checkpoint of a billion parameters has under 2 MB."""

ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
"""Bytes of a number, by PyTorch's names."""
_MOST_DIMENSIONS = 8
_LISTS = frozenset(f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor"))
_CALLS = frozenset(
    [
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.jit._pickle.restore_type_tag",
        "collections.OrderedDict",
        *_LISTS,
    ]
)
_SCRIPT = "__torch__."


class Refused(Exception):
    """A pickle that holds or asks for something else than tensors in plain containers."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the numbers of a tensor are, and how they lie there."""

    storage: str
    kind: str
    """The number format, a key of :data:`ITEM_BYTES`."""
    length: int
    """Numbers in the whole storage."""
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class ScriptObject:
    """An object of a TorchScript archive: the name of its class, and its fields. It does nothing."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    length: int


class _Mark:
    """The place on the stack where a list, dict or tuple begins."""


def read_pickle(data: bytes) -> Any:
    """Returns dicts, lists, tuples, texts, numbers, :class:`StoredTensor` and :class:`ScriptObject`.

    Raises :class:`Refused` for a pickle that needs anything else, or that is damaged.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise Refused(f"its program has more than {MAX_PICKLE_BYTES // 1_000_000} MB")
    reader = _Reader()
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "STOP":
                break
            reader.take(operation.name, argument)
    except (ValueError, UnicodeError, OverflowError) as error:
        raise Refused(f"it is damaged: {' '.join(str(error).split())[:120]}") from None
    except (IndexError, KeyError):
        raise Refused("it is damaged: it takes values that it did not make") from None
    if len(reader.stack) != 1 or isinstance(reader.stack[0], _Mark):
        raise Refused("it is damaged: it does not end with one value")
    return reader.stack[0]


class _Reader:
    """The stack and the memo of a pickle, and what each operation does to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._operations: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), self.stack.append),
            **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), self.stack.append),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "MARK": lambda _: self.stack.append(_Mark()),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE": lambda _: self.stack.append(tuple(self._marked())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "LIST": lambda _: self.stack.append(self._marked()),
            "APPEND": lambda _: self._append([self.stack.pop()]),
            "APPENDS": lambda _: self._append(self._marked()),
            "SETITEM": lambda _: self._set([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda _: self._set(self._marked()),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._remember),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda at: self.stack.append(self._memo[at])),
            "GLOBAL": lambda names: self._name(str(names).replace(" ", ".", 1)),
            "STACK_GLOBAL": lambda _: self._name(f"{self.stack.pop(-2)}.{self.stack.pop()}"),
            "REDUCE": lambda _: self._call(self.stack.pop(-2), self.stack.pop()),
            "NEWOBJ": lambda _: self._new(self.stack.pop(-2), self.stack.pop()),
            "BUILD": lambda _: self._build(self.stack.pop()),
            "BINPERSID": lambda _: self.stack.append(_storage(self.stack.pop())),
        }

    def take(self, operation: str, argument: Any) -> None:
        """Does one operation; raises :class:`Refused` for one that PyTorch's files do not have."""
        if operation not in self._operations:
            raise Refused(f"it has the operation {operation}")
        self._operations[operation](argument)

    def _marked(self) -> list[Any]:
        """Takes everything above the last mark, and the mark."""
        values = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def _tuple(self, count: int) -> None:
        values = tuple(self.stack.pop() for _ in range(count))
        self.stack.append(values[::-1])

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Refused("it is damaged: it appends to something other than a list")
        self.stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        """Keys are texts and numbers only: a tuple nested by the thousand would overflow the C stack as a key."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise Refused("it is damaged: it sets an item of something other than a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise Refused(f"it has a {type(key).__name__} as a key")
            target[key] = value

    def _remember(self, at: int) -> None:
        self._memo[at] = self.stack[-1]

    def _name(self, text: str) -> None:
        storage = text.startswith("torch.") and text.removeprefix("torch.") in ITEM_BYTES
        if not (text in _CALLS or storage or text.startswith(_SCRIPT)):
            raise Refused(f"it asks for {text[:120]}")
        self.stack.append(_Name(text))

    def _call(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, _Name) or called.text not in _CALLS or not isinstance(arguments, tuple):
            raise Refused(f"it calls {called.text[:120] if isinstance(called, _Name) else 'what it made itself'}")
        if called.text == "collections.OrderedDict":
            if arguments:
                raise Refused("it makes an OrderedDict of other things")
            self.stack.append({})
        elif called.text == "torch._utils._rebuild_tensor_v2":
            self.stack.append(_tensor(arguments))
        else:  # a parameter is its tensor, a typed list is its list
            self.stack.append(arguments[0])

    def _new(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, _Name) or not called.text.startswith(_SCRIPT) or arguments != ():
            raise Refused(f"it makes {called.text[:120] if isinstance(called, _Name) else 'an object of its own'}")
        self.stack.append(ScriptObject(called.text))

    def _build(self, state: Any) -> None:
        """Gives a script object its fields; an OrderedDict's own attributes (``_metadata``) tell nothing."""
        target = self.stack[-1]
        if isinstance(target, ScriptObject):
            if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
                raise Refused("it fills an object with something other than its fields")
            target.fields.update(state)
        elif not isinstance(target, dict):
            raise Refused("it changes what it may only read")


def _storage(value: Any) -> _Storage:
    match value:
        case ("storage", _Name(text=text), str(key), str(), int(length)) if length >= 0:
            if text.removeprefix("torch.") in ITEM_BYTES and key.isalnum() and key.isascii():
                return _Storage(text.removeprefix("torch."), key, length)
    raise Refused("it names numbers outside its file")


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    match arguments:
        case (_Storage() as storage, int(offset), tuple() | list() as shape, tuple() | list() as strides, *_):
            counts = [offset, *shape, *strides]
            plain = all(type(count) is int and 0 <= count < 2**62 for count in counts)
            if plain and len(shape) == len(strides) <= _MOST_DIMENSIONS and _inside(storage, offset, shape, strides):
                return StoredTensor(storage.key, storage.kind, storage.length, offset, tuple(shape), tuple(strides))
    raise Refused("it has a tensor that does not fit its numbers")


def _inside(storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Returns whether a tensor lies in its storage and has no more numbers than that."""
    if math.prod(shape) == 0:
        return True
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    return last < storage.length and math.prod(shape) <= storage.length

"""Tensors kept by the content that they were computed from, never by path or position."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.rundir import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

CACHE_VERSION = 1
MEMORY_BYTES = 2 * 2**30


def shared_folder() -> Path:
    """Returns the folder that all runs share: $LIMNER_CACHE, else ~/.cache/limner."""
    return Path(os.environ.get("LIMNER_CACHE") or Path.home() / ".cache" / "limner")


def content_key(**parts: Any) -> str:
    """Returns the key of an entry: a hash of everything that its tensors depend on."""
    text = json.dumps({"version": CACHE_VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class TensorCache:
    """Entries on disk, shared between runs, with the recently used ones in memory.

    A file is written whole or not at all and carries a checksum; one that is damaged is computed again. ``folder=None``
    keeps nothing: every call computes.
    """

    def __init__(self, folder: Path | None, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.folder, self.memory_bytes = folder, memory_bytes
        self.made = 0
        self._held: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._held_bytes = 0

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Returns the entry of ``key``, computing it with ``make`` only if there is none; tensors on the CPU."""
        tensors = self.find(key)
        if tensors is None:
            tensors = {name: value.detach().cpu().contiguous() for name, value in make().items()}
            self.made += 1
            self._write(key, tensors)
            if self.folder:
                self._hold(key, tensors)
        return tensors

    def find(self, key: str) -> dict[str, Tensor] | None:
        """Returns the entry of ``key``, or None if there is none."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        tensors = self._read(key) if self.folder else None
        if tensors is not None:
            self._hold(key, tensors)
        return tensors

    def _hold(self, key: str, tensors: dict[str, Tensor]) -> None:
        self._held[key] = tensors
        self._held_bytes += _bytes(tensors)
        while self._held_bytes > self.memory_bytes and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= _bytes(dropped)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        """Returns the entry, or None if there is none or if it is damaged (it is then made again)."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        body, checksum = data[:-4], data[-4:]
        if zlib.crc32(body).to_bytes(4, "big") != checksum:
            return None
        try:
            tensors: dict[str, Tensor] = load(body)
        except SafetensorError:
            return None
        return tensors

    def _write(self, key: str, tensors: dict[str, Tensor]) -> None:
        from safetensors.torch import save

        if self.folder is None:
            return
        path = self._path(key)
        body = save(tensors)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, body + zlib.crc32(body).to_bytes(4, "big"), durable=False)
        except OSError as error:
            raise UserError(
                f"{str(self.folder)!r} cannot be written: {error.strerror}.",
                where="cache.folder",
                fix="Make room, name another folder, or set cache.latents and cache.captions to false.",
            ) from None


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())

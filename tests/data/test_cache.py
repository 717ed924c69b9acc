from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limner.data.cache import TensorCache, content_key


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 2), value), "b": torch.tensor([1.5], dtype=torch.bfloat16)}


def file_of(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def test_an_entry_is_computed_once_and_shared_between_runs(tmp_path: Path) -> None:
    first = TensorCache(tmp_path)
    made = first.get("k" * 8, lambda: tensors(1))
    second = TensorCache(tmp_path)
    read = second.get("k" * 8, lambda: tensors(2))
    assert (first.made, second.made) == (1, 0)
    assert all(torch.equal(made[name], read[name]) and made[name].dtype == read[name].dtype for name in made)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeros", "header"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    TensorCache(tmp_path).get("k" * 8, lambda: tensors(1))
    path = file_of(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-10] ^= 1
    damaged = {
        "cut": data[: len(data) // 2],
        "flip": data,
        "empty": b"",
        "zeros": bytes(len(data)),
        "header": b"\xff" * 8 + data[8:],
    }[damage]
    path.write_bytes(damaged)
    again = TensorCache(tmp_path)
    assert torch.equal(again.get("k" * 8, lambda: tensors(7))["a"], torch.full((3, 2), 7.0))
    assert again.made == 1
    assert torch.equal(TensorCache(tmp_path).get("k" * 8, lambda: tensors(8))["a"], torch.full((3, 2), 7.0))


def test_without_a_folder_every_call_computes() -> None:
    cache = TensorCache(None)
    cache.get("k", lambda: tensors(1))
    cache.get("k", lambda: tensors(1))
    assert cache.made == 2


def test_memory_stays_bounded(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, memory_bytes=60)
    for number in range(10):
        cache.get(f"key{number:05d}", lambda: tensors(1))
    assert cache._held_bytes <= 60
    assert len(cache._held) >= 1


def test_keys_differ_with_every_part_and_not_with_their_order() -> None:
    assert content_key(a=1, b=2) == content_key(b=2, a=1)
    assert len({content_key(a=1, b=2), content_key(a=2, b=1), content_key(a=1), content_key(a="1", b=2)}) == 4

"""What is known of a picture is found again by its bytes, and never wrong because a line was damaged."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig
from limner.data.duplicates import Signature
from limner.data.facts import Facts, FactsCache

ONE = Facts((640, 480), ("several pages: the first of 2 is used",), Signature(2**64 - 5, bytes(range(192))))
TWO = Facts((1, 2), (), Signature(0, bytes(192)))
IMAGES = ImageConfig()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "images.jsonl"


def remember(path: Path, sha256: str, facts: Facts, images: ImageConfig = IMAGES) -> None:
    with FactsCache(path, images) as cache:
        cache.put(sha256, facts)


def known(path: Path, sha256: str, images: ImageConfig = IMAGES) -> Facts | None:
    with FactsCache(path, images) as cache:
        return cache.get(sha256)


def test_facts_are_found_again_by_the_bytes_of_the_file(path: Path) -> None:
    remember(path, "a" * 64, ONE)
    remember(path, "b" * 64, TWO)
    assert known(path, "a" * 64) == ONE
    assert known(path, "b" * 64) == TWO
    assert known(path, "c" * 64) is None


def test_what_is_known_is_not_written_twice(path: Path) -> None:
    for _ in range(3):
        remember(path, "a" * 64, ONE)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("other", [{"background": "#000000"}, {"max_pixels": 1000}])
def test_other_settings_know_nothing_of_it(path: Path, other: dict[str, object]) -> None:
    remember(path, "a" * 64, ONE)
    assert known(path, "a" * 64, ImageConfig.model_validate(other)) is None
    assert known(path, "a" * 64, ImageConfig(resolution=1024, flip=True)) == ONE


def test_another_version_of_pillow_looks_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL

    remember(path, "a" * 64, ONE)
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert known(path, "a" * 64) is None


def test_a_line_cut_short_costs_only_itself(path: Path) -> None:
    remember(path, "a" * 64, ONE)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    remember(path, "b" * 64, TWO)
    assert known(path, "a" * 64) == ONE
    assert known(path, "b" * 64) == TWO


@pytest.mark.parametrize(
    "damage",
    [
        {"size": [0, 5]},
        {"size": ["640", "480"]},
        {"size": [640]},
        {"notes": [1]},
        {"notes": None},
        {"dhash": "xyz"},
        {"dhash": "-1"},
        {"dhash": "1" + "0" * 16},
        {"thumbnail": "AAAA"},
        {"thumbnail": "*"},
    ],
)
def test_a_damaged_line_is_passed_over(path: Path, damage: dict[str, object]) -> None:
    remember(path, "a" * 64, ONE)
    line = json.loads(path.read_text()) | damage
    path.write_text(json.dumps(line) + "\n")
    assert known(path, "a" * 64) is None
    remember(path, "a" * 64, ONE)
    assert known(path, "a" * 64) == ONE


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\0\n", b"[]\n", b"12\n", b"[" * 100_000 + b"\n", b"{}\n\n\n", b'{"a":'])
def test_rubbish_is_passed_over(path: Path, rubbish: bytes) -> None:
    remember(path, "a" * 64, ONE)
    path.write_bytes(rubbish + b"\n" + path.read_bytes() + rubbish)
    assert known(path, "a" * 64) == ONE


def test_without_a_folder_nothing_is_remembered_or_written() -> None:
    with FactsCache(None, IMAGES) as cache:
        cache.put("a" * 64, ONE)
        assert cache.get("a" * 64) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"images\.jsonl: cannot be written: .*Set cache\.folder"):
        FactsCache(tmp_path / "file" / "images.jsonl", IMAGES)


def test_a_full_disk_is_named(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FactsCache(path, IMAGES) as cache:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with pytest.raises(UserError, match=r"cannot be written: .*Set cache\.folder"):
                cache.put("a" * 64, ONE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

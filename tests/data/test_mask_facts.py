"""What is known of a mask is found again by its bytes, and never wrong because it, a setting or a line changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig
from limner.data.folder import Folder
from limner.data.ledger import Ledger, survey
from limner.data.mask_facts import MaskFacts, NoMask, mask_memory
from limner.data.masks import Masks, with_masks
from tests.data.test_masks import ALPHA, FILES, MIDDLE, WHOLE, box_mask, encoded, folder, picture

SQUARES = ImageConfig(resolution=64, buckets=False)
KEY = ("a" * 64, (64, 96))
ONE = MaskFacts((640, 480), 1 / 3, 2, ("several pages: the first of 2 is used",))


def check(path: Path, masks: Masks = FILES, **images: Any) -> Ledger:
    """Surveys the pictures of ``path``/set, with ``path``/cache."""
    reading = with_masks(Folder(path=path / "set").read(), masks)
    settings = ImageConfig.model_validate({**SQUARES.model_dump(), **images})
    return survey(reading, settings, count_tokens=None, token_limit=77, cache=path / "cache", masks=masks)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of bytes of each mask that is decoded."""
    sizes: list[int] = []
    mask_in = Masks.mask_in

    def counting(self: Masks, data: bytes, images: ImageConfig) -> Any:
        sizes.append(len(data))
        return mask_in(self, data, images)

    monkeypatch.setattr(Masks, "mask_in", counting)
    return sizes


def test_a_mask_is_decoded_once_and_the_second_ledger_is_the_first(tmp_path: Path, decoded: list[int]) -> None:
    folder(tmp_path / "set", a=MIDDLE, b=WHOLE)
    first = check(tmp_path)
    assert len(decoded) == 2
    second = check(tmp_path)
    assert len(decoded) == 2
    assert first == second
    assert [row.inside for row in second.rows if row.used] == [0.1667, 1.0]


def test_a_mask_that_changed_is_seen(tmp_path: Path) -> None:
    folder(tmp_path / "set", a=MIDDLE, b=WHOLE)
    first = check(tmp_path)
    (tmp_path / "set" / "a.mask.png").write_bytes(encoded(box_mask((96, 64), (32, 16, 64, 64))))
    second = check(tmp_path)
    assert [row.inside for row in second.rows if row.used] == [0.25, 1.0]
    assert first.manifest != second.manifest
    (tmp_path / "set" / "a.mask.png").write_bytes(encoded(Image.new("L", (96, 64))))
    with pytest.raises(UserError, match=r"a\.png: its mask has nothing inside"):
        check(tmp_path)


def test_the_same_mask_is_another_one_for_other_crops_and_for_a_picture_of_another_size(tmp_path: Path) -> None:
    folder(tmp_path / "set", a=box_mask((96, 64), (8, 0, 24, 64)))  # the square in the middle begins at 16
    check(tmp_path)
    for _ in range(2):  # decoded, then remembered
        with pytest.raises(UserError, match=r"2 of 5 that images\.crop: random may draw"):  # at 0, 8, 16, 24, 32
            check(tmp_path, crop="random")
    with pytest.raises(UserError, match=r"3 of 9 that images\.crop: random may draw"):  # at 0, 4, ... 32
        check(tmp_path, crop="random", resolution=128)
    check(tmp_path)
    picture((192, 128)).save(tmp_path / "set" / "a.png")
    with pytest.raises(UserError, match="it is 96 x 64, the picture 192 x 128 when upright"):
        check(tmp_path)


def test_pictures_without_an_alpha_channel_are_remembered_and_the_same_bytes_as_a_mask_file_are_not(
    tmp_path: Path, decoded: list[int]
) -> None:
    folder(tmp_path / "set", a=None, b=None)
    cut_out = picture()
    cut_out.putalpha(MIDDLE)
    cut_out.save(tmp_path / "set" / "a.png")
    whole = Masks(source="alpha", missing="whole")
    ledgers = [check(tmp_path, whole) for _ in range(2)]
    assert ledgers[0] == ledgers[1]
    assert [one.mask is None for one in ledgers[1].prepared] == [False, True]
    assert len(decoded) == 2
    with pytest.raises(UserError, match=r"1 of 2 pictures without a mask: b\.png"):
        check(tmp_path, ALPHA)
    (tmp_path / "set" / "b.mask.png").write_bytes((tmp_path / "set" / "a.png").read_bytes())
    with pytest.raises(UserError, match=r"b\.png: its mask is coloured"):
        check(tmp_path, Masks(source="files", missing="whole"))


def test_a_mask_that_cannot_be_decoded_is_tried_again(tmp_path: Path) -> None:
    folder(tmp_path / "set", a=encoded(MIDDLE)[:-30])
    for _ in range(2):
        with pytest.raises(UserError, match=r"a\.png: its mask is damaged"):
            check(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": {**vars(ONE), "size": [0, 5]}},
        {"mask": {**vars(ONE), "inside": 1.5}},
        {"mask": {**vars(ONE), "inside": "1"}},
        {"mask": {**vars(ONE), "empty": -1}},
        {"mask": {**vars(ONE), "notes": [1]}},
        {"mask": []},
        {"bucket": [64]},
        {"bucket": None},
        {"settings": "others"},
    ],
)
def test_a_damaged_line_is_passed_over(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "masks.jsonl"
    with mask_memory(path, SQUARES, "files") as memory:
        memory.put(KEY, ONE)
    line = json.loads(path.read_text())
    path.write_text(json.dumps(line | change) + "\n" + json.dumps(line | {"sha256": "b" * 64, "mask": None}) + "\n")
    with mask_memory(path, SQUARES, "files") as memory:
        assert memory.get(KEY) is None
        assert memory.get(("b" * 64, KEY[1])) == NoMask()
        memory.put(KEY, ONE)
    with mask_memory(path, SQUARES, "files") as memory:
        assert memory.get(KEY) == ONE


@pytest.mark.parametrize(
    ("other", "source"), [({"max_pixels": 9}, "files"), ({"crop": "random"}, "files"), ({}, "alpha")]
)
def test_other_settings_know_nothing_of_it(tmp_path: Path, other: dict[str, Any], source: Any) -> None:
    with mask_memory(tmp_path / "masks.jsonl", SQUARES, "files") as memory:
        memory.put(KEY, ONE)
    with mask_memory(tmp_path / "masks.jsonl", ImageConfig.model_validate(other), source) as memory:
        assert memory.get(KEY) is None
    with mask_memory(tmp_path / "masks.jsonl", ImageConfig(background="#000000", flip=True), "files") as memory:
        assert memory.get(KEY) == ONE

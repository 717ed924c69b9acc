"""Every file has a row, nothing is lost without a word, and the ledger depends on the data alone."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig
from limner.data.example import BytesImage, Example, FileImage, ImageSource, LeftOut, Reading
from limner.data.ledger import Ledger, Row, survey, write_ledger

SMALL = ImageConfig(resolution=64, bucket_step=16)
LEAVE_OUT = ImageConfig(resolution=64, bucket_step=16, bad_files="leave_out")


def picture(seed: int, size: tuple[int, int] = (96, 64), file_format: str = "PNG", **options: Any) -> bytes:
    patches = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(file, file_format, **options)
    return file.getvalue()


def example(name: str, image: bytes | ImageSource, *captions: str, **more: Any) -> Example:
    source = BytesImage(image) if isinstance(image, bytes) else image
    return Example(name, source, captions or (f"a picture of {name}",), **more)


def look(
    examples: Sequence[Example], images: ImageConfig = SMALL, left_out: Sequence[LeftOut] = (), **options: Any
) -> Ledger:
    settings: dict[str, Any] = {"count_tokens": None, "token_limit": 77, "cache": None, **options}
    return survey(Reading("test layout", tuple(examples), tuple(left_out)), images, **settings)


def row(ledger: Ledger, name: str) -> Row:
    found = [one for one in ledger.rows if one.id == name]
    assert len(found) == 1
    return found[0]


def count_words(captions: Sequence[str]) -> list[int]:
    return [len(caption.split()) for caption in captions]


# ---------------------------------------------------------------------------------------------------------- rows
def test_a_row_says_what_becomes_of_a_picture() -> None:
    one = example("a.png", picture(1, (200, 100)), "a dog", "a big brown dog", weight=0.5, repeats=3, role="class")
    seen = row(look([one], count_tokens=count_words, token_limit=3), "a.png")
    assert seen.used
    assert (seen.width, seen.height, seen.bucket) == (200, 100, "80x48")
    assert seen.resize == (96, 48)
    assert seen.crop == (8, 0, 80, 48)
    assert seen.cut_off == round(1 - 80 / 96, 4)
    assert seen.enlarged == 1.0
    assert (seen.captions, seen.tokens, seen.tokens_cut) == (2, 4, True)
    assert (seen.role, seen.repeats, seen.weight) == ("class", 3, 0.5)
    assert len(seen.sha256) == 64
    assert seen.notes == ()


def test_a_random_crop_has_no_place_in_the_ledger() -> None:
    images = ImageConfig(resolution=64, bucket_step=16, crop="random")
    assert row(look([example("a", picture(1, (200, 100)))], images), "a").crop is None


def test_a_picture_smaller_than_its_bucket_is_told() -> None:
    assert row(look([example("a", picture(1, (32, 32)))]), "a").enlarged == 2.0


def test_the_size_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ledger = look([example("a", picture(1, (96, 64), "JPEG", exif=exif))])
    assert ledger.prepared[0].size == (64, 96)
    assert ledger.prepared[0].bucket == (48, 80)


def test_notes_of_decoding_stand_in_the_row() -> None:
    data = picture(1, (96, 64), "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert row(look([example("a", data)]), "a").notes == ("several pages: the first of 2 is used",)


def test_each_caption_is_counted_once_and_the_longest_matters() -> None:
    asked: list[str] = []

    def count(captions: Sequence[str]) -> list[int]:
        asked.extend(captions)
        return count_words(captions)

    examples = [example("a", picture(1), "x", "x y z"), example("b", picture(2), "x"), example("c", picture(3), "x y")]
    ledger = look(examples, count_tokens=count, token_limit=2)
    assert sorted(asked) == ["x", "x y", "x y z"]
    assert [(one.tokens, one.tokens_cut) for one in ledger.rows] == [(3, True), (1, False), (2, False)]
    assert row(look(examples), "a").tokens is None


def test_pictures_with_the_same_bytes_are_told_and_still_used() -> None:
    ledger = look([example("b", picture(1)), example("a", picture(1)), example("c", picture(2))])
    assert [one.duplicate_of for one in ledger.rows] == ["", "a", ""]
    assert len(ledger.prepared) == 3


def test_pictures_that_look_alike_are_told_and_still_used() -> None:
    copies = [example("a", picture(1)), example("b", picture(2)), example("c", picture(1, (96, 64), "JPEG"))]
    ledger = look(copies)
    assert [one.near_group for one in ledger.rows] == [0, None, 0]
    assert [one.duplicate_of for one in ledger.rows] == ["", "", ""]
    assert len(ledger.prepared) == 3


# ----------------------------------------------------------------------------------------------------- bad files
BAD = {
    "empty.jpg": b"",
    "page.jpg": b"<!doctype html><title>404</title>",
    "half.jpg": picture(9, (96, 64), "JPEG")[:900],
    "header.png": picture(9).replace(b"IHDR", b"IHDX"),
}


def test_bad_pictures_stop_the_run_and_are_named_with_the_remedy() -> None:
    examples = [example(name, data) for name, data in BAD.items()] + [example("good.png", picture(1))]
    with pytest.raises(UserError) as caught:
        look(examples)
    assert str(caught.value) == (
        "dataset: 4 of 5 pictures cannot be used:\n"
        "  - empty.jpg: is empty: the file has 0 bytes\n"
        f"  - half.jpg: {row(look(examples, LEAVE_OUT), 'half.jpg').reason}\n"
        "  - header.png: is damaged: it begins like a PNG file, but cannot be opened\n"
        "  - page.jpg: is no picture: it begins like HTML, a saved web page\n"
        "Mend or remove them, or set images.bad_files=leave_out to go on without them."
    )


def test_only_the_first_five_are_named() -> None:
    with pytest.raises(UserError, match="and 7 more") as caught:
        look([example(f"{i:02}", b"") for i in range(12)] + [example("good", picture(1))])
    assert "04: is empty" in str(caught.value)
    assert "05: is empty" not in str(caught.value)


def test_bad_pictures_that_are_left_out_keep_their_rows() -> None:
    examples = [example(name, data) for name, data in BAD.items()] + [example("good.png", picture(1))]
    ledger = look(examples, LEAVE_OUT)
    assert {one.id for one in ledger.rows if not one.used} == set(BAD)
    assert all(one.reason for one in ledger.rows if not one.used)
    assert [one.example.id for one in ledger.prepared] == ["good.png"]


def test_files_that_cannot_be_opened_are_bad_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    examples = [
        example("gone", FileImage(tmp_path / "gone")),
        example("folder", FileImage(tmp_path / "folder")),
        example("good", picture(1)),
    ]
    ledger = look(examples, LEAVE_OUT)
    assert row(ledger, "gone").reason == "cannot be read: No such file or directory"
    assert row(ledger, "folder").reason == "cannot be read: Is a directory"


def test_a_set_of_bad_pictures_only_is_an_error_in_any_case() -> None:
    with pytest.raises(UserError, match="2 of 2 pictures cannot be used") as caught:
        look([example("a", b""), example("b", b"x")], LEAVE_OUT)
    assert "leave_out" not in str(caught.value)


def test_a_set_without_pictures_is_an_error_that_names_what_was_left_out() -> None:
    with pytest.raises(UserError, match=r"no picture was found\. Left out: a\.jpg \(no caption\)"):
        look([], left_out=[LeftOut("a.jpg", "no caption")])


def test_what_the_layout_left_out_keeps_its_rows() -> None:
    ledger = look([example("b", picture(1))], left_out=[LeftOut("a.txt", "no picture beside it")])
    assert ledger.rows[0] == Row(id="a.txt", used=False, reason="no picture beside it")
    assert len(ledger.rows) == 2


def test_two_examples_of_one_id_are_a_mistake_of_the_layout() -> None:
    with pytest.raises(ValueError, match="same id"):
        look([example("a", picture(1)), example("a", picture(2))])


# --------------------------------------------------------------------------------------- order, threads, progress
def test_the_ledger_does_not_depend_on_the_order_in_which_files_were_found() -> None:
    examples = [example(f"{i:02}", picture(i % 7, (40 + i, 60))) for i in range(20)]
    left_out = [LeftOut("x", "one"), LeftOut("05b", "two")]
    assert look(examples, left_out=left_out) == look(examples[::-1], left_out=left_out[::-1])
    assert [one.id for one in look(examples, left_out=left_out).rows][5:7] == ["05", "05b"]


def test_progress_is_reported_for_every_picture_on_the_calling_thread() -> None:
    seen = []
    examples = [example(f"{i}", picture(i, (16, 16))) for i in range(9)]
    look(examples, on_progress=lambda done, total: seen.append((done, total, threading.current_thread())))
    assert seen == [(i, 9, threading.main_thread()) for i in range(1, 10)]


@dataclasses.dataclass(frozen=True)
class Watched:
    """Bytes that remember how many were read."""

    data: bytes
    reads: list[int]

    def read(self) -> bytes:
        self.reads.append(1)
        return self.data


def test_a_stop_in_the_middle_ends_at_once() -> None:
    reads: list[int] = []
    data = picture(1)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look([example(f"{i}", Watched(data, reads)) for i in range(900)], on_progress=interrupt)
    assert len(reads) < 300


# --------------------------------------------------------------------------------------------------------- cache
def test_a_second_survey_gives_the_same_ledger_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    examples = [example("a", picture(1, (96, 64), "JPEG", exif=exif)), example("b", picture(2)), example("c", b"")]
    first = look(examples, LEAVE_OUT, cache=tmp_path)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a known picture was opened again")

    monkeypatch.setattr(Image, "open", refuse)
    assert look(examples, LEAVE_OUT, cache=tmp_path) == first


def test_a_changed_picture_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture(1, (96, 64)))
    before = look([example("a", FileImage(path))], cache=tmp_path / "cache")
    stamp = path.stat()
    path.write_bytes(picture(1, (64, 96)))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = look([example("a", FileImage(path))], cache=tmp_path / "cache")
    assert (row(before, "a").width, row(after, "a").width) == (96, 64)
    assert before.manifest != after.manifest


def test_a_bad_picture_is_tried_again_and_used_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture(1)[:-40])
    good = example("b", picture(2))
    assert not row(look([example("a", FileImage(path)), good], LEAVE_OUT, cache=tmp_path / "cache"), "a").used
    path.write_bytes(picture(1))
    assert row(look([example("a", FileImage(path)), good], LEAVE_OUT, cache=tmp_path / "cache"), "a").used


def test_a_lower_limit_of_pixels_is_not_overlooked_by_the_cache(tmp_path: Path) -> None:
    examples = [example("a", picture(1, (96, 64))), example("b", picture(2, (16, 16)))]
    look(examples, cache=tmp_path)
    images = ImageConfig(resolution=64, bucket_step=16, max_pixels=1000, bad_files="leave_out")
    assert row(look(examples, images, cache=tmp_path), "a").reason.startswith("has more pixels")


# ------------------------------------------------------------------------------------------------------- manifest
def test_the_manifest_changes_with_everything_that_training_sees_and_with_nothing_else() -> None:
    one = example("a", picture(1), "x", "y")
    other = example("b", picture(2))
    manifest = look([one, other]).manifest
    changed = [
        dataclasses.replace(one, id="c"),
        dataclasses.replace(one, image=BytesImage(picture(3))),
        dataclasses.replace(one, captions=("x", "z")),
        dataclasses.replace(one, captions=("y", "x")),
        dataclasses.replace(one, captions=("x",)),
        dataclasses.replace(one, weight=2.0),
        dataclasses.replace(one, repeats=2),
        dataclasses.replace(one, role="class"),
    ]
    manifests = {look([item, other]).manifest for item in changed}
    assert len(manifests) == len(changed)
    assert manifest not in manifests
    assert look([other]).manifest != manifest
    assert look([other, one], left_out=[LeftOut("z", "why")]).manifest == manifest
    assert look([other, one, example("bad", b"")], LEAVE_OUT).manifest == manifest
    assert look([one, other], ImageConfig(resolution=32, bucket_step=16)).manifest == manifest


# -------------------------------------------------------------------------------------------------------- writing
def test_the_written_ledger_has_a_line_per_file_and_is_always_the_same(tmp_path: Path) -> None:
    examples = [example("b ü.png", picture(1)), example("bad", b"")]
    ledger = look(examples, LEAVE_OUT, left_out=[LeftOut("c", "no caption")])
    write_ledger(tmp_path / "one.jsonl", ledger)
    write_ledger(tmp_path / "two.jsonl", ledger)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["b ü.png", "bad", "c"]
    assert lines[0]["crop"] == list(ledger.rows[0].crop or ())
    assert lines[1]["reason"] == "is empty: the file has 0 bytes"


def test_names_that_are_no_utf_8_are_written_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(picture(1))
    ledger = look([example(name, FileImage(tmp_path / name))])
    write_ledger(tmp_path / "ledger.jsonl", ledger)
    assert json.loads((tmp_path / "ledger.jsonl").read_text(encoding="utf-8"))["id"] == name
    assert len(ledger.manifest) == 64
    with pytest.raises(UserError) as caught:
        look([example(name, b"")])
    assert "caf\\udce9.png: is empty" in str(caught.value)
    str(caught.value).encode("utf-8")


def test_a_survey_of_real_photos_loses_none(data_root: Path, tmp_path: Path) -> None:
    paths = sorted((data_root / "flickr8k" / "Images").glob("*.jpg"))[:60]
    ledger = look([example(path.name, FileImage(path)) for path in paths], ImageConfig(resolution=256), cache=tmp_path)
    assert len(ledger.prepared) == len(ledger.rows) == 60
    assert all(one.used and one.near_group is None and one.enlarged == 1.0 for one in ledger.rows)

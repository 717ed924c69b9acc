"""One caption per line: the n-th line belongs to the n-th picture, or the run stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.data.captions_file import CaptionsFile
from limner.data.example import Reading


def make(root: Path, images: list[str], text: str | bytes, name: str = "captions.txt") -> Path:
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"x")
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def captions(reading: Reading) -> dict[str, str]:
    return {example.id: caption for example in reading.examples for caption in example.captions}


def test_line_n_belongs_to_the_nth_picture_with_2_before_10(tmp_path: Path) -> None:
    make(tmp_path, ["10.jpg", "2.jpg", "1.jpg"], "one\ntwo\nten\n")
    reading = CaptionsFile(path=tmp_path).read()
    assert captions(reading) == {"1.jpg": "one", "2.jpg": "two", "10.jpg": "ten"}
    assert reading.left_out == ()
    assert reading.notes == (
        "Line 1 ('one') belongs to 1.jpg, line 3 to 10.jpg.",
        "Pictures are counted 2 before 10: line 2 is 2.jpg, in alphabetical order 10.jpg.",
    )


def test_where_both_orders_agree_nothing_is_said_about_order(tmp_path: Path) -> None:
    make(tmp_path, ["images/01.jpg", "images/02.jpg"], "one\r\ntwo\r\n\r\n")
    reading = CaptionsFile(path=tmp_path).read()
    assert captions(reading) == {"images/01.jpg": "one", "images/02.jpg": "two"}
    assert reading.notes == ("Line 1 ('one') belongs to images/01.jpg, line 2 to images/02.jpg.",)


def test_the_captions_may_lie_beside_the_folder_or_be_named(tmp_path: Path) -> None:
    make(tmp_path, ["images/1.jpg"], "one")
    make(tmp_path, [], "another", name="b.txt")
    assert captions(CaptionsFile(path=tmp_path / "images").read()) == {"1.jpg": "one"}
    named = CaptionsFile(path=tmp_path / "images", captions=Path("../b.txt"))
    assert captions(named.read()) == {"1.jpg": "another"}


def test_too_few_lines_name_the_pictures_without_one(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], "one\n")
    with pytest.raises(UserError, match=r"has 1 line for 3 pictures .*Without a partner: 2\.jpg, 3\.jpg\."):
        CaptionsFile(path=tmp_path).read()


def test_too_many_lines_are_shown(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg"], "one\ntwo\n")
    with pytest.raises(UserError, match=r"has 2 lines for 1 picture .*line 2 \('two'\)"):
        CaptionsFile(path=tmp_path).read()


def test_a_picture_that_cannot_be_read_is_named_when_the_counts_differ(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg", "2.heic"], "one\ntwo\n")
    with pytest.raises(UserError, match=r"1 \.heic file left out: convert"):
        CaptionsFile(path=tmp_path).read()


def test_a_blank_line_in_the_middle_stops_the_run(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], "one\n \nthree\n")
    with pytest.raises(UserError, match=r"captions\.txt:2: is a blank line"):
        CaptionsFile(path=tmp_path).read()


@pytest.mark.parametrize(
    "text", ["1.jpg,one\n2.jpg,two", "1.JPG\tone\n2.jpg\ttwo", "image,caption\none", "x\n2.jpg two"]
)
def test_lines_that_name_their_picture_are_not_taken_for_captions(tmp_path: Path, text: str) -> None:
    make(tmp_path, ["1.jpg", "2.jpg"], text)
    with pytest.raises(UserError, match=r"captions\.txt:\d: begins with the name of a picture or a column"):
        CaptionsFile(path=tmp_path).read()


def test_pictures_in_several_folders_have_no_nth_picture(tmp_path: Path) -> None:
    make(tmp_path, ["a/1.jpg", "b/1.jpg"], "one\ntwo\n")
    with pytest.raises(UserError, match="pictures in 2 folders, so the n-th picture is not well defined: a/, b/"):
        CaptionsFile(path=tmp_path).read()


def test_captions_of_another_layout_in_the_folder_stop_the_run(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg"], "one")
    (tmp_path / "1.txt").write_text("another", encoding="utf-8")
    with pytest.raises(UserError, match=r"1 picture .* have captions beside them \(1\.txt\).*captions\.txt is read"):
        CaptionsFile(path=tmp_path).read()


def test_no_captions_or_two_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"dataset\.captions: found no text file with captions"):
        CaptionsFile(path=tmp_path / "images").read()
    with pytest.raises(UserError, match=r"none\.txt: is no file"):
        CaptionsFile(path=tmp_path / "images", captions=Path("none.txt")).read()
    make(tmp_path, [], "one")
    make(tmp_path / "images", [], "one")
    with pytest.raises(UserError, match="there are two"):
        CaptionsFile(path=tmp_path / "images").read()


def test_a_link_to_captions_outside_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, ["photos/data/1.jpg"], "one", name="secret.txt")
    (tmp_path / "photos/data/captions.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"captions\.txt is a link that leads out of the folder"):
        CaptionsFile(path=tmp_path / "photos/data").read()
    named = CaptionsFile(path=tmp_path / "photos/data", captions=Path("../../secret.txt"))
    assert captions(named.read()) == {"1.jpg": "one"}


def test_latin_1_stops_the_run(tmp_path: Path) -> None:
    make(tmp_path, ["1.jpg"], b"caf\xe9")
    with pytest.raises(UserError, match="is not UTF-8"):
        CaptionsFile(path=tmp_path).read()


def test_the_folder_of_24_photos_is_read(data_root: Path) -> None:
    reading = CaptionsFile(path=data_root / "custom_folder").read()
    lines = (data_root / "custom_folder" / "captions.txt").read_text(encoding="utf-8").splitlines()
    assert [example.id for example in reading.examples] == [f"images/{n:04}.jpg" for n in range(1, 25)]
    assert [example.captions for example in reading.examples] == [(" ".join(line.split()),) for line in lines]

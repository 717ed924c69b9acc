"""Text files of other people: every fault with its place, and nothing guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.data.text import first_few, one_line, read_csv, read_lines, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("ein Hündchen 🐕".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "ein Hündchen 🐕"


def test_latin_1_is_refused_with_its_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a dog\na caf\xe9\n")
    with pytest.raises(UserError, match=r"a\.txt:2: is not UTF-8 text: byte 11 is 0xe9\. Save it as UTF-8"):
        read_text(path)


def test_a_cut_utf_16_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a dog".encode("utf-16") + b"x")
    with pytest.raises(UserError, match="is not UTF-16 text"):
        read_text(tmp_path / "a.txt")


def test_a_nul_byte_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a dog\na \0 cat\n")
    with pytest.raises(UserError, match=r"a\.txt:2: has a NUL byte"):
        read_text(tmp_path / "a.txt")


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1_000_001)
    with pytest.raises(UserError, match="larger than 1 MB"):
        read_text(tmp_path / "a.txt", limit=1_000_000)


def test_a_folder_is_no_text_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file"):
        read_text(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_give_the_same_lines(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(end.join(["one", "", "three", "", ""]).encode())
    assert read_lines(tmp_path / "a.txt") == ["one", "", "three"]


def test_a_line_separator_inside_a_caption_is_no_line_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\u2028still one\x0b\ntwo", encoding="utf-8")
    assert len(read_lines(tmp_path / "a.txt")) == 2


def test_csv_rows_carry_the_line_on_which_they_begin(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'image, caption\r\na.jpg,"a ""big"" dog,\r\nrunning"\r\n\r\nb.jpg,a 2" nail\r\n')
    header, rows = read_csv(tmp_path / "a.csv")
    assert header == ["image", "caption"]
    assert rows == [(2, ["a.jpg", 'a "big" dog,\nrunning']), (5, ["b.jpg", 'a 2" nail'])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"open\n2,x\n', r"a\.csv:2: the row that begins here is broken: unexpected end of data"),
        ('a,b\n1,x\n2,"open" y\n', r"a\.csv:3: the row that begins here is broken"),
        ("a,b\n1,x\n2,x,y\n", r"a\.csv:3: has 3 fields, and the header has 2"),
        ("a,b\n1\n", r"a\.csv:2: has 1 fields"),
        ("a,b\n1," + "x" * 200_000, r"a\.csv:2: .*field larger than field limit"),
        ("", r"a\.csv: is empty"),
    ],
)
def test_a_broken_csv_row_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "a.csv")


def test_one_line_collapses_every_blank() -> None:
    assert one_line(" a\tdog \u00a0\n runs ") == "a dog runs"


def test_names_in_messages_are_few_and_printable() -> None:
    assert first_few(["a.jpg", "b\n.jpg", "c.jpg", "d.jpg"]) == r"a.jpg, 'b\n.jpg', c.jpg and 1 more"

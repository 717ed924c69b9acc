"""Tables of file names and captions, and pictures inside parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limner.core.errors import UserError
from limner.data.example import Reading
from limner.data.table import Table


def make(root: Path, images: list[str], rows: list[Any], name: str = "metadata.jsonl") -> Path:
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"x")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines), encoding="utf-8")
    return root


def row(name: str, text: object, column: str = "text") -> dict[str, object]:
    return {"file_name": name, column: text}


def captions(reading: Reading) -> dict[str, tuple[str, ...]]:
    return {example.id: example.captions for example in reading.examples}


def left_out(reading: Reading) -> dict[str, str]:
    return {row.id: row.reason for row in reading.left_out}


def test_json_lines_give_each_picture_its_captions(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "s/b.jpg"], [row("s/b.jpg", ["one", "", "two"]), "", row("./a.jpg", "a  dog\n")])
    reading = Table(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ("a dog",), "s/b.jpg": ("one", "two")}
    assert (reading.layout, reading.left_out, reading.notes) == ("table metadata.jsonl", (), ())


def test_csv_with_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], ['\ufefffile_name,prompt\r\na.jpg,"a ""dog"", running"'], name="metadata.csv")
    assert captions(Table(path=tmp_path).read()) == {"a.jpg": ('a "dog", running',)}


def test_parquet_with_file_names(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    make(tmp_path, ["a.jpg", "b.jpg"], [])
    (tmp_path / "metadata.jsonl").unlink()
    table = arrow.table({"file_name": ["b.jpg", "a.jpg"], "captions": [["x", "y"], ["z"]]})
    parquet.write_table(table, tmp_path / "metadata.parquet")
    assert captions(Table(path=tmp_path).read()) == {"a.jpg": ("z",), "b.jpg": ("x", "y")}


def test_rows_of_the_same_picture_are_its_captions_and_that_is_said(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], [row("a.jpg", "one"), row("a.jpg", "two")])
    reading = Table(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ("one", "two")}
    assert reading.notes == (
        "metadata.jsonl names pictures more than once, 2 rows for 1 picture; each of their captions is used.",
    )


def test_file_names_are_relative_to_the_table(tmp_path: Path) -> None:
    make(tmp_path, ["images/a.jpg"], [row("../images/a.jpg", "x")], name="notes/list.jsonl")
    assert captions(Table(path=tmp_path, file="notes/list.jsonl").read()) == {"images/a.jpg": ("x",)}


def test_a_missing_picture_stops_the_run(tmp_path: Path) -> None:
    rows = [row("a.jpg", "x"), row("b.jpg", "x"), row("A.JPG", "x"), row("https://x.org/c.jpg", "x"), row("n.md", "x")]
    make(tmp_path, ["a.jpg", "n.md"], rows)
    with pytest.raises(UserError, match=r"4 pictures of 5 cannot be used\. b\.jpg: it is not there \(.*:2\)"):
        Table(path=tmp_path).read()
    reading = Table(path=tmp_path, missing="leave_out").read()
    assert list(captions(reading)) == ["a.jpg"]
    reasons = {id: reason.partition(" (")[0] for id, reason in left_out(reading).items()}
    assert reasons == {
        "A.JPG": "it is not there, but a.jpg is",
        "b.jpg": "it is not there",
        "https:/x.org/c.jpg": "it is a web address; download it",
        "n.md": "it is no picture",
    }
    assert len(reading.left_out) == 4
    assert "4 pictures left out (b.jpg: it is not there" in reading.notes[0]


def test_leaving_out_every_row_stops_the_run(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], [row("b.jpg", "x")])
    with pytest.raises(UserError, match="1 picture of 1 cannot be used"):
        Table(path=tmp_path, missing="leave_out").read()


def test_a_picture_that_the_table_does_not_name_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.jpg", "note.md"], [row("a.jpg", "x")])
    reading = Table(path=tmp_path).read()
    assert left_out(reading) == {"b.jpg": "the table does not name it", "note.md": "not a picture"}
    assert reading.notes == ("1 picture left out, the table does not name them (b.jpg).",)


@pytest.mark.parametrize("name", ["../secret.jpg", "../../etc/passwd", "/etc/passwd", r"..\secret.jpg", r"C:\a.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    make(tmp_path / "data", ["a.jpg"], [row("a.jpg", "x"), row(name, "x")])
    with pytest.raises(UserError, match=r"metadata\.jsonl:2: the file name .* leads out of the data set's folder"):
        Table(path=tmp_path / "data", missing="leave_out").read()


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    make(tmp_path / "data", [], [row("link.jpg", "x")])
    (tmp_path / "data/link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"link\.jpg: a link that leads out of the data set's folder"):
        Table(path=tmp_path / "data").read()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a.jpg", "text": "x"', r"jsonl:2: is not valid JSON: Expecting ',' delimiter"),
        ('["a.jpg", "x"]', "jsonl:2: holds a list, no JSON object"),
        ("[" * 100_000, "jsonl:2: is not valid JSON"),
        ('{"file_name": "a.jpg", "text": ' + "1" * 5000 + "}", "jsonl:2: is not valid JSON"),
        ('{"text": "x"}', "jsonl:2: has no file_name"),
        ('{"file_name": ["a.jpg"], "text": "x"}', "jsonl:2: has no file_name"),
        ('{"file_name": "a.jpg", "text": 7}', "jsonl:2: the caption is no text but int: 7"),
        ('{"file_name": "a.jpg", "text": {"en": "x"}}', "jsonl:2: the caption is no text but dict"),
        (r'{"file_name": "a.jpg", "text": "\u0000"}', "jsonl:2: the caption has characters that are no text"),
        (r'{"file_name": "a.jpg", "text": "\ud800"}', "jsonl:2: the caption has characters that are no text"),
    ],
)
def test_a_broken_row_stops_the_run_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    make(tmp_path, ["a.jpg"], [row("a.jpg", "x"), line])
    with pytest.raises(UserError, match=message):
        Table(path=tmp_path).read()


@pytest.mark.parametrize("text", [None, "", "  ", []])
def test_an_empty_caption_goes_where_the_config_says(tmp_path: Path, text: object) -> None:
    make(tmp_path, ["a.jpg", "b.jpg"], [row("a.jpg", "x"), row("b.jpg", text)])
    with pytest.raises(UserError, match=r"dataset\.column: 1 picture without a caption: b\.jpg"):
        Table(path=tmp_path).read()
    assert left_out(Table(path=tmp_path, uncaptioned="leave_out").read()) == {"b.jpg": "it has no caption"}
    assert captions(Table(path=tmp_path, uncaptioned="empty").read()) == {"a.jpg": ("x",), "b.jpg": ("",)}


def test_a_column_that_is_not_there_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], [{"file_name": "a.jpg", "Texts": "x", "size": 3}])
    with pytest.raises(UserError, match=r"has no column text, caption, .* It has: Texts, size\."):
        Table(path=tmp_path).read()
    with pytest.raises(UserError, match=r"has no column 'text'\. Did you mean 'Texts'\?"):
        Table(path=tmp_path, column="text").read()
    assert captions(Table(path=tmp_path, column="Texts").read()) == {"a.jpg": ("x",)}


def test_two_columns_of_captions_must_be_told_apart(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], [{"file_name": "a.jpg", "text": "x", "prompt": "y"}])
    with pytest.raises(UserError, match="several columns that may be the captions: text, prompt"):
        Table(path=tmp_path).read()
    assert captions(Table(path=tmp_path, column="prompt").read()) == {"a.jpg": ("y",)}


def test_a_table_without_file_names_is_refused(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], ["filename;text", "a.jpg;x"], name="metadata.csv")
    with pytest.raises(UserError, match=r"has no column file_name.*filename;text.* separated by commas"):
        Table(path=tmp_path).read()
    make(tmp_path, ["a.jpg"], ["file_name,text,text", "a.jpg,x,y"], name="metadata.csv")
    with pytest.raises(UserError, match="has a column twice"):
        Table(path=tmp_path).read()
    make(tmp_path, ["a.jpg"], ["file_name,text"], name="metadata.csv")
    with pytest.raises(UserError, match="has no rows"):
        Table(path=tmp_path).read()


@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonlines", "meta_data.jsonl", "Metadata.jsonl"])
def test_a_misspelt_table_is_pointed_out(tmp_path: Path, name: str) -> None:
    make(tmp_path, ["a.jpg"], [row("a.jpg", "x")], name=name)
    with pytest.raises(UserError, match=rf"There is {name}\. Rename it to metadata\.jsonl"):
        Table(path=tmp_path).read()


def test_a_table_in_a_folder_below_is_pointed_out(tmp_path: Path) -> None:
    make(tmp_path, ["train/a.jpg"], [row("a.jpg", "x")], name="train/metadata.jsonl")
    with pytest.raises(UserError, match=r"There is train/metadata\.jsonl\. Set dataset\.path to that folder"):
        Table(path=tmp_path).read()
    assert captions(Table(path=tmp_path / "train").read()) == {"a.jpg": ("x",)}


def test_which_table_must_be_clear(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"], [row("a.jpg", "x")])
    make(tmp_path, [], ["file_name,text", "a.jpg,y"], name="metadata.csv")
    with pytest.raises(UserError, match=r"found several tables: metadata\.csv, metadata\.jsonl"):
        Table(path=tmp_path).read()
    assert captions(Table(path=tmp_path, file="metadata.csv").read()) == {"a.jpg": ("y",)}
    with pytest.raises(UserError, match=r"has no 'metadata\.csvv'\. Did you mean 'metadata\.csv'\?"):
        Table(path=tmp_path, file="metadata.csvv").read()
    with pytest.raises(UserError, match=r"a\.md: a table ends in \.jsonl, \.csv, \.parquet"):
        Table(path=make(tmp_path, ["a.md"], [], name="b.jsonl"), file="a.md").read()
    with pytest.raises(UserError, match=r"has no '\.\./x\.csv'"):
        Table(path=tmp_path, file="../x.csv").read()
    with pytest.raises(UserError, match=r"metadata\.csv holds no pictures"):
        Table(path=tmp_path, file="metadata.csv", image_column="img").read()


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    arrays = {
        name: arrow.array(values, type=picture if name in ("image", "mask") else None)
        for name, values in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(arrays), path)


def picture(data: bytes | None) -> dict[str, object]:
    return {"bytes": data, "path": "x.png"}


def test_pictures_inside_parquet_files(tmp_path: Path) -> None:
    for number in range(2):
        columns = {"image": [picture(b"%d" % n) for n in range(300)], "text": [f"{number} {n}" for n in range(300)]}
        write_parquet(tmp_path / f"data/train-0000{number}-of-00002.parquet", columns)
    reading = Table(path=tmp_path).read()
    assert len(reading.examples) == 600
    last = reading.examples[-1]
    assert (last.id, last.image.read(), last.captions) == ("data/train-00001-of-00002.parquet#299", b"299", ("1 299",))


def test_a_row_without_a_picture_is_missing(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "a.parquet", {"image": [picture(b"x"), None, picture(None), picture(b"")], "text": ["a"] * 4}
    )
    with pytest.raises(UserError, match=r"3 pictures of 4 cannot be used\. a\.parquet#1: column image holds no bytes"):
        Table(path=tmp_path).read()
    assert list(captions(Table(path=tmp_path, missing="leave_out").read())) == ["a.parquet#0"]


def test_which_parquet_files_and_columns_must_be_clear(tmp_path: Path) -> None:
    columns = {"image": [picture(b"x")], "mask": [picture(b"y")], "text": ["a"]}
    write_parquet(tmp_path / "train-0.parquet", columns)
    write_parquet(tmp_path / "test-0.parquet", columns)
    with pytest.raises(UserError, match=r"parquet files of several splits: test, train\. Name one, as in train-\*"):
        Table(path=tmp_path).read()
    with pytest.raises(UserError, match="several columns of pictures: image, mask"):
        Table(path=tmp_path, file="train-*.parquet").read()
    with pytest.raises(UserError, match=r"no pictures in 'masks'\. Did you mean 'mask'\?"):
        Table(path=tmp_path, file="train-*.parquet", image_column="masks").read()
    reading = Table(path=tmp_path, file="train-*.parquet", image_column="mask").read()
    assert reading.examples[0].image.read() == b"y"


def test_parquet_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", {"image": [picture(b"x")], "text": ["a"]})
    write_parquet(tmp_path / "train-1.parquet", {"image": [picture(b"x")], "caption": ["a"]})
    with pytest.raises(UserError, match=r"train-1\.parquet lacks the columns image and text"):
        Table(path=tmp_path).read()


def test_an_empty_parquet_file_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [], "text": []})
    with pytest.raises(UserError, match="has no rows"):
        Table(path=tmp_path).read()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: is no parquet file that can be read"):
        Table(path=tmp_path).read()


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "limner\[parquet\]"'):
        Table(path=tmp_path).read()

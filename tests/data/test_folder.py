"""An image folder: captions beside the pictures are used, or the run stops and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from limner.core.config import Config, validate
from limner.core.errors import ConfigError, UserError
from limner.data import DatasetConfig
from limner.data.example import Reading
from limner.data.folder import Folder


class Recipe(Config):
    """As much of a recipe as holds a data set."""

    dataset: DatasetConfig
    """The data set."""


def put(folder: Path, **texts: str) -> Path:
    """Writes files; a name's double underscore is its dot."""
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def captions(reading: Reading) -> dict[str, tuple[str, ...]]:
    return {example.id: example.captions for example in reading.examples}


def test_each_picture_has_the_caption_beside_it(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a  dog\n", b__PNG="", b__caption="\ufeffa cat")
    (tmp_path / "sub").mkdir()
    put(tmp_path / "sub", a__jpg="", a__TXT="another dog")
    reading = Folder(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ("a dog",), "b.PNG": ("a cat",), "sub/a.jpg": ("another dog",)}
    assert reading.examples[0].image.read() == b""
    assert (reading.left_out, reading.notes) == ((), ())
    assert reading.layout == "image folder, captions beside the pictures"


def test_a_picture_without_a_caption_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog", b__jpg="", c__jpg="", c__txt=" \n")
    with pytest.raises(
        UserError, match=r"2 of 3 pictures .* have no caption: b\.jpg, c\.jpg \(.*empty: c\.jpg\)"
    ) as caught:
        Folder(path=tmp_path).read()
    assert "dataset.uncaptioned" in caught.value.fix


def test_pictures_without_a_caption_are_left_out_when_asked(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog", b__jpg="", c__jpg="", c__txt="")
    reading = Folder(path=tmp_path, uncaptioned="leave_out").read()
    assert captions(reading) == {"a.jpg": ("a dog",)}
    assert [(row.id, row.reason) for row in reading.left_out] == [
        (id, "it has no caption") for id in ("b.jpg", "c.jpg")
    ]
    assert reading.notes == ("2 pictures without a caption: left out (b.jpg, c.jpg).",)


def test_leaving_out_every_picture_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="")
    with pytest.raises(UserError, match=r"1 of 1 picture .* has no caption"):
        Folder(path=tmp_path, uncaptioned="leave_out").read()


def test_empty_captions_must_be_asked_for(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", b__jpg="", b__txt="a cat")
    reading = Folder(path=tmp_path, uncaptioned="empty").read()
    assert captions(reading) == {"a.jpg": ("",), "b.jpg": ("a cat",)}
    assert reading.notes == ("1 picture without a caption: used with an empty caption (a.jpg).",)


def test_one_caption_for_all(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", b__jpg="", notes__docx="")
    reading = Folder(path=tmp_path, caption=" a photo\tof sks ").read()
    assert captions(reading) == {"a.jpg": ("a photo of sks",), "b.jpg": ("a photo of sks",)}
    assert [(row.id, row.reason) for row in reading.left_out] == [("notes.docx", "not a picture")]


@pytest.mark.parametrize(
    "name", ["a.txt", "a.caption", "metadata.jsonl", "metadata.json", "captions.txt", "results.csv"]
)
def test_captions_that_would_not_be_used_stop_the_run(tmp_path: Path, name: str) -> None:
    put(tmp_path, a__jpg="")
    (tmp_path / name).write_text("a dog", encoding="utf-8")
    with pytest.raises(UserError, match=r"dataset\.caption: .*they are not used: caption is 'x'"):
        Folder(path=tmp_path, caption="x").read()
    reading = Folder(path=tmp_path, caption="x", ignore_sidecars=True).read()
    assert captions(reading) == {"a.jpg": ("x",)}
    assert [row.id for row in reading.left_out] == [name]


@pytest.mark.parametrize("name", ["captions.txt", "metadata.csv", "sub/metadata.jsonl", "Flickr8k.token.txt"])
def test_a_captions_file_of_another_layout_stops_the_run(tmp_path: Path, name: str) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a dog", encoding="utf-8")
    with pytest.raises(UserError, match=rf"dataset\.kind: .*holds captions in {name}, and kind: folder does not read"):
        Folder(path=tmp_path).read()


def test_a_sidecar_named_captions_is_a_sidecar(tmp_path: Path) -> None:
    put(tmp_path, captions__jpg="", captions__txt="a page of captions")
    assert captions(Folder(path=tmp_path).read()) == {"captions.jpg": ("a page of captions",)}


def test_no_captions_at_all_must_be_asked_for_by_name(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog")
    reading = Folder(path=tmp_path, ignore_sidecars=True, uncaptioned="empty").read()
    assert captions(reading) == {"a.jpg": ("",)}
    assert reading.layout == "image folder, no captions"


def test_a_caption_without_a_picture_has_a_row(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog", b__txt="a cat")
    assert [row.id for row in Folder(path=tmp_path).read().left_out] == ["b.txt"]


def test_two_captions_for_one_picture_stop_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog", a__caption="a cat")
    with pytest.raises(UserError, match=r"'a\.jpg' has several caption files: a\.caption, a\.txt"):
        Folder(path=tmp_path).read()


def test_two_pictures_for_one_caption_stop_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__png="", a__txt="a dog")
    with pytest.raises(UserError, match=r"'a\.txt' stands beside two pictures of that name, a\.jpg and a\.png"):
        Folder(path=tmp_path).read()


def test_a_caption_named_after_the_whole_file_name_is_pointed_out(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__jpg__txt="a dog")
    with pytest.raises(UserError, match=r"a\.jpg\.txt is there: name it a\.txt"):
        Folder(path=tmp_path).read()


def test_several_lines_are_one_caption_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="", a__txt="a dog\r\n\r\na brown dog\n", b__jpg="", b__txt="a cat\n")
    reading = Folder(path=tmp_path).read()
    assert captions(reading)["a.jpg"] == ("a dog a brown dog",)
    assert "1 caption file of several lines, each read as one caption (a.txt)" in reading.notes[0]
    each = Folder(path=tmp_path, caption_lines="each").read()
    assert captions(each) == {"a.jpg": ("a dog", "a brown dog"), "b.jpg": ("a cat",)}
    assert each.notes == ()


def test_a_caption_in_another_encoding_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"a\.txt:1: is not UTF-8"):
        Folder(path=tmp_path).read()


def test_a_gigantic_caption_file_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path, a__jpg="")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(2_000_000)
    with pytest.raises(UserError, match=r"a\.txt: is larger than 1 MB"):
        Folder(path=tmp_path).read()


def test_a_caption_behind_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    put(tmp_path, secret__txt="my password")
    put(tmp_path / "photos", a__jpg="")
    (tmp_path / "photos/a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"1 of 1 picture .* has no caption"):
        Folder(path=tmp_path / "photos").read()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"caption": " "}, "caption is empty"),
        ({"caption": "x", "uncaptioned": "empty"}, "uncaptioned: empty does nothing where caption is set"),
        ({"caption": "x", "caption_lines": "each"}, "caption_lines: each does nothing where caption is set"),
        ({"ignore_sidecars": True}, "ignore_sidecars leaves no caption"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Folder.model_validate({"path": "photos", **values})


def test_a_resolved_config_with_every_default_written_out_is_accepted() -> None:
    config = Folder(path=Path("photos"), caption="x")
    assert Folder.model_validate(config.model_dump(mode="json")) == config


def test_the_union_names_the_kind_and_the_key() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.kind: 'foldr' is unknown\. Did you mean 'folder'"):
        validate(Recipe, {"dataset": {"kind": "foldr", "path": "x"}}, where="recipe")
    values = {"kind": "folder", "path": "x", "caption": "y", "caption_lines": "each"}
    with pytest.raises(ConfigError, match=r"dataset: caption_lines: each does nothing"):
        validate(Recipe, {"dataset": values}, where="recipe")

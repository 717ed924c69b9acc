"""The files of a folder: the same order everywhere, nothing dropped without a row, no way out of the folder."""

from __future__ import annotations

import os
import random
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.core.errors import UserError
from limner.data.listing import id_below, list_folder, list_images, natural_key, split_suffix


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def reasons(folder: Path) -> dict[str, str]:
    return {row.id: row.reason for row in list_folder(folder).rows()}


def test_pictures_are_listed_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    put(tmp_path, "10.jpg", "2.JPG", "b/1.png", "a/11.webp", "a/9.jfif", "1.Tiff", "a b/x y.jpeg", "é.avif")
    assert list(list_folder(tmp_path).images) == [
        "1.Tiff", "2.JPG", "10.jpg", "a/9.jfif", "a/11.webp", "a b/x y.jpeg", "b/1.png", "é.avif",
    ]  # fmt: skip


@given(st.lists(st.text(alphabet="ab/01239.", min_size=1, max_size=8), unique=True))
def test_the_order_does_not_depend_on_the_order_of_the_disk(names: list[str]) -> None:
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


def test_hidden_and_system_files_are_passed_over_and_the_usual_ones_have_a_row(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/a.jpg", "@eaDir/b.jpg")
    put(tmp_path, ".ipynb_checkpoints/a-checkpoint.jpg", ".git/HEAD")
    assert list(list_folder(tmp_path).images) == ["a.jpg"]
    assert reasons(tmp_path) == dict.fromkeys((".DS_Store", "Thumbs.db", "desktop.ini"), "written by a file manager")
    assert list_folder(tmp_path).notes() == ()


def test_every_other_file_has_a_row_that_says_why(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.heic", "c.zip", "d.mp4", "e.txt", "sub/f.svg")
    assert reasons(tmp_path) == {
        "b.heic": ".heic files cannot be read; convert it to JPEG or PNG",
        "c.zip": "an archive; unpack it",
        "d.mp4": "not a picture",
        "e.txt": "a text file without a picture of the same name",
        "sub/f.svg": ".svg files cannot be read; convert it to JPEG or PNG",
    }
    assert list_folder(tmp_path).notes() == (
        "1 .heic file left out: convert to JPEG or PNG.",
        "1 .svg file left out: convert to JPEG or PNG.",
    )


def test_a_link_out_of_the_folder_is_left_out_with_a_row(tmp_path: Path) -> None:
    put(tmp_path, "secret.jpg", "photos/a.jpg")
    (tmp_path / "photos/out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "photos/in.jpg").symlink_to("a.jpg")
    (tmp_path / "photos/gone.jpg").symlink_to("nothing.jpg")
    (tmp_path / "photos/up").symlink_to(tmp_path)
    listing = list_folder(tmp_path / "photos")
    assert list(listing.images) == ["a.jpg", "in.jpg"]
    assert {row.id: row.reason for row in listing.rows()} == {
        "gone.jpg": "a link that leads nowhere",
        "out.jpg": "a link that leads out of the data set's folder; copy the file instead",
        "up": "a link to a folder; links to folders are not followed",
    }
    assert listing.notes() == ("3 files left out, gone.jpg: a link that leads nowhere.",)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "x.jpg").symlink_to("y.jpg")
    (tmp_path / "y.jpg").symlink_to("x.jpg")
    assert list(list_folder(tmp_path).images) == ["a.jpg"]
    assert reasons(tmp_path)["x.jpg"] == "a link that leads nowhere"
    with pytest.raises(UserError, match="cannot be opened"):
        list_folder(tmp_path / "x.jpg")


def test_a_pipe_is_left_out_and_not_opened(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reasons(tmp_path) == {"pipe.jpg": "no regular file"}


def test_ids_have_one_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Hündchen.jpg")
    put(tmp_path, decomposed)
    listing = list_folder(tmp_path)
    assert list(listing.images) == ["Hündchen.jpg"]
    assert listing.images["Hündchen.jpg"].read_bytes() == b"x"


def test_two_names_that_differ_only_in_unicode_form_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "é.jpg", unicodedata.normalize("NFD", "é.jpg"))
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system keeps one Unicode form")
    with pytest.raises(UserError, match="different Unicode forms"):
        list_folder(tmp_path)


def test_a_name_that_is_no_utf_8_has_an_id_that_can_be_written(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as file:  # noqa: PTH123  (pathlib has no byte names)
        file.write(b"x")
    ((id, found),) = list_folder(tmp_path).images.items()
    assert id.encode() == rb"caf\xe9.jpg"
    assert found.read_bytes() == b"x"


def test_names_with_line_ends_and_quotes_are_listed(tmp_path: Path) -> None:
    put(tmp_path, 'a\n"b".jpg')
    assert list(list_folder(tmp_path).images) == ['a\n"b".jpg']


def test_a_missing_folder_is_refused_with_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"dataset\.path: '.*photo' does not exist\. Did you mean '.*photos'\?"):
        list_folder(tmp_path / "photo")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "photos.zip")
    with pytest.raises(UserError, match=r"is a file, not a folder\. Name the folder"):
        list_folder(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="Unpack it"):
        list_folder(tmp_path / "photos.zip")


def test_an_impossible_path_is_refused(tmp_path: Path) -> None:
    for path in (Path("a\0b"), Path("~nobody-of-this-name/photos")):
        with pytest.raises(UserError, match="cannot be opened"):
            list_folder(path)


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no images\. Looked for \.jpg, .* The folder is empty\. Put images there"):
        list_images(tmp_path)
    put(tmp_path, "Thumbs.db", "a.docx")
    with pytest.raises(UserError, match=r"Found a\.docx"):
        list_images(tmp_path)
    put(tmp_path, "a.heic")
    with pytest.raises(UserError, match=r"1 \.heic file left out: convert"):
        list_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_stops(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(UserError, match="cannot be listed: Permission denied"):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("folder", "name", "id"),
    [
        ("", "a.jpg", "a.jpg"),
        ("", "./a//b.jpg", "a/b.jpg"),
        ("", r"sub\a.jpg", "sub/a.jpg"),
        ("train", "a.jpg", "train/a.jpg"),
        ("train", "../images/a.jpg", "images/a.jpg"),
        ("", "a/../b.jpg", "b.jpg"),
        ("", unicodedata.normalize("NFD", "é.jpg"), "é.jpg"),
        ("", "../a.jpg", None),
        ("train", "../../../etc/passwd", None),
        ("", "/etc/passwd", None),
        ("", r"C:\a.jpg", None),
        ("", r"\\server\a.jpg", None),
        ("", "a\0.jpg", None),
    ],
)
def test_a_name_found_in_a_file_stays_below_the_root(folder: str, name: str, id: str | None) -> None:
    assert id_below(folder, name) == id


@given(st.text(alphabet="ab./\\:", max_size=20), st.sampled_from(["", "x", "x/y"]))
def test_no_name_leads_out_of_the_root(name: str, folder: str) -> None:
    id = id_below(folder, name)
    assert id is None or not (id.startswith("/") or ".." in id.split("/"))


def test_suffixes_are_those_of_the_file_not_of_its_folder() -> None:
    assert split_suffix("a.b/c") == ("a.b/c", "")
    assert split_suffix("a.b/c.tar.GZ") == ("a.b/c.tar", ".gz")
    assert split_suffix("a/.hidden") == ("a/.hidden", "")


def test_eight_thousand_pictures_are_listed_within_a_second(tmp_path: Path) -> None:
    for number in range(8000):
        (tmp_path / f"{number}.jpg").touch()
    start = time.process_time()
    assert len(list_images(tmp_path).images) == 8000
    assert time.process_time() - start < 1

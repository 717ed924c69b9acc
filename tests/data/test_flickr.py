"""Flickr8k and Flickr30k in the layouts in which they are passed on."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.data.example import Reading
from limner.data.flickr import Flickr8k, Flickr30k

KAGGLE_8K = 'image,caption\na.jpg,A dog runs .\na.jpg,"A ""big"" dog , running"\nb.jpg,A cat .\n'
TOKEN_8K = "a.jpg#0\tA dog runs .\na.jpg#1\tA dog , running\nb.jpg#0\tA cat .\n"
RESULTS = 'image_name| comment_number| comment\na.jpg| 0| A "dog" runs\na.jpg| 1| 3 | 4 dogs\nb.jpg| 0   A cat .\n'


def make(root: Path, files: dict[str, str], images: tuple[str, ...] = ()) -> Path:
    for name, text in {**files, **dict.fromkeys(images, "x")}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def captions(reading: Reading) -> dict[str, tuple[str, ...]]:
    return {example.id: example.captions for example in reading.examples}


def left_out(reading: Reading) -> dict[str, str]:
    return {row.id: row.reason for row in reading.left_out}


@pytest.mark.parametrize("folder", ["Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Images/Images", "."])
def test_kaggle_layout_with_quotes_and_every_image_folder(tmp_path: Path, folder: str) -> None:
    make(tmp_path, {"captions.txt": KAGGLE_8K}, (f"{folder}/a.jpg", f"{folder}/b.jpg"))
    reading = Flickr8k(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ("A dog runs .", 'A "big" dog , running'), "b.jpg": ("A cat .",)}
    assert reading.layout == "Flickr8k, Kaggle layout"
    assert reading.notes == ()


@pytest.mark.parametrize("place", ["Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt"])
def test_original_layout(tmp_path: Path, place: str) -> None:
    make(tmp_path, {place: TOKEN_8K}, ("Flicker8k_Dataset/a.jpg", "Flicker8k_Dataset/b.jpg"))
    reading = Flickr8k(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ("A dog runs .", "A dog , running"), "b.jpg": ("A cat .",)}
    assert reading.layout == "Flickr8k, original layout"


def test_where_both_caption_files_are_there_the_choice_is_said(tmp_path: Path) -> None:
    make(tmp_path, {"captions.txt": KAGGLE_8K, "Flickr8k.token.txt": TOKEN_8K}, ("Images/a.jpg",))
    assert "Captions are read from captions.txt; Flickr8k.token.txt is there too and not read." in (
        Flickr8k(path=tmp_path).read().notes
    )


def test_what_has_no_partner_has_a_row_and_a_note(tmp_path: Path) -> None:
    make(tmp_path, {"captions.txt": KAGGLE_8K, "Images/readme.md": ""}, ("Images/a.jpg", "Images/c.jpg"))
    reading = Flickr8k(path=tmp_path).read()
    assert left_out(reading) == {
        "c.jpg": "no caption names it",
        "b.jpg": "1 caption and no photo",
        "readme.md": "not a picture",
    }
    assert reading.notes == (
        "1 photo without a caption left out (c.jpg).",
        "1 photo of the captions not in Images: 1 caption unused.",
    )


def test_a_split_takes_only_its_photos(tmp_path: Path) -> None:
    lists = {"Flickr_8k.trainImages.txt": "a.jpg\nz.jpg\n", "Flickr8k_text/Flickr_8k.testImages.txt": "b.jpg\n"}
    make(tmp_path, {"captions.txt": KAGGLE_8K, **lists}, ("Images/a.jpg", "Images/b.jpg"))
    train = Flickr8k(path=tmp_path, split="train").read()
    assert list(captions(train)) == ["a.jpg"]
    assert left_out(train) == {"b.jpg": "it is not in the split", "z.jpg": "0 captions and no photo"}
    assert list(captions(Flickr8k(path=tmp_path, split="test").read())) == ["b.jpg"]
    with pytest.raises(UserError, match=r"dataset\.split: the list Flickr_8k\.devImages\.txt is not in"):
        Flickr8k(path=tmp_path, split="dev").read()


def test_no_match_at_all_stops_the_run(tmp_path: Path) -> None:
    make(tmp_path, {"captions.txt": KAGGLE_8K}, ("Images/x.jpg",))
    with pytest.raises(
        UserError, match=r"no photo of .*Images is named.* Photos: x\.jpg\. Captions name: a\.jpg, b\.jpg"
    ):
        Flickr8k(path=tmp_path).read()


def test_images_and_captions_can_be_named(tmp_path: Path) -> None:
    make(tmp_path, {"captions.txt": "x", "mine.txt": KAGGLE_8K}, ("Images/z.jpg", "Images_224/a.jpg"))
    named = Flickr8k(path=tmp_path, images=Path("Images_224"), captions=Path("mine.txt"))
    assert list(captions(named.read())) == ["a.jpg"]
    with pytest.raises(UserError, match=r"dataset\.images: .*Images_22' does not exist\. Did you mean .*Images_224"):
        Flickr8k(path=tmp_path, images=Path("Images_22"), captions=Path("mine.txt")).read()
    with pytest.raises(UserError, match=r"none\.txt: is no file"):
        Flickr8k(path=tmp_path, captions=Path("none.txt")).read()


def test_a_link_to_captions_outside_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, {"secret.txt": KAGGLE_8K}, ("data/Images/a.jpg",))
    (tmp_path / "data/captions.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"captions\.txt is a link that leads out of the folder"):
        Flickr8k(path=tmp_path / "data").read()


def test_no_captions_are_refused(tmp_path: Path) -> None:
    make(tmp_path, {}, ("Images/a.jpg",))
    with pytest.raises(UserError, match=r"holds no captions\. Looked for captions\.txt, Flickr8k\.token\.txt"):
        Flickr8k(path=tmp_path).read()


def test_which_folder_of_photos_must_be_clear(tmp_path: Path) -> None:
    make(tmp_path, {"captions.txt": KAGGLE_8K})
    with pytest.raises(UserError, match="has no folder of photos"):
        Flickr8k(path=tmp_path).read()
    make(tmp_path, {}, ("Images/a.jpg", "Flicker8k_Dataset/a.jpg"))
    with pytest.raises(UserError, match="photos lie in several folders"):
        Flickr8k(path=tmp_path).read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "captions.txt: is empty"),
        ("image,caption\n", "captions.txt: has a header and no rows"),
        ("A dog runs .\nA cat .\n", "begins with 'A dog runs .', which is no caption file"),
        ("image,caption\na.jpg,A dog , running\n", r"captions\.txt:2: has 3 fields"),
        ('image,caption\na.jpg,"A dog\nb.jpg,A cat\n', r"captions\.txt:2: the row that begins here is broken"),
        ("image,caption\na.jpg,x\na.jpg, \n", r"captions\.txt:3: has no caption"),
        ("image,caption\n,x\n", r"captions\.txt:2: has no file name"),
        ("a.jpg#0\tx\na.jpg#1 x\n", r"captions\.txt:2: is not name#number, a tab, a caption"),
        ("a.jpg#0\tx\n\na.jpg#1\tx\n", r"captions\.txt:2: is not name#number"),
    ],
)
def test_a_broken_caption_file_stops_the_run_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    make(tmp_path, {"captions.txt": text}, ("Images/a.jpg",))
    with pytest.raises(UserError, match=message):
        Flickr8k(path=tmp_path).read()


@pytest.mark.parametrize("place", ["results.csv", "flickr30k_images/results.csv"])
@pytest.mark.parametrize("folder", ["flickr30k_images", "flickr30k_images/flickr30k_images", "flickr30k-images"])
def test_flickr30k_with_its_bars_blanks_quotes_and_faulty_row(tmp_path: Path, place: str, folder: str) -> None:
    make(tmp_path, {place: RESULTS}, (f"{folder}/a.jpg", f"{folder}/b.jpg"))
    reading = Flickr30k(path=tmp_path).read()
    assert captions(reading) == {"a.jpg": ('A "dog" runs', "3 | 4 dogs"), "b.jpg": ("A cat .",)}
    assert reading.notes == ("results.csv: 1 row without a second | read as meant (line 4).",)


def test_flickr30k_original_layout(tmp_path: Path) -> None:
    make(tmp_path, {"results_20130124.token": TOKEN_8K}, ("flickr30k-images/a.jpg", "flickr30k-images/b.jpg"))
    assert Flickr30k(path=tmp_path).read().layout == "Flickr30k, original layout"


@pytest.mark.parametrize(
    "row", ["a.jpg", "a.jpg| A dog", "a.jpg| 4A dog", "a.jpg| x| A dog", "a.jpg| 4| ", "| 4| A dog"]
)
def test_any_other_malformed_row_stops_the_run_with_its_line(tmp_path: Path, row: str) -> None:
    make(tmp_path, {"results.csv": RESULTS + row + "\n"}, ("flickr30k_images/a.jpg",))
    with pytest.raises(UserError, match=r"results\.csv:5: (is not name\| number\| caption|has no )"):
        Flickr30k(path=tmp_path).read()


def test_real_flickr8k_in_every_form(data_root: Path) -> None:
    path = data_root / "flickr8k"
    reading = Flickr8k(path=path).read()
    assert Counter(len(example.captions) for example in reading.examples) == {5: 663}
    assert reading.left_out == ()
    original = Flickr8k(path=path, captions=Path("Flickr8k_text/Flickr8k.token.txt")).read()
    assert (len(original.examples), len(original.left_out)) == (663, 8092 - 663)
    assert captions(original) == captions(reading)
    small = Flickr8k(path=path, images=Path("Images_224"), captions=Path("captions_224.txt")).read()
    assert (len(small.examples), sum(len(example.captions) for example in small.examples)) == (1200, 6000)


def test_real_splits_of_flickr8k_do_not_overlap(data_root: Path) -> None:
    path = data_root / "flickr8k"
    train, dev, test = (set(captions(Flickr8k(path=path, split=split).read())) for split in ("train", "dev", "test"))
    assert train
    assert dev
    assert test
    assert train.isdisjoint(dev)
    assert train.isdisjoint(test)
    assert dev.isdisjoint(test)


def test_real_flickr30k_is_read_whole_within_two_seconds(data_root: Path) -> None:
    start = time.process_time()
    reading = Flickr30k(path=data_root / "flickr30k").read()
    assert time.process_time() - start < 2
    assert len(reading.examples) == 801
    assert len(reading.left_out) == 31_636 - 801
    mended = captions(reading)["2199200615.jpg"]
    assert mended[4] == "A dog runs across the grass ."
    assert len(mended) == 5
    assert "1 row without a second |" in reading.notes[0]

"""The layout is recognised and said, or the run stops and says how to name it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.data.auto import AutoDataset
from limner.data.cifar10 import LABELS
from limner.data.example import Reading

JSONL = '{"file_name": "a.jpg", "text": "a dog"}'
TOKEN = "a.jpg#0\ta dog"
RESULTS = "image_name| comment_number| comment\na.jpg| 0| a dog"


def make(root: Path, **files: str) -> Path:
    """Writes files; a double underscore is a dot, three are a slash."""
    for name, text in files.items():
        path = root / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def read(path: Path, caption: str | None = None) -> Reading:
    return AutoDataset(path=path, caption=caption).read()


@pytest.mark.parametrize(
    ("files", "kind", "layout"),
    [
        ({"a__txt": "a dog"}, "folder", "image folder, captions beside the pictures"),
        ({"captions__txt": "a dog"}, "captions_file", "image folder, one caption per line"),
        ({"metadata__jsonl": JSONL}, "table", "table metadata.jsonl"),
        ({"metadata__csv": "file_name,text\na.jpg,a dog"}, "table", "table metadata.csv"),
        ({"captions__txt": "image,caption\na.jpg,a dog"}, "flickr8k", "Flickr8k, Kaggle layout"),
        ({"Flickr8k__token__txt": TOKEN}, "flickr8k", "Flickr8k, original layout"),
        ({"Flickr8k_text___Flickr8k__token__txt": TOKEN}, "flickr8k", "Flickr8k, original layout"),
        ({"results__csv": RESULTS}, "flickr30k", "Flickr30k, Kaggle layout"),
    ],
)
def test_each_layout_is_recognised_and_said(tmp_path: Path, files: dict[str, str], kind: str, layout: str) -> None:
    reading = read(make(tmp_path, a__jpg="", **files))
    assert [example.captions for example in reading.examples] == [("a dog",)]
    assert reading.layout == layout
    assert reading.notes[0].startswith(f"Recognised as kind: {kind}, because ")


def test_cifar10_is_recognised_in_each_form(tmp_path: Path) -> None:
    folder = make(tmp_path, train___cat___1__png="")
    assert read(folder).layout == "CIFAR-10 train, class folders"
    batches = tmp_path / "b" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list(LABELS)}, protocol=2))
    with pytest.raises(UserError, match=r"data_batch_1, .* not there\..*Recognised as kind: cifar10"):
        read(tmp_path / "b")


def test_two_possible_layouts_stop_the_run_and_are_named(tmp_path: Path) -> None:
    make(tmp_path, a__jpg="", a__txt="a dog", metadata__jsonl=JSONL, captions__txt="a dog")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert caught.value.where == "dataset.kind"
    for kind in ("captions_file (captions.txt", "table (metadata.jsonl", "folder (a.txt"):
        assert f"kind: {kind}" in caught.value.what


def test_pictures_without_captions_stop_the_run_and_say_what_to_do(tmp_path: Path) -> None:
    make(tmp_path, a__jpg="", b__jpg="")
    with pytest.raises(UserError, match="has 2 pictures and no captions") as caught:
        read(tmp_path)
    for choice in ("dataset.caption", "kind: folder with uncaptioned: empty", "kind: dreambooth"):
        assert choice in caught.value.fix
    assert [example.captions for example in read(tmp_path, caption="a dog").examples] == [("a dog",)] * 2


def test_a_caption_does_not_hide_captions_that_are_there(tmp_path: Path) -> None:
    make(tmp_path, a__jpg="", a__txt="a dog")
    with pytest.raises(UserError, match="they are not used: caption is 'x'"):
        read(tmp_path, caption="x")


def test_captions_in_an_unusual_place_are_pointed_out(tmp_path: Path) -> None:
    make(tmp_path, images___a__jpg="", captions__txt="a dog")
    with pytest.raises(UserError, match=r"There is captions\.txt beside the folder: perhaps set dataset\.path to"):
        read(tmp_path / "images")
    make(tmp_path, images___metadata__json=JSONL)
    with pytest.raises(UserError, match=r"There is metadata\.json: its name, place or form is not a usual one"):
        read(tmp_path / "images")


def test_an_error_of_the_layout_says_what_was_recognised(tmp_path: Path) -> None:
    make(tmp_path, a__jpg="", b__jpg="", a__txt="a dog")
    with pytest.raises(UserError, match=r"1 of 2 pictures .*\(Recognised as kind: folder, because a\.txt lies beside"):
        read(tmp_path)


def test_a_folder_without_pictures_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"does not exist"):
        read(tmp_path / "none")


def test_a_slip_in_a_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, data___photos___a__jpg="")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'data/photo' does not exist\. Did you mean 'data/photos'\?"):
        read(Path("data/photo"))
    with pytest.raises(UserError, match="one caption for all is not possible with a data set of the Hub"):
        read(Path("someone/something"), caption="x")


def test_an_empty_caption_is_a_config_error() -> None:
    with pytest.raises(ValidationError, match="uncaptioned: empty"):
        AutoDataset(path=Path("x"), caption=" ")


@pytest.mark.parametrize(
    ("path", "kind", "count"),
    [
        ("flickr8k", "flickr8k", 663),
        ("flickr30k", "flickr30k", 801),
        ("custom_folder", "captions_file", 24),
        ("cifar10", "cifar10", 2000),
        ("cifar10/parquet_sample", "cifar10", 600),
    ],
)
def test_real_data_is_recognised(data_root: Path, path: str, kind: str, count: int) -> None:
    if "parquet" in path:
        pytest.importorskip("pyarrow")
    reading = read(data_root / path)
    assert reading.notes[0].startswith(f"Recognised as kind: {kind},")
    assert len(reading.examples) == count

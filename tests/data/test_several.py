"""Several data sets as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from limner.core.config import Config, validate
from limner.core.errors import ConfigError, UserError
from limner.data import DatasetConfig
from limner.data.buckets import ImageConfig
from limner.data.flickr import Flickr8k
from limner.data.folder import Folder
from limner.data.ledger import survey
from limner.data.several import Several, folders, source_rows


def put(folder: Path, count: int, **captions: str) -> Path:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (64, 64), (number * 20, len(folder.name) * 9, 0)).save(folder / f"{number}.png")
    for name, caption in captions.items():
        (folder / f"{name.removeprefix('n')}.txt").write_text(caption)
    return folder


def source(name: str, path: Path, **values: Any) -> dict[str, Any]:
    """Returns a source of one caption for all, unless ``dataset`` says otherwise."""
    return {"name": name, "dataset": {"kind": "folder", "path": path, "caption": name}, **values}


def several(*sources: dict[str, Any]) -> Several:
    return Several.model_validate({"sources": sources})


# ------------------------------------------------------------------------------------------------------------- read
def test_the_examples_of_all_sources_come_under_their_names(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", 2), put(tmp_path / "two", 1)
    (two / "notes.md").write_text("")
    reading = several(source("b", one, repeats=3), source("a", two, weight=0.5)).read()
    seen = [(e.id, e.captions, e.repeats, e.weight) for e in reading.examples]
    assert seen == [("b/0.png", ("b",), 3, 1.0), ("b/1.png", ("b",), 3, 1.0), ("a/0.png", ("a",), 1, 0.5)]
    assert [e.image.read() for e in reading.examples[:2]] == [(one / f"{n}.png").read_bytes() for n in range(2)]
    assert [(row.id, row.reason) for row in reading.left_out] == [("a/notes.md", "not a picture")]
    assert reading.layout == "2 sources: b, a"
    assert reading.notes == tuple(f"{name}: image folder, one caption for all" for name in "ba")


def test_one_source_is_the_data_set_alone_but_for_its_ids(tmp_path: Path) -> None:
    path = put(tmp_path / "one", 3)
    alone = Folder(path=path, caption="x").read()
    among = several(source("x", path)).read()
    assert [f"x/{e.id}" for e in alone.examples] == [e.id for e in among.examples]
    for name in ("image", "captions", "weight", "repeats", "role"):
        assert [getattr(e, name) for e in alone.examples] == [getattr(e, name) for e in among.examples]


def test_dreambooth_keeps_its_roles_and_its_balance(tmp_path: Path) -> None:
    mine, others = put(tmp_path / "mine", 1), put(tmp_path / "others", 3)
    values = {"kind": "dreambooth", "path": mine, "class_path": others, "class_noun": "dog", "prior_weight": 0.5}
    dog = source("dog", mine, repeats=2, weight=3, dataset=values)
    reading = several(dog, source("style", put(tmp_path / "style", 1))).read()
    assert [(e.id, e.role, e.repeats, e.weight) for e in reading.examples] == [
        ("dog/instance/0.png", "instance", 6, 3.0),
        *((f"dog/class/{n}.png", "class", 2, 1.5) for n in range(3)),
        ("style/0.png", "instance", 1, 1.0),
    ]
    visits = reading.notes.index("dog: repeats: 2 makes these visits 2 times as many.")
    assert reading.notes[visits - 1].startswith("dog: An epoch visits each of 1 instance picture 3 times")


def test_a_mistake_is_told_where_it_stands(tmp_path: Path) -> None:
    plain = {"kind": "folder", "path": put(tmp_path / "plain", 2)}
    with pytest.raises(UserError) as caught:
        several(source("a", put(tmp_path / "one", 1)), source("b", tmp_path, dataset=plain)).read()
    assert caught.value.where == "dataset.sources.1.dataset.path"
    assert "or set dataset.sources.1.dataset.caption to one caption for all" in caught.value.fix
    (tmp_path / "plain" / "0.txt").write_bytes(b"\xff")
    with pytest.raises(UserError) as caught:
        several(source("b", tmp_path, dataset=plain)).read()
    assert caught.value.where == f"source 'b': {tmp_path / 'plain' / '0.txt'}:1"


# ---------------------------------------------------------------------------------------------------------- refused
def test_the_same_pictures_in_two_sources_are_refused(tmp_path: Path) -> None:
    one, inner = put(tmp_path / "one", 1), put(tmp_path / "one" / "inner", 1)
    (tmp_path / "link").symlink_to(one)
    for path, relation in ((one, "the same folder"), (tmp_path / "link", "the same folder"), (inner, "one inside")):
        for pair in ((one, path), (path, one)):
            with pytest.raises(UserError, match=relation) as caught:
                several(source("a", pair[0]), source("b", pair[1])).read()
            assert caught.value.where == "dataset.sources.1.dataset.path"
    beside = put(tmp_path / "one-more", 1)  # a name that begins alike
    assert len(several(source("a", inner), source("b", beside)).read().examples) == 2


def test_class_pictures_and_flickr_s_photos_count_as_folders_too(tmp_path: Path) -> None:
    mine, others = put(tmp_path / "mine", 1), put(tmp_path / "others", 1)
    dog = source("dog", mine, dataset={"kind": "dreambooth", "path": mine, "class_path": others, "class_noun": "dog"})
    with pytest.raises(UserError, match="the same folder") as caught:
        several(source("style", others), dog).read()
    assert caught.value.where == "dataset.sources.1.dataset.class_path"
    assert several(dog).read().examples
    flickr = Flickr8k(path=tmp_path / "texts", images=Path("../others"))
    assert folders(flickr) == [("dataset.path", tmp_path / "texts"), ("dataset.images", others)]


def test_a_data_set_of_the_hub_stands_in_one_source_only() -> None:
    hub = {"kind": "hub", "id": "someone/something"}
    with pytest.raises(UserError, match="'someone/something', train, stands in two sources"):
        several({"name": "a", "dataset": hub}, {"name": "b", "dataset": {**hub, "uncaptioned": "empty"}}).read()


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", " a", "a\nb", "a" * 41])
def test_a_name_that_is_no_part_of_an_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError):
        several(source(name, tmp_path))
    several(source("Tante Änne 2", tmp_path))


class Recipe(Config):
    dataset: DatasetConfig
    """The data set."""


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "dataset.sources: []: tuple should have at least 1 item"),
        ([{"name": "a"}], "dataset.sources.0.dataset: must be set. The data set"),
        (
            [{"name": "a", "dataset": {"kind": "several", "sources": []}}],
            "dataset.sources.0.dataset.kind: 'several' is",
        ),
        (
            [{"name": "a", "dataset": {"kind": "folder", "pth": "x"}}],
            "sources.0.dataset.pth: unknown key. Did you mean",
        ),
        ([{"name": "a", "repeat": 2, "dataset": {"kind": "hub", "id": "a/b"}}], "repeat: unknown key. Did you mean"),
        ([{"name": "a", "repeats": 0, "dataset": {"kind": "hub", "id": "a/b"}}], "dataset.sources.0.repeats: 0: "),
        ([{"name": "a", "weight": 0, "dataset": {"kind": "hub", "id": "a/b"}}], "dataset.sources.0.weight: 0: "),
        ([{"name": "a", "dataset": {"kind": "hub", "id": "a/b"}}] * 2, "two sources are called 'a'"),
    ],
)
def test_a_mistake_in_the_recipe_is_told_where_it_stands(sources: list[Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Recipe, {"dataset": {"kind": "several", "sources": sources}}, where="recipe.yaml")
    assert message in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- rows
def test_the_rows_tell_pictures_and_visits_of_each_source(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", 3), put(tmp_path / "two", 4)
    dataset = several(source("few", one, repeats=4), source("few more", two, weight=0.25))
    (one / "2.png").write_bytes(b"no picture")
    images = ImageConfig(resolution=64, bad_files="leave_out")
    ledger = survey(dataset.read(), images, count_tokens=None, token_limit=77, cache=None)
    assert source_rows(dataset, ledger) == [
        ("source few", "2 pictures, 8 visits in an epoch (67% of all)"),
        ("source few more", "4 pictures, 4 visits in an epoch (33% of all), weight 0.25"),
    ]
    assert [row.id for row in ledger.rows if not row.used] == ["few/2.png"]
    assert source_rows(Folder(path=one), ledger) == []
    for number in range(2):
        (one / f"{number}.png").write_bytes(b"no picture either")
    ledger = survey(dataset.read(), images, count_tokens=None, token_limit=77, cache=None)
    with pytest.raises(UserError, match="source 'few' has no picture that can be used"):
        source_rows(dataset, ledger)


def test_subjects_among_the_sources_await_their_class_pictures(tmp_path: Path) -> None:
    from limner.builtin.drawings import draw_folder
    from limner.data.several import Several, subjects

    draw_folder(tmp_path / "rex", count=2)
    draw_folder(tmp_path / "style", count=2)
    for sidecar in (tmp_path / "rex").glob("*.txt"):
        sidecar.unlink()
    rex = {"kind": "dreambooth", "path": str(tmp_path / "rex"), "class_noun": "dog"}
    rex |= {"class_path": str(tmp_path / "dogs"), "class_pictures": 6}
    style = {"kind": "folder", "path": str(tmp_path / "style")}
    both = Several.model_validate(
        {"sources": [{"name": "rex", "repeats": 3, "dataset": rex}, {"name": "style", "dataset": style}]}
    )
    assert [(prefix, dataset.class_noun) for prefix, dataset in subjects(both)] == [("rex/", "dog")]
    ((_, alone),) = subjects(both)
    assert both.read().awaited == 3 * alone.read().awaited > 0

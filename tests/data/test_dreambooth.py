"""DreamBooth's two groups of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.data.dreambooth import DreamBooth


def put(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"x")
    return folder


def config(path: Path, **values: object) -> DreamBooth:
    return DreamBooth.model_validate({"path": path, "class_noun": "dog", **values})


def test_instance_pictures_get_the_instance_prompt(tmp_path: Path) -> None:
    put(tmp_path, 2)
    (tmp_path / "notes.md").write_bytes(b"")
    reading = config(tmp_path).read()
    assert [example.id for example in reading.examples] == ["instance/0.jpg", "instance/1.jpg"]
    for example in reading.examples:
        assert example.captions == ("a photo of sks dog",)
        assert (example.role, example.weight, example.repeats) == ("instance", 1.0, 1)
    assert [row.id for row in reading.left_out] == ["instance/notes.md"]


def test_class_pictures_get_the_class_prompt_and_the_prior_weight(tmp_path: Path) -> None:
    path, class_path = put(tmp_path / "mine", 1), put(tmp_path / "others", 1)
    values = {"class_path": class_path, "class_noun": "otter", "token": "zwx", "prior_weight": 0.5}
    instance, other = config(path, **values).read().examples
    assert (instance.id, instance.captions, instance.weight) == ("instance/0.jpg", ("a photo of zwx otter",), 1.0)
    assert (other.id, other.captions, other.weight) == ("class/0.jpg", ("a photo of an otter",), 0.5)
    assert other.role == "class"


@pytest.mark.parametrize(
    ("instances", "classes"), [(5, 200), (4, 4), (5, 6), (200, 5), (3, 10), (1, 300), (7, 13), (13, 7)]
)
def test_an_epoch_visits_both_groups_about_equally_often(tmp_path: Path, instances: int, classes: int) -> None:
    reading = config(put(tmp_path / "a", instances), class_path=put(tmp_path / "b", classes)).read()
    visits = {"instance": 0, "class": 0}
    for example in reading.examples:
        visits[example.role] += example.repeats
    assert 2 / 3 <= visits["instance"] / visits["class"] <= 3 / 2
    assert min(example.repeats for example in reading.examples) == 1
    assert reading.notes[-1].startswith(f"An epoch visits each of {instances} instance picture")


def test_the_two_folders_must_be_apart(tmp_path: Path) -> None:
    put(tmp_path / "a", 2)
    put(tmp_path / "b", 2)
    put(tmp_path / "b/class", 2)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for class_path in (tmp_path / "a", tmp_path / "link", tmp_path / "b/../a"):
        with pytest.raises(UserError, match=r"dataset\.class_path: .* are the same folder"):
            config(tmp_path / "a", class_path=class_path).read()
    with pytest.raises(UserError, match="one inside the other"):
        config(tmp_path / "b/class", class_path=tmp_path / "b").read()


def test_pictures_of_several_subjects_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "dog", 2)
    put(tmp_path / "cat", 2)
    with pytest.raises(UserError, match="has pictures in 2 folders: cat, dog"):
        config(tmp_path).read()


def test_an_empty_folder_is_refused_by_its_key(tmp_path: Path) -> None:
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 0)
    with pytest.raises(UserError, match=r"^dataset\.class_path: .*has no images"):
        config(tmp_path / "a", class_path=tmp_path / "b").read()
    with pytest.raises(UserError, match=r"^dataset\.path: .*has no images"):
        config(tmp_path / "b", class_path=tmp_path / "a").read()


@pytest.mark.parametrize("folder", ["a", "b"])
def test_captions_that_would_not_be_used_stop_the_run(tmp_path: Path, folder: str) -> None:
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 1)
    (tmp_path / folder / "0.txt").write_text("my dog", encoding="utf-8")
    with pytest.raises(UserError, match=r"0\.txt\), and they are not used: dreambooth makes its captions"):
        config(tmp_path / "a", class_path=tmp_path / "b").read()
    reading = config(tmp_path / "a", class_path=tmp_path / "b", ignore_sidecars=True).read()
    assert len(reading.examples) == 2
    assert len(reading.left_out) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"token": " "}, "token is empty"),
        ({"class_noun": ""}, "class_noun is empty"),
        ({"instance_prompt": "a photo of my dog"}, r"instance_prompt .* lacks \{token\}"),
        ({"instance_prompt": "a {tokn} {token}"}, r"instance_prompt .* has \{tokn\}"),
        ({"class_prompt": "a dog", "class_path": None}, "class_prompt does nothing without class_path"),
        ({"prior_weight": 0.5}, "prior_weight does nothing without class_path"),
        ({"prior_weight": 0.0, "class_path": "b"}, "greater than 0"),
        ({"class_prompt": "a photo of sks dog", "class_path": "b"}, "class_prompt has the token 'sks'"),
        ({"class_prompt": "a {token}", "class_path": "b"}, r"class_prompt .* has \{token\}"),
    ],
)
def test_choices_that_cannot_work_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(Path("a"), **values)


def test_real_dog(data_root: Path) -> None:
    reading = config(data_root / "dreambooth" / "dog").read()
    assert len(reading.examples) == 5
    assert reading.examples[0].image.read()[:2] == b"\xff\xd8"

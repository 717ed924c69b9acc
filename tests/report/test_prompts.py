"""Which prompts the compared models are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from limner.data.caption_tools import CaptionTools
from limner.preflight import plan
from limner.report.prompts import MOST_CAPTIONS, SCENES, SCENES_SEED, Asked, about_something_else, asked
from tests.numerics.conftest import run_values
from tests.tiny import save_tiny

UNRELATED = tuple(
    Asked(prompt, "unrelated")
    for prompt in ("a boat on a lake", "an old house", "two zebras", "a bowl of soup", "rain at night")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model")
    draw_folder(root / "pictures", count=9)
    for number in range(9):
        (root / "pictures" / f"{number:02d}.txt").write_text(f"a zebra, number {number}", encoding="utf-8")
    return root


def prompts(place: Path, extra: tuple[str, ...] = (), **changes: Any) -> tuple[Asked, ...]:
    values = run_values(place / "model", place / "pictures", place / "run", **changes)
    config = RunConfig.model_validate(values)
    return asked(config, plan(config).ledger, CaptionTools(config.captions, None), UNRELATED, extra)


def test_the_recipe_s_come_first_and_captions_of_both_parts_follow(place: Path) -> None:
    samples = {"prompts": ["a cat", "a dog"]}
    found = prompts(place, ("a horse",), samples=samples, validation={"share": 0.3})
    groups = [one.group for one in found]
    assert [one.prompt for one in found[:3]] == ["a cat", "a dog", "a horse"]
    assert groups == ["recipe"] * 3 + ["held out"] * 3 + ["learned from"] * 6 + ["unrelated"] * 5
    held, learned = ({one.prompt for one in found if one.group == group} for group in ("held out", "learned from"))
    assert not held & learned


def test_a_prompt_about_the_pictures_is_not_called_unrelated(place: Path) -> None:
    assert [one.prompt for one in prompts(place) if one.group == "unrelated"] == [
        "a boat on a lake",
        "an old house",
        "two zebras",  # another word than the captions have
        "a bowl of soup",
        "rain at night",
    ]
    (place / "pictures" / "00.txt").write_text("a zebra in a house", encoding="utf-8")
    try:
        assert "an old house" not in [one.prompt for one in prompts(place)]
    finally:
        (place / "pictures" / "00.txt").write_text("a zebra, number 0", encoding="utf-8")


def test_the_class_of_a_subject_is_asked_for_without_its_word(place: Path) -> None:
    dataset: dict[str, Any] = {
        "kind": "dreambooth",
        "path": str(place / "pictures"),
        "class_noun": "zebra",
        "token": "sks",
    }
    dataset["ignore_sidecars"] = True
    values = run_values(place / "model", place / "pictures", place / "run")
    config = RunConfig.model_validate({**values, "dataset": dataset})
    found = asked(config, plan(config).ledger, CaptionTools(config.captions, None), UNRELATED)
    of = {group: [one.prompt for one in found if one.group == group] for group in ("learned from", "without")}
    assert len(of["learned from"]) == 1
    assert "sks" in of["learned from"][0]
    assert of["without"] == ["a photo of a zebra"]


def test_a_prompt_that_is_asked_for_twice_is_drawn_once(place: Path) -> None:
    found = prompts(place, ("a cat",), samples={"prompts": ["a cat", "a zebra, number 3"]})
    texts = [one.prompt for one in found]
    assert len(texts) == len(set(texts))
    assert sum(one.group == "learned from" for one in found) <= MOST_CAPTIONS


def test_captions_are_asked_for_without_the_trigger_word_too(place: Path) -> None:
    values = run_values(place / "model", place / "pictures", place / "run", trigger_word="zwx")
    config = RunConfig.model_validate({**values, "captions": {"add_trigger_word": True}})
    found = asked(config, plan(config).ledger, CaptionTools(config.captions, "zwx"), UNRELATED)
    with_word, without = ([one.prompt for one in found if one.group == group] for group in ("learned from", "without"))
    assert with_word
    assert [text.replace("zwx ", "") for text in with_word] == without
    assert not any("zwx" in text for text in without)


def test_the_built_in_world_is_asked_for_scenes_that_can_be_judged() -> None:
    from limner.builtin.world import caption
    from limner.core.config import validate
    from limner.core.rng import stream
    from limner.models.sd1 import SD1

    found = about_something_else(validate(SD1, {"path": "builtin"}, where="model").load())
    assert len({one.prompt for one in found}) == SCENES
    for place, one in enumerate(found):
        assert one.scene is not None
        assert one.prompt == caption(one.scene, stream(SCENES_SEED, place, "asked"), complete=True)


def test_other_models_are_asked_for_things_of_the_real_world(place: Path) -> None:
    from limner.core.config import validate
    from limner.models.sd1 import SD1

    found = about_something_else(validate(SD1, {"path": str(place / "model")}, where="model").load())
    assert {(one.group, one.scene) for one in found} == {("unrelated", None)}

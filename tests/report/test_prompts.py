"""Which prompts the compared models are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from limner.data.caption_tools import CaptionTools
from limner.preflight import plan
from limner.report.prompts import MOST_CAPTIONS, Asked, asked
from tests.numerics.conftest import run_values
from tests.tiny import save_tiny

UNRELATED = ("a boat on a lake", "an old house", "two zebras", "a bowl of soup", "rain at night")


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
    assert groups == ["recipe"] * 3 + ["held out"] * 3 + ["learned from"] * 4 + ["unrelated"] * 4
    held, learned = ({one.prompt for one in found if one.group == group} for group in ("held out", "learned from"))
    assert not held & learned


def test_a_prompt_about_the_pictures_is_not_called_unrelated(place: Path) -> None:
    assert [one.prompt for one in prompts(place) if one.group == "unrelated"] == [
        "a boat on a lake",
        "an old house",
        "two zebras",  # another word than the captions have
        "a bowl of soup",
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
    of = {group: [one.prompt for one in found if one.group == group] for group in ("learned from", "class")}
    assert len(of["learned from"]) == 1
    assert "sks" in of["learned from"][0]
    assert of["class"] == ["a photo of a zebra"]


def test_a_prompt_that_is_asked_for_twice_is_drawn_once(place: Path) -> None:
    found = prompts(place, ("a cat",), samples={"prompts": ["a cat", "a zebra, number 3"]})
    texts = [one.prompt for one in found]
    assert len(texts) == len(set(texts))
    assert sum(one.group == "learned from" for one in found) <= MOST_CAPTIONS

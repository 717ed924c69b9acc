"""The union of layouts: every kind can be written into a recipe and read back."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from limner.core.config import Config, read_recipe, to_yaml, validate
from limner.data import DatasetConfig

LAYOUTS = typing.get_args(typing.get_args(DatasetConfig)[0])
REQUIRED = {
    "dreambooth": {"class_noun": "dog"},
    "hub": {"id": "someone/something"},
    "several": {"sources": [{"name": "dog", "dataset": {"kind": "folder", "path": "photos"}}]},
}


class Recipe(Config):
    """As much of a recipe as holds a data set."""

    dataset: DatasetConfig
    """The data set."""


def kind(layout: type[Config]) -> str:
    return str(layout.model_fields["kind"].default)


def test_the_kinds_are_those_of_the_documentation() -> None:
    assert sorted(map(kind, LAYOUTS)) == [
        "auto", "captions_file", "cifar10", "dreambooth", "flickr30k", "flickr8k", "folder", "hub", "several",
        "table",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=kind)
def test_a_written_config_reads_back_equal(tmp_path: Path, layout: type[Config]) -> None:
    values = {"kind": kind(layout), **REQUIRED.get(kind(layout), {})}
    if "path" in layout.model_fields:
        values["path"] = "photos"
    recipe = validate(Recipe, {"dataset": values}, where="test")
    assert isinstance(recipe.dataset, layout)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe, {}), encoding="utf-8")
    written, _ = read_recipe(tmp_path / "recipe.yaml")
    assert validate(Recipe, written, where="recipe.yaml") == recipe


@pytest.mark.parametrize("layout", LAYOUTS, ids=kind)
def test_every_field_is_documented(layout: type[Config]) -> None:
    assert layout.__doc__
    undocumented = [name for name, field in layout.model_fields.items() if name != "kind" and not field.description]
    assert undocumented == []

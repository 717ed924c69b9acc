from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from limner.core.config import Config, parse_yaml, read_recipe, to_yaml, validate
from limner.core.errors import ConfigError, UserError


class Dog(Config):
    kind: Literal["dog"] = "dog"
    bark: float = Field(default=1.0, gt=0)
    """How loud."""


class Cat(Config):
    kind: Literal["cat"] = "cat"
    lives: int = 9
    """How many are left."""


class Zoo(Config):
    name: str
    """What it is called."""
    animal: Annotated[Dog | Cat, Field(discriminator="kind")] = Dog()
    """Who lives there."""
    others: tuple[Annotated[Dog | Cat, Field(discriminator="kind")], ...] = ()
    """Who else."""
    tags: tuple[str, ...] = ()
    """Words."""


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Zoo:
    values, origins = read_recipe(path, overrides)
    return validate(Zoo, values, where=path.name, origins=origins)


def test_numbers_in_scientific_notation_are_numbers() -> None:
    value, _ = parse_yaml("a: 1e-4\nb: 1E5\nc: -2.5e+3\nd: 3\ne: .5\nf: 1.", where="x")
    assert value == {"a": 1e-4, "b": 1e5, "c": -2500.0, "d": 3, "e": 0.5, "f": 1.0}
    assert isinstance(value["d"], int)


def test_words_that_yaml_takes_for_truth_values_stay_words() -> None:
    value, _ = parse_yaml("[no, on, yes, off, y, true, False, 2024-01-01]", where="x")
    assert value == ["no", "on", "yes", "off", "y", True, False, "2024-01-01"]


def test_every_problem_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = recipe(tmp_path, "nmae: x\nanimal:\n  kind: dog\n  brak: 2\n  bark: -1\ntags: 5\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "nmae (recipe.yaml:1): unknown key. Did you mean 'name'?" in text
    assert "name: must be set. What it is called." in text
    assert "animal.brak (recipe.yaml:4): unknown key. Did you mean 'bark'?" in text
    assert "animal.bark (recipe.yaml:5): -1" in text
    assert "tags (recipe.yaml:6)" in text


def test_a_misspelled_kind_is_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"animal.kind \(recipe.yaml:2\): 'dgo' is unknown. Did you mean 'dog'"):
        load(recipe(tmp_path, "name: x\nanimal: {kind: dgo}"))
    with pytest.raises(ConfigError, match=r"animal \(recipe.yaml:2\): has no kind"):
        load(recipe(tmp_path, "name: x\nanimal: {bark: 2}"))


def test_problems_inside_lists_carry_their_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"others\.1\.livs .*Did you mean 'lives'"):
        load(recipe(tmp_path, "name: x\nothers: [{kind: dog}, {kind: cat, livs: 2}]"))


def test_overrides_replace_values_and_are_named_as_their_origin(tmp_path: Path) -> None:
    path = recipe(tmp_path, "name: x\nanimal: {kind: dog, bark: 2}\n")
    assert load(path, "animal.bark=3").animal == Dog(bark=3)
    assert load(path, "tags=[a, b]", "name='1e3'").tags == ("a", "b")
    with pytest.raises(ConfigError, match=r"animal.bark \(command line\): -3"):
        load(path, "animal.bark=-3")
    # the recipe's values go with the mapping that is replaced
    assert load(path, "animal={kind: cat}").animal == Cat()


@pytest.mark.parametrize("override", ["animal", "=3", "animal..bark=1", ".=1", "name.deep=1", "name="])
def test_a_broken_override_is_a_sentence(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match="command line"):
        load(recipe(tmp_path, "name: x\n"), override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", "stands twice"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("name: [1", "not valid YAML"),
        ("- 1\n- 2", "holds a list"),
        ("1: x", "no word"),
        ("name: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("\tname: x", "not valid YAML"),
        ("[" * 5000, "nested too deeply|not valid YAML"),
    ],
)
def test_hostile_and_broken_yaml_ends_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(recipe(tmp_path, text))


def test_a_key_with_nothing_behind_it_is_refused_since_it_could_mean_two_things(tmp_path: Path) -> None:
    path = recipe(tmp_path, "name: x\nanimal:\n  kind: dog\n  bark:\ntags:\n")
    with pytest.raises(ConfigError, match="2 problems") as caught:
        load(path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["animal.bark", "tags"]
    assert load(recipe(tmp_path, "name: ''\n")).name == ""


def test_files_that_are_no_recipe_end_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not UTF-8"):
        load(binary)


def test_a_resolved_config_reads_back_as_itself_with_its_origins(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'name: "no: # \\u00e4"\nanimal: {kind: cat}\n')
    values, origins = read_recipe(path, ["tags=[x]"])
    config = validate(Zoo, values, where="x", origins=origins)
    text = to_yaml(config, origins)
    assert "lives: 9  # default" in text
    assert "kind: cat  # recipe.yaml:2" in text
    assert "tags: [x]  # command line" in text
    again = recipe(tmp_path, text)
    assert load(again) == config
    assert yaml.safe_load(text)["name"] == "no: # ä"


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
def test_no_setting_may_be_infinite(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"animal\.bark"):
        load(recipe(tmp_path, f"name: x\nanimal: {{kind: dog, bark: {value}}}"))

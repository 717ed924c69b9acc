"""Settings with several values: how they are read, which runs they make, and what is refused before the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.config import load_config
from limner.core.errors import ConfigError, UserError
from limner.sweep.grid import MOST_RUNS, folder_name, read_grid, split_values
from tests.sweep.conftest import write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, tmp_path / "model", tmp_path / "pictures")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1,2,3", ["1", "2", "3"]),
        (" 1e-4 , 2e-4 ", ["1e-4", "2e-4"]),
        ("[a, b]", ["[a, b]"]),
        ("[a,b],[c]", ["[a,b]", "[c]"]),
        ("{kind: lora, rank: 4},{kind: full}", ["{kind: lora, rank: 4}", "{kind: full}"]),
        ("'red, blue'", ["'red, blue'"]),
        ('"red, blue",green', ['"red, blue"', "green"]),
        ("'it''s, so',b", ["'it''s, so'", "b"]),
        ("it's,b", ["it's", "b"]),
        ("photos/a,photos/b", ["photos/a", "photos/b"]),
        ("[[a, b], c]", ["[[a, b], c]"]),
        ("null,0.1", ["null", "0.1"]),
        ("ä,ö", ["ä", "ö"]),
    ],
)
def test_commas_part_values_but_not_inside_quotes_and_brackets(text: str, values: list[str]) -> None:
    assert split_values("key", text) == values


@pytest.mark.parametrize("text", ["1,", "1,,2", ",1", "'a,b", "[a,b", "a],[b", "1, 2 #3"])
def test_what_cannot_be_parted_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="comma"):
        split_values("key", text)


def test_the_runs_are_all_combinations_each_as_its_own_overrides_would_make_it(recipe: Path) -> None:
    grid = read_grid(recipe, ["seed=1,2", "train.steps=5", "method.rank=4,16"])
    assert [run.name for run in grid.runs] == [
        "seed=1,method.rank=4",
        "seed=1,method.rank=16",
        "seed=2,method.rank=4",
        "seed=2,method.rank=16",
    ]
    assert grid.out == recipe.parent / "swept"
    for run in grid.runs:
        words = [f"{key}={value}" for key, value in run.settings.items()]
        alone = load_config(recipe, [*words, "train.steps=5", f"out={grid.out}/x"])
        assert run.config == alone.model_copy(update={"out": grid.out / run.name})
    assert [(run.seed, run.setting) for run in grid.runs[:2]] == [("1", "method.rank=4"), ("1", "method.rank=16")]


def test_a_list_and_a_text_with_a_comma_are_values_too(recipe: Path) -> None:
    grid = read_grid(recipe, ["samples.prompts=[a dog, a cat],[a fish]", "trigger_word='\"red, blue\"'", "seed=7"])
    assert [run.config.samples.prompts for run in grid.runs] == [("a dog", "a cat"), ("a fish",)]
    assert {run.config.trigger_word for run in grid.runs} == {'"red, blue"'}
    assert {run.seed for run in grid.runs} == {None}


def test_an_override_of_out_is_the_folder_of_all(recipe: Path, tmp_path: Path) -> None:
    grid = read_grid(recipe, [f"out={tmp_path / 'else'}", "seed=1,2"])
    assert [run.config.out for run in grid.runs] == [tmp_path / "else" / "seed=1", tmp_path / "else" / "seed=2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train.seed=1,2,3"], r"train\.seed \(command line\): unknown key"),
        (["method.rnk=4,8"], "Did you mean 'rank'"),
        (["out=a,b"], "folder of the whole sweep"),
        (["seed=1"], "nothing to sweep"),
        ([], "nothing to sweep"),
        (["seed"], "not key=value"),
        (["seed=1,2", "seed=3"], "stands twice"),
        (["seed=1,2,1"], "are the same run"),
        (["optimizer.lr=1e-4,0.0001"], "are the same run"),
        (["method.rank=2,4", "method={kind: lora}"], "are the same run"),
        ([f"seed={','.join(map(str, range(MOST_RUNS + 1)))}"], "more than 500"),
        (["trigger_word=a,A"], "would share a folder"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_a_reason(recipe: Path, words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_grid(recipe, words)


def test_problems_of_all_combinations_are_told_at_once_and_each_names_its_run(recipe: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_grid(recipe, ["method.rank=0,4", "train.steps=3,-1", "train.stepz=1"])
    told = error.value.problems
    assert len(told) == 3
    assert next(problem for problem in told if "stepz" in problem).endswith("'steps'?")
    assert any("rank" in problem and "(method.rank=0,train.steps=3 and 1 more)" in problem for problem in told)
    assert any("-1" in problem and "(method.rank=0,train.steps=-1 and 1 more)" in problem for problem in told)


def test_names_are_safe_readable_and_never_the_same_for_two_settings() -> None:
    assert folder_name({"seed": "1", "method.rank": "4"}) == "seed=1,method.rank=4"
    texts = ["a/b", "a b", "a:b", "a-b", "a~b", "[a]", "{a}", "'a'", "..", "../x", "ä", "a\u0308", "x" * 300, "x" * 301]
    names = [folder_name({"key": text}) for text in texts]
    assert len(set(names)) == len(texts)
    for name in names:
        assert Path(name).name == name
        assert len(name.encode()) < 200
        assert not set(name) & set("/\\:*?\"<>| '[]{}")
    assert folder_name({"key": "a-b"}) == "key=a-b"
    assert folder_name({"key": "a/b"}).startswith("key=a-b~")

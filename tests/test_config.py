"""What is wrong between two parts of a recipe is said before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.config import RunConfig, conflicts, load_config
from limner.core.errors import ConfigError

RECIPE = """\
out: run
model: {kind: sd1, path: tiny}
dataset: {kind: folder, path: pictures}
method: {kind: lora}
train: {steps: 10}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def problems(recipe: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("method", "objective"), [("autoencoder", "denoising"), ("lora", "reconstruction"), ("full", "reconstruction")]
)
def test_a_method_and_an_objective_that_do_not_go_together_are_both_named(
    recipe: Path, method: str, objective: str
) -> None:
    (problem,) = problems(recipe, f"method={{kind: {method}}}", f"objective={{kind: {objective}}}")
    assert problem.startswith(f"objective: {objective!r} trains model 'sd1' by method ")
    assert problem.endswith(f"this is model 'sd1' with method {method!r}.")
    assert problem.count(repr(method)) == 1  # not among the methods that fit


def test_the_default_objective_does_not_train_an_autoencoder(recipe: Path) -> None:
    (problem,) = problems(recipe, "method={kind: autoencoder}")
    assert problem.startswith("objective: 'denoising' trains model 'sd1' by method lora or loha or lokr or full or ")
    assert "method 'autoencoder'" in problem


@pytest.mark.parametrize(("method", "objective"), [("autoencoder", "reconstruction"), ("full", "denoising")])
def test_what_belongs_together_is_taken(recipe: Path, method: str, objective: str) -> None:
    config = load_config(recipe, [f"method={{kind: {method}}}", f"objective={{kind: {objective}}}"])
    assert (config.method.kind, config.objective.kind) == (method, objective)


def test_an_autoencoder_cannot_be_exported_as_peft_and_trains_with_prodigy(recipe: Path) -> None:
    pytest.importorskip("prodigyopt")
    chosen = ["method={kind: autoencoder}", "objective={kind: reconstruction}"]
    (problem,) = problems(recipe, *chosen, "export=[{kind: peft}]")
    assert problem.startswith("export: 'peft' cannot hold what method 'autoencoder' trains")
    assert load_config(recipe, [*chosen, "optimizer={kind: prodigy, lr: 1}"]).optimizer.kind == "prodigy"
    assert load_config(recipe, [*chosen, "export=[{kind: diffusers}]"]).export is not None


def test_two_problems_are_said_at_once(recipe: Path) -> None:
    found = problems(recipe, "method={kind: autoencoder}", "schedule={kind: cosine, warmup_steps: 10}")
    assert [problem.partition(":")[0] for problem in found] == ["schedule.warmup_steps", "objective"]


def test_preservation_beside_textual_inversion_would_do_nothing_and_is_refused() -> None:
    config = RunConfig.model_validate(
        {
            "out": "runs/x",
            "model": {"kind": "sd1", "path": "m"},
            "dataset": {"kind": "folder", "path": "photos"},
            "method": {"kind": "textual_inversion", "token": "<it>", "initialise": "dog"},
            "objective": {"kind": "denoising", "preservation": {"prompt": "a photo of a dog"}},
            "train": {"steps": 5},
        }
    )
    assert conflicts(config) == ["objective.preservation: textual inversion moves no word but its own; leave it out."]


@pytest.mark.parametrize(
    "method", ["{kind: lora, dora: true}", "{kind: pivotal, token: <x>, initialise: dog, lora: {dora: true}}"]
)
def test_dora_is_not_exported_where_programs_disagree_on_it(recipe: Path, method: str) -> None:
    (problem,) = problems(recipe, f"method={method}", "export=[{kind: kohya}]")
    assert problem.startswith("export: kohya's layout cannot hold DoRA")
    assert load_config(recipe, ["method={kind: lora}", "export=[{kind: kohya}]"]).export is not None

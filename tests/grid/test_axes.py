"""What lies along the sides, and everything that is refused before a model is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from limner.core.errors import UserError
from limner.grid.axes import MOST_PICTURES, Axis, Layout, Settings, drawing_order, label, layout

FIXED = Settings("a dog", seed=0, steps=2, guidance=7.5, scheduler="")


def read(x: str = "", y: str = "", z: str = "", **changes: Any) -> Layout:
    options: dict[str, Any] = {"prompts": ["a dog"], "kept": (2, 4), "given": {}} | changes
    return layout({"--x": x, "--y": y, "--z": z}, **options)


def refused(*sides: str, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(*sides, **changes)
    assert caught.value.fix
    assert caught.value.where
    return str(caught.value)


def test_each_place_has_the_values_of_its_column_row_and_table() -> None:
    found = read("checkpoint=base,4", "weight=0.5, 1", "prompt", prompts=["a dog", "a, b"])
    wanted = {place: found.settings(FIXED, place) for place in found.places()}
    assert len(wanted) == found.pictures == 8
    assert list(wanted) == sorted(wanted)
    assert wanted[1, 0, 1] == Settings("a, b", 0, 2, 7.5, "", weight=0.5, checkpoint=4)
    assert wanted[0, 1, 0] == Settings("a dog", 0, 2, 7.5, "", weight=1.0, checkpoint=None)
    assert (found.x.labels, found.y.labels) == (("base", "checkpoint 4"), ("weight 0.5", "weight 1"))


def test_a_run_has_its_checkpoints_beside_the_base_where_nothing_is_said() -> None:
    assert read().x == Axis("checkpoint", (None, 2, 4))
    assert read(y="checkpoint").y == Axis("checkpoint", (None, 2, 4))
    assert "no side has values" in refused(kept=None)
    assert "no side has values" in refused(given={"checkpoint": "4"})


def test_several_prompts_get_a_side_of_their_own() -> None:
    two = ("a dog", "a cat")
    assert read("seed=1,2", prompts=two).y == Axis("prompt", two)
    assert read("seed=1,2", "steps=3", prompts=two).z == Axis("prompt", two)
    assert read(prompts=two, kept=None).y == Axis("prompt", two)
    assert "no side is left" in refused("seed=1,2", "steps=3", "guidance=2", prompts=two)


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ("sed=1", "Did you mean 'seed'?"),
        ("=1", "'' is nothing that a grid can change. Known: checkpoint, weight"),
        ("seed", "'seed' has no values. For instance seed=0,1,2."),
        ("scheduler", "For instance scheduler=ddim,euler_a."),
        ("seed=", "'seed=' has no value."),
        ("seed=1,,2", "an empty value"),
        ("seed=1,", "an empty value"),
        ("seed=1.5", "'1.5' is no seed: a whole number from 0 on, below 2^63"),
        ("seed=-1", "'-1' is no seed"),
        ("steps=0", "'0' is no steps: a whole number from 1 to 1000"),
        ("guidance=-1", "'-1' is no guidance: a number from 0 to 1000"),
        ("guidance=nan", "'nan' is no guidance"),
        ("weight=inf", "'inf' is no weight"),
        ("weight=strong", "'strong' is no weight"),
        ("scheduler=eulre", "Did you mean 'euler'?"),
        ("checkpoint=3", "there is no checkpoint '3'; there are: base, 2, 4"),
        ("checkpoint=best", "there is no checkpoint 'best'"),
        ("seed=1,2,1", "'seed 1' is there twice"),
        ("weight=0.5,.50", "'weight 0.5' is there twice"),
        ("checkpoint=base,2,base", "'base' is there twice"),
        ("prompt=a dog,a cat", "Give each by --prompt, and write --x prompt."),
    ],
)
def test_what_is_no_side_is_refused(side: str, told: str) -> None:
    assert told in refused(side)


def test_what_is_said_twice_is_refused() -> None:
    assert "'seed' lies along two sides" in refused("seed=1", "seed=2")
    assert "--seed: 'seed' lies along a side too" in refused("seed=1", given={"seed": "3"})
    assert "'a dog' is there twice" in refused("seed=1", prompts=["a dog", "a dog"])


def test_a_model_has_no_checkpoints() -> None:
    for side in ("checkpoint", "checkpoint=base,2"):
        assert "only a run has checkpoints" in refused(side, kept=None)


def test_a_grid_has_a_bound() -> None:
    values = ",".join(map(str, range(16)))
    assert read(f"seed={values}", "steps=" + ",".join(map(str, range(1, 17)))).pictures == MOST_PICTURES
    assert "16 x 17 are 272 pictures" in refused(f"seed={values}", "steps=" + ",".join(map(str, range(1, 18))))


def test_each_picture_is_drawn_once_the_base_first_and_weights_are_put_on_once() -> None:
    found = read("checkpoint=4,base,2", "weight=1,0", "seed=1,0")
    wanted = [found.settings(FIXED, place) for place in found.places()]
    order = drawing_order([*wanted, *wanted])
    assert len(order) == len(set(order)) == 12
    weights = [(one.checkpoint, one.weight) for one in order]
    assert list(dict.fromkeys(weights)) == [(None, 0), (None, 1), (2, 0), (2, 1), (4, 0), (4, 1)]
    assert weights == sorted(weights, key=lambda one: (one[0] or 0, one[1]))


def test_labels_tell_values_apart() -> None:
    assert label("guidance", 7.5) == "guidance 7.5"
    assert label("weight", 0.12345678) != label("weight", 0.12345679)
    assert label("prompt", "") == "(no words)"

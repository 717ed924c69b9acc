"""An answer counts as right only if it is, and everything that is asked counts."""

from __future__ import annotations

from dataclasses import replace

from limner.builtin.judge import Reading, Seen
from limner.builtin.judge.examination import ATTRIBUTES, right, shares
from limner.builtin.world import Scene, Thing
from limner.builtin.world.sitter import SITTER

CAT = Thing("cat", "red", "small", 0.3, 0.5, 0.3, False, 0.0)
BOAT = Thing("boat", "blue", "small", 0.7, 0.52, 0.3, False, 0.0)
SCENE = Scene("night", "pixel", "row", (CAT, BOAT), 0)
SEEN = (Seen("cat", "red", 0.31, 0.5, 1.0), Seen("boat", "blue", 0.7, 0.5, 1.0))
READING = Reading(SEEN, "night", "pixel")


def wrong(scene: Scene, reading: Reading) -> set[str]:
    return {name for name, answers in right(scene, reading).items() if not all(answers)}


def test_a_true_reading_is_right_in_everything() -> None:
    assert wrong(SCENE, READING) == set()
    assert [len(answers) for answers in right(SCENE, READING).values()] == [2, 2, 1, 1, 1, 1]


def test_each_mistake_is_found_where_it_is() -> None:
    cat, boat = SEEN
    assert wrong(SCENE, replace(READING, things=(replace(cat, kind="dog"), boat))) == {"kind"}
    assert wrong(SCENE, replace(READING, things=(replace(cat, colour="pink"), boat))) == {"colour"}
    assert wrong(SCENE, replace(READING, background="snow")) == {"background"}
    assert wrong(SCENE, replace(READING, style="flat")) == {"style"}
    assert wrong(SCENE, replace(READING, things=(*SEEN, Seen("cat", "red", 0.5, 0.9, 1.0)))) == {"count"}


def test_a_missing_thing_has_no_kind_no_colour_and_no_relation() -> None:
    assert wrong(SCENE, replace(READING, things=SEEN[:1])) == {"kind", "colour", "count", "relation"}
    moved = replace(READING, things=(replace(SEEN[0], y=0.8), SEEN[1]))
    assert wrong(SCENE, moved) == {"kind", "colour", "relation"}


def test_a_relation_is_that_of_the_centres_seen() -> None:
    near = Scene("night", "pixel", "row", (replace(CAT, x=0.48), replace(BOAT, x=0.52)), 0)
    swapped = (Seen("cat", "red", 0.52, 0.5, 1.0), Seen("boat", "blue", 0.51, 0.5, 1.0))
    assert right(near, replace(READING, things=swapped))["relation"] == [True]
    above = replace(near, arrangement="column", things=(replace(CAT, x=0.5, y=0.47), replace(BOAT, x=0.5, y=0.53)))
    things = (Seen("cat", "red", 0.5, 0.46, 1.0), Seen("boat", "blue", 0.5, 0.53, 1.0))
    assert right(above, replace(READING, things=things))["relation"] == [True]


def test_the_sitter_has_no_colour() -> None:
    scene = replace(SCENE, arrangement="alone", things=(replace(CAT, kind=SITTER),))
    reading = replace(READING, things=(replace(SEEN[0], kind=SITTER, colour="green"),))
    assert right(scene, reading)["colour"] == []
    assert wrong(scene, reading) == set()


def test_shares_count_everything_that_was_asked() -> None:
    found = shares([SCENE, SCENE], [READING, Reading((), "night", "flat")])
    assert tuple(found) == ATTRIBUTES
    assert found == {
        "kind": (2, 4),
        "colour": (2, 4),
        "background": (2, 2),
        "style": (1, 2),
        "count": (1, 2),
        "relation": (1, 2),
    }

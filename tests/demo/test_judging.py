from __future__ import annotations

from dataclasses import replace

import pytest

from limner.builtin.judge import Reading, Seen
from limner.builtin.scoring import Share, Tally, score
from limner.builtin.world import HELD_OUT_STYLE, Scene, scene_at
from limner.builtin.world.sitter import SITTER, sitter_scene
from limner.demo.judging import (
    BACKGROUND_IS,
    CALLED,
    CAT_IS,
    COLOURS_ARE,
    NEW_SCENES,
    OTHER_CATS,
    STYLE_IS,
    THINGS_ARE,
    UNCALLED,
    Prompt,
    assess_sitter,
    assess_style,
)


def read(scene: Scene) -> Reading:
    """Returns what a judge without fault sees in the scene's picture."""
    things = tuple(Seen(thing.kind, thing.colour, thing.x, thing.y, 1.0) for thing in scene.things)
    return Reading(things, scene.background, scene.style)


SCENES = [scene_at(0, position, styles=(HELD_OUT_STYLE,)) for position in range(20)]
PROMPTS = [Prompt(f"prompt {number}", 0, "section", scene) for number, scene in enumerate(SCENES)]


def test_right_pictures_are_all_right() -> None:
    found = assess_style(PROMPTS, [read(scene) for scene in SCENES])
    assert {share.value for share in found.shares.values()} == {1.0}
    assert found.shares[STYLE_IS] == Share(20, 20)
    assert all(verdict.right for judged in found.pictures for verdict in judged.verdicts)


def test_the_shares_of_a_style_are_those_of_the_tally() -> None:
    readings = [read(scene) for scene in SCENES[1:] + SCENES[:1]]
    tally = Tally()
    for scene, reading in zip(SCENES, readings, strict=True):
        tally.add(score(scene, reading))
    found = assess_style(PROMPTS, readings).shares
    assert found[THINGS_ARE] == tally.share("thing")
    assert found[COLOURS_ARE] == tally.share("colour")
    assert found[BACKGROUND_IS] == tally.share("background")
    assert 0 < found[THINGS_ARE].value < 1
    assert found[THINGS_ARE] != found[COLOURS_ARE]


def test_the_verdicts_name_what_is_missing() -> None:
    scene = next(scene for scene in SCENES if len(scene.things) == 2)
    whole = read(scene)
    reading = Reading(whole.things[:1], whole.background, "flat")
    (judged,) = assess_style([Prompt("", 0, "", scene)], [reading]).pictures
    style, things, colours, background = judged.verdicts
    assert (style.text, style.right) == (HELD_OUT_STYLE, False)
    assert things.text.endswith("1 of 2 there")
    assert not things.right
    assert not colours.right
    assert background.right
    assert judged.seen == f"{scene.things[0].colour} {scene.things[0].kind}; background: {scene.background}; flat"


def test_twins_are_counted_not_repeated() -> None:
    scene = next(s for s in SCENES if len(s.things) == 2 and len({(t.kind, t.colour) for t in s.things}) == 1)
    (judged,) = assess_style([Prompt("", 0, "", scene)], [read(scene)]).pictures
    assert judged.verdicts[1].text == f"2 × {scene.things[0].kind}"


def test_a_prompt_without_a_scene_is_no_prompt_to_judge() -> None:
    with pytest.raises(ValueError, match="without its scene"):
        assess_style([Prompt("a photo", 0, "")], [read(SCENES[0])])


def sitter_and_cat() -> tuple[Scene, Scene]:
    alone = next(s for s in (sitter_scene(0, position) for position in range(50)) if len(s.things) == 1)
    return alone, replace(alone, things=(replace(alone.things[0], kind="cat", colour="blue"),))


def test_the_character_counts_where_it_was_called_and_where_it_was_not() -> None:
    sitter, cat = sitter_and_cat()
    assert sitter.things[0].kind == SITTER
    prompts = [Prompt("", 0, NEW_SCENES, sitter)] * 3 + [Prompt("", 0, OTHER_CATS, cat)] * 4
    readings = [read(sitter), read(cat), read(cat), read(cat), read(cat), read(cat), read(sitter)]
    found = assess_sitter(prompts, readings)
    assert found.shares[CALLED] == Share(1, 3)
    assert found.shares[UNCALLED] == Share(1, 4)
    assert found.shares[CAT_IS] == Share(3, 4)
    assert found.shares[BACKGROUND_IS] == Share(7, 7)
    first = [judged.verdicts[0] for judged in found.pictures]
    assert [verdict.right for verdict in first] == [True, False, False, True, True, True, False]
    assert first[0].text == "the character"
    assert first[-1].text == "not the character"
    assert found.pictures[0].seen.startswith("the character; ")


def test_a_cat_of_another_colour_is_a_cat_and_not_that_cat() -> None:
    _, cat = sitter_and_cat()
    red = replace(cat, things=(replace(cat.things[0], colour="red"),))
    (judged,) = assess_sitter([Prompt("", 0, OTHER_CATS, cat)], [read(red)]).pictures
    assert {verdict.text: verdict.right for verdict in judged.verdicts[:3]} == {
        "not the character": True,
        "a cat": True,
        "blue cat": False,
    }

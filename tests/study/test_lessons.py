"""What a study asks for was not shown in training, and is the same for every setting and count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from limner.builtin.drawings import sitters_alone
from limner.builtin.judge import Reading, Seen
from limner.builtin.world import HELD_OUT_STYLE
from limner.builtin.world.sitter import SITTER, SITTER_COLOUR
from limner.core.errors import UserError
from limner.models.sd1 import SD1
from limner.study.grid import STUDIES, WORD, Conditions, LessonName
from limner.study.lessons import MOST_PROMPTS, SET_SEED, Lesson, prepare, score_of

FEW = Conditions(sitter_pictures=2, style_pictures=3, prompts=30)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[LessonName, Lesson]:
    root = tmp_path_factory.mktemp("lessons")
    return {name: prepare(name, root / name, FEW) for name in ("sitter", "style")}


@pytest.mark.parametrize("name", ["sitter", "style"])
def test_prompts_are_different_and_do_not_depend_on_their_number(
    lessons: dict[LessonName, Lesson], name: LessonName, tmp_path: Path
) -> None:
    lesson, fewer = lessons[name], prepare(name, tmp_path, replace(FEW, prompts=7))
    assert len({prompt.template for prompt in lesson.called}) == len(lesson.called) == 30
    assert len({prompt.text for prompt in lesson.of_class}) == len(lesson.of_class) == 30
    assert (fewer.called, fewer.of_class) == (lesson.called[:7], lesson.of_class[:7])


def test_the_sitter_is_asked_for_in_scenes_that_its_pictures_lack(lessons: dict[LessonName, Lesson]) -> None:
    lesson = lessons["sitter"]
    known = {scene.background for scene in sitters_alone(SET_SEED)[: FEW.sitter_pictures]}
    word = STUDIES["textual_inversion"].settings[0]
    for prompt in lesson.called:
        assert prompt.scene.background not in known or len(prompt.scene.things) == 2
        assert [thing.kind for thing in prompt.scene.things].count(SITTER) == 1
        assert prompt.text(lesson.subject(None)).count("sks cat") == 1
        assert prompt.text(lesson.subject(word)).count(WORD) == 1
        assert SITTER not in prompt.template
    assert any(f"{size} {{subject}}" in p.template for p in lesson.called for size in ("small", "big", "large"))
    assert not any("an {subject}" in prompt.template for prompt in lesson.called)


def test_class_prompts_call_nothing_that_was_taught_and_tell_no_colour(lessons: dict[LessonName, Lesson]) -> None:
    for lesson in lessons.values():
        for prompt in lesson.of_class:
            assert not {"sks", "stained", WORD, "red", "blue", SITTER_COLOUR} & set(prompt.text.split())
            assert prompt.kind in prompt.text
    assert {prompt.kind for prompt in lessons["sitter"].of_class} == {"cat"}
    assert len({prompt.kind for prompt in lessons["style"].of_class}) > 5


def test_the_built_in_model_reads_every_prompt_to_its_end(lessons: dict[LessonName, Lesson]) -> None:
    longest = next(setting for setting in STUDIES["textual_inversion"].settings if setting.name == "4 vectors")
    counter = SD1(path="builtin").token_counter()
    texts = [p.text for lesson in lessons.values() for p in lesson.of_class]
    texts += [p.template for p in lessons["style"].called]
    four = " ".join(["cat"] * longest.method["vectors"])
    texts += [p.text(subject) for p in lessons["sitter"].called for subject in ("sks cat", four)]
    assert max(counter.count(texts)) <= counter.limit


def test_recognition_is_the_character_or_the_style(lessons: dict[LessonName, Lesson]) -> None:
    cat, sitter = (Reading((Seen(kind, "red", 0.5, 0.5, 1.0),), "sky", "flat") for kind in ("cat", SITTER))
    assert lessons["sitter"].recognised(sitter)
    assert not lessons["sitter"].recognised(cat)
    assert lessons["style"].recognised(replace(cat, style=HELD_OUT_STYLE))
    assert not lessons["style"].recognised(cat)


def test_the_sitter_is_right_in_whatever_colour_the_judge_names(lessons: dict[LessonName, Lesson]) -> None:
    scene = next(p.scene for p in lessons["sitter"].called if len(p.scene.things) == 2)
    colour = "blue" if SITTER_COLOUR != "blue" else "red"
    things = tuple(Seen(t.kind, colour if t.kind == SITTER else t.colour, t.x, t.y, 1.0) for t in scene.things)
    right = score_of(scene, Reading(things, scene.background, scene.style))
    assert right.wrong() == ()
    wrong = tuple(replace(t, colour="red" if t.colour != "red" else "blue") for t in things)
    assert score_of(scene, Reading(wrong, scene.background, scene.style)).colours_right == 1


def test_more_prompts_than_there_are_are_refused(tmp_path: Path) -> None:
    assert len(prepare("sitter", tmp_path, replace(FEW, prompts=MOST_PROMPTS)).of_class) == MOST_PROMPTS
    for count in (0, MOST_PROMPTS + 1):
        with pytest.raises(UserError, match=f"--prompts: {count} is not 1 to 150"):
            prepare("sitter", tmp_path, replace(FEW, prompts=count))

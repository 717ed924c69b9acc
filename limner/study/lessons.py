"""What is taught in a study, and the prompts that show whether it was learned and what it did to the rest."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.drawings import draw_captioned, draw_sitter
from limner.builtin.scoring import Score, score
from limner.builtin.world import HELD_OUT_STYLE, KINDS, Scene, caption, scene_at
from limner.builtin.world.captions import BACKGROUND_WORDS, SIZE_WORDS, STYLE_PREFIXES
from limner.builtin.world.scenes import STYLES
from limner.builtin.world.sitter import SITTER, SITTER_CLASS, SITTER_COLOUR, sitter_scene
from limner.core.errors import UserError
from limner.core.rng import stream
from limner.data.prompts import article
from limner.study.grid import WORD, Conditions, LessonName, Setting

if TYPE_CHECKING:
    from limner.builtin.judge import Reading

SET_SEED, PROMPT_SEED = 0, 1
TOKEN = "sks"
MOST_THINGS = 2
"""Things in the picture of a prompt for a style."""
MOST_PROMPTS = 150
"""There are three sorts of class prompts, and 50 different ones of the sort with the fewest."""

_SUBJECT = "{subject}"
_SITTER_IN_WORDS = re.compile(rf"\ban? ((?:small|little|large|big) )?{SITTER_COLOUR} {SITTER}\b")
_SIZES = tuple(word for words in SIZE_WORDS.values() for word in words)


@dataclass(frozen=True)
class Called:
    """A prompt for what was taught, in a scene that the pictures of the set do not show."""

    template: str
    """The prompt; ``{subject}`` stands for the words that call it, where it has any."""
    scene: Scene

    def text(self, subject: str) -> str:
        """Returns the prompt."""
        return self.template.replace(_SUBJECT, subject)


@dataclass(frozen=True)
class OfClass:
    """A prompt for a member of the class, of which it tells no colour."""

    text: str
    kind: str
    """What must be seen for a member to be there."""


@dataclass(frozen=True)
class Lesson:
    """What is taught and what is asked afterwards."""

    name: LessonName
    called: tuple[Called, ...]
    of_class: tuple[OfClass, ...]

    def subject(self, setting: Setting | None) -> str:
        """Returns the words that call what a setting learned; None is the base model, which has no new word."""
        if self.name == "style":
            return ""
        return WORD if setting is not None and setting.has_word else f"{TOKEN} {SITTER_CLASS}"

    def recognised(self, reading: Reading) -> bool:
        """Returns whether what was taught is in the picture."""
        if self.name == "style":
            return reading.style == HELD_OUT_STYLE
        return any(thing.kind == SITTER for thing in reading.things)


def score_of(scene: Scene, reading: Reading) -> Score:
    """Returns what is right in a picture; whatever colour the judge names for the sitter is the right one."""
    things = tuple(replace(t, colour=SITTER_COLOUR) if t.kind == SITTER else t for t in reading.things)
    return score(scene, replace(reading, things=things))


def prepare(name: LessonName, folder: Path, conditions: Conditions) -> Lesson:
    """Draws the pictures to learn from into ``folder`` and returns the lesson.

    Prompt k is the same however many there are.
    """
    if not 1 <= conditions.prompts <= MOST_PROMPTS:
        raise UserError(f"{conditions.prompts} is not 1 to {MOST_PROMPTS}.", where="--prompts", fix="Use 100.")
    if name == "sitter":
        shown = draw_sitter(folder, count=conditions.sitter_pictures, seed=SET_SEED)
        called = _sitter_prompts(conditions.prompts, {scene.background for scene in shown})
        return Lesson(name, called, _class_prompts(conditions.prompts, (SITTER_CLASS,)))
    captions = draw_captioned(folder, count=conditions.style_pictures, seed=SET_SEED)
    return Lesson(name, _style_prompts(conditions.prompts, captions), _class_prompts(conditions.prompts, KINDS))


def _sitter_prompts(count: int, known: Collection[str]) -> tuple[Called, ...]:
    """Returns prompts for the sitter before a background that its pictures lack, or beside something else."""
    prompts: dict[str, Called] = {}
    for position in itertools.count():
        scene = sitter_scene(PROMPT_SEED, position)
        if scene.background in known and len(scene.things) == 1:
            continue
        told = caption(scene, stream(PROMPT_SEED, position, "caption for the sitter"), complete=True)
        template, places = _SITTER_IN_WORDS.subn(rf"a \g<1>{_SUBJECT}", told)
        if places != 1:
            raise ValueError(f"{told!r} names the sitter {places} times")
        prompts.setdefault(template, Called(template, scene))
        if len(prompts) == count:
            break
    return tuple(prompts.values())


def _style_prompts(count: int, captions: Sequence[str]) -> tuple[Called, ...]:
    prompts: dict[str, Called] = {}
    for position in itertools.count():
        scene = scene_at(PROMPT_SEED, position, styles=(HELD_OUT_STYLE,))
        text = caption(scene, stream(PROMPT_SEED, position, "caption for the style"), complete=True)
        if text not in captions and len(scene.things) <= MOST_THINGS:
            prompts.setdefault(text, Called(text, scene))
        if len(prompts) == count:
            break
    return tuple(prompts.values())


def _class_prompts(count: int, kinds: Sequence[str]) -> tuple[OfClass, ...]:
    """Returns prompts that tell the style, the background, or both, in turn: the rest is left to the model."""
    prompts: dict[str, OfClass] = {}
    for number in range(count):
        rng = stream(PROMPT_SEED, number, "class prompt")
        while True:
            kind = rng.choice(kinds)
            text = _told(rng, kind, style=number % 3 != 1, background=number % 3 != 0)
            if text not in prompts:
                break
        prompts[text] = OfClass(text, kind)
    return tuple(prompts.values())


def _told(rng: random.Random, kind: str, *, style: bool, background: bool) -> str:
    member = " ".join(filter(None, (rng.choice(_SIZES), kind)))
    words = [f"{article(member)} {member}"]
    if style:
        words.insert(0, rng.choice(STYLE_PREFIXES[rng.choice(STYLES)]))
    if background:
        words.append(rng.choice(BACKGROUND_WORDS[rng.choice(tuple(BACKGROUND_WORDS))]))
    return " ".join(words)

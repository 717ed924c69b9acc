"""What the demo asks of its pictures, and how the judge's readings answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from limner.builtin.scoring import Aspect, Share, Tally, score
from limner.builtin.world import HELD_OUT_STYLE, Scene
from limner.builtin.world.sitter import SITTER, SITTER_CLASS

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.builtin.judge import Reading

STYLE_IS, THINGS_ARE, COLOURS_ARE, BACKGROUND_IS = f"in {HELD_OUT_STYLE}", "things", "colours", "background"
_MEASURED: dict[str, Aspect] = {
    STYLE_IS: "style",
    THINGS_ARE: "thing",
    COLOURS_ARE: "colour",
    BACKGROUND_IS: "background",
}
CALLED, UNCALLED, CAT_IS = "the character, called", "the character, not called", "a cat, where one was asked for"
NEW_SCENES, OTHER_CATS = "The character in new scenes", "Other cats"


@dataclass(frozen=True)
class Prompt:
    """A picture to draw before and after."""

    text: str
    seed: int
    section: str
    """Under which heading it is shown."""
    scene: Scene | None = None
    """What the text asks for, where it is known."""


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked of a picture, and whether it is there."""

    text: str
    right: bool


@dataclass(frozen=True)
class Judged:
    """What the judge says about one picture."""

    verdicts: tuple[Verdict, ...]
    seen: str
    """All that the judge sees, in words."""


@dataclass(frozen=True)
class Goal:
    """Between which shares a number should lie."""

    least: float = 0.0
    most: float = 1.0
    under_before: float | None = None
    """Below which share the base model's pictures should lie."""

    def reached(self, before: Share, after: Share) -> bool:
        """Returns whether both shares are where they should be."""
        unknown = self.under_before is None or before.value < self.under_before
        return unknown and self.least <= after.value <= self.most

    def text(self) -> str:
        """Returns the goal in words."""
        after = f"at least {100 * self.least:g} %" if self.least > 0 else f"at most {100 * self.most:g} %"
        return after if self.under_before is None else f"from under {100 * self.under_before:g} % to {after}"


@dataclass(frozen=True)
class Assessment:
    """What the judge says about the pictures of a lesson."""

    pictures: tuple[Judged, ...]
    shares: Mapping[str, Share]


class Reader(Protocol):
    """Who can read pictures: :class:`limner.builtin.judge.Judge`."""

    def read(self, pictures: Sequence[Image]) -> list[Reading]:
        """Returns what is on each picture."""


Assess = Callable[[Sequence[Prompt], "Sequence[Reading]"], Assessment]


def assess_style(prompts: Sequence[Prompt], readings: Sequence[Reading]) -> Assessment:
    """Returns what is right in pictures of scenes."""
    tally, pictures = Tally(), []
    for scene, reading in zip(_scenes(prompts), readings, strict=True):
        one = score(scene, reading)
        tally.add(one)
        kinds = [thing.kind for thing in scene.things]
        looks = [_look(thing.kind, thing.colour) for thing in scene.things]
        verdicts = (
            Verdict(scene.style, one.style),
            Verdict(_counted(kinds, one.things_right), one.things_right == one.things_asked),
            Verdict(_counted(looks, one.colours_right), one.colours_right == one.things_asked),
            Verdict(f"background: {scene.background}", one.background),
        )
        pictures.append(Judged(verdicts, _in_words(reading)))
    shares = {name: tally.share(aspect) for name, aspect in _MEASURED.items()}
    return Assessment(tuple(pictures), {name: share for name, share in shares.items() if share is not None})


def _scenes(prompts: Sequence[Prompt]) -> list[Scene]:
    scenes = [prompt.scene for prompt in prompts if prompt.scene is not None]
    if len(scenes) != len(prompts):
        raise ValueError("a prompt without its scene cannot be judged")
    return scenes


def _counted(asked: Sequence[str], right: int) -> str:
    """Returns the names of things, and how many of them are there unless all are."""
    return _list(asked) + ("" if right == len(asked) else f": {right} of {len(asked)} there")


def _list(names: Sequence[str]) -> str:
    return ", ".join(name if number == 1 else f"{number} × {name}" for name, number in Counter(names).items())


def _look(kind: str, colour: str) -> str:
    return "the character" if kind == SITTER else f"{colour} {kind}"


def _in_words(reading: Reading) -> str:
    things = [_look(thing.kind, thing.colour) for thing in reading.things]
    return f"{_list(things) or 'nothing'}; background: {reading.background}; {reading.style}"


def assess_sitter(prompts: Sequence[Prompt], readings: Sequence[Reading]) -> Assessment:
    """Returns where the character is seen: called by its word, and in pictures of other members of its class."""
    pictures: list[Judged] = []
    found: dict[str, list[bool]] = {CALLED: [], UNCALLED: [], CAT_IS: [], BACKGROUND_IS: []}
    for prompt, scene, reading in zip(prompts, _scenes(prompts), readings, strict=True):
        kinds = {thing.kind for thing in reading.things}
        character = SITTER in kinds
        if prompt.section == NEW_SCENES:
            found[CALLED].append(character)
            verdicts = [Verdict("the character", character)]
        else:
            found[UNCALLED].append(character)
            found[CAT_IS].append(SITTER_CLASS in kinds)
            cat = _look(SITTER_CLASS, scene.things[0].colour)
            looks = {_look(thing.kind, thing.colour) for thing in reading.things}
            verdicts = [
                Verdict("not the character", not character),
                Verdict(f"a {SITTER_CLASS}", SITTER_CLASS in kinds),
                Verdict(cat, cat in looks),
            ]
        one = score(scene, reading)
        found[BACKGROUND_IS].append(one.background)
        verdicts += [Verdict(f"background: {scene.background}", one.background), Verdict(scene.style, one.style)]
        pictures.append(Judged(tuple(verdicts), _in_words(reading)))
    return Assessment(tuple(pictures), {name: Share(sum(seen), len(seen)) for name, seen in found.items() if seen})

"""How right a picture is: what its caption asks for against what the judge sees, and the shares over many pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from limner.builtin.world.facts import Relation, alike, relations, sides
from limner.builtin.world.scenes import Scene, Thing
from limner.core.intervals import wilson

if TYPE_CHECKING:
    from limner.builtin.judge import Reading, Seen

Aspect = Literal["thing", "colour", "background", "style", "count", "both", "relation", "everything"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)


@dataclass(frozen=True)
class Score:
    """What is right in one picture; None where the scene does not ask. See :func:`score` for each definition."""

    thing: bool
    """The kinds seen are those asked for, each as often, and no other."""
    colour: bool
    """Every thing asked for is there in its colour."""
    background: bool
    style: bool
    count: bool
    both: bool | None
    """None unless exactly two things are asked for and they differ."""
    relation: bool | None
    """None for a single thing and for things that are all alike."""
    things_asked: int
    things_right: int
    """Of the things asked for, those whose kind is there."""
    colours_right: int
    """Of the things asked for, those whose kind is there in the colour asked for."""

    def wrong(self) -> tuple[Aspect, ...]:
        """Returns the names of what is wrong; empty for a picture that shows all that was asked for and no more."""
        return tuple(aspect for aspect, right in self._verdicts().items() if right is False)

    def counts(self) -> dict[Aspect, tuple[int, int]]:
        """Returns for each aspect how many were right and how many asked for: things for the first two, else 0 or 1."""
        counted = {
            aspect: (int(right is True), int(right is not None))
            for aspect, right in (self._verdicts() | {"everything": not self.wrong()}).items()
        }
        counted["thing"] = (self.things_right, self.things_asked)
        counted["colour"] = (self.colours_right, self.things_asked)
        return counted

    def _verdicts(self) -> dict[Aspect, bool | None]:
        return {
            "thing": self.thing,
            "colour": self.colour,
            "background": self.background,
            "style": self.style,
            "count": self.count,
            "both": self.both,
            "relation": self.relation,
        }


def score(scene: Scene, reading: Reading) -> Score:
    """Returns what of a scene, told by a complete caption, the judge sees in a picture. In doubt it counts as wrong.

    Matching. A thing asked for and a thing seen are a pair if they are of one kind. Each is in one pair at most, there
    are as many pairs as possible, and among these pairings one with the most equal colours counts. The place does not
    matter here, since it can make no thing and no colour right. So ``things_right`` is the size of the intersection of
    the kinds asked for and seen, as multisets, and ``colours_right`` that of the looks (kind and colour). A thing
    that is missing has no right colour: the colours are counted over all things asked for.

    ``thing`` asks for the same kinds and no more, ``count`` for the same number. Two and more differing things:

    - ``both``: exactly the two looks asked for are seen. A third thing, a missing one or swapped colours are wrong.
    - ``relation``: the things stand as the caption's words say, judged by their centres, each pair of which the
      caption speaks. "Left of" means further left than up or down, "above" further up than to a side; it is so in
      every picture of the world. Everything seen that fits the words must stand so, twins and things too many
      included, and nothing asked for may be missing. What fits is a thing of the kind, and of the colour too where
      the scene asks for the kind in several colours: nothing else tells those apart.
      Of two differing things beside each other over or under a third, no caption tells which is left, and none
      is judged. Of three differing things in a row the caption names the left one first, "between" included.
    """
    kinds_asked, kinds_seen = Counter(t.kind for t in scene.things), Counter(t.kind for t in reading.things)
    looks_asked, looks_seen = Counter(map(_look, scene.things)), Counter(map(_look, reading.things))
    things_asked, colours_right = len(scene.things), (looks_asked & looks_seen).total()
    return Score(
        thing=kinds_asked == kinds_seen,
        colour=colours_right == things_asked,
        background=reading.background == scene.background,
        style=reading.style == scene.style,
        count=reading.count == things_asked,
        both=looks_asked == looks_seen if things_asked == 2 and not alike(scene.things) else None,
        relation=_relation(scene, reading.things),
        things_asked=things_asked,
        things_right=(kinds_asked & kinds_seen).total(),
        colours_right=colours_right,
    )


def _look(thing: Thing | Seen) -> tuple[str, str]:
    return thing.kind, thing.colour


def _relation(scene: Scene, seen: tuple[Seen, ...]) -> bool | None:
    pairs = _told_pairs(scene)
    if not pairs:
        return None
    asked = Counter(map(_look, scene.things))
    fitting = {_look(thing): _fitting(thing, scene, seen) for thing in scene.things}
    if any(len(fitting[look]) < number for look, number in asked.items()):
        return False
    return all(
        _stands(one, relation, other)
        for first, relation, second in pairs
        for one in fitting[_look(first)]
        for other in fitting[_look(second)]
    )


def _told_pairs(scene: Scene) -> tuple[tuple[Thing, Relation, Thing], ...]:
    """Returns the pairs of differing things of which a complete caption says how they stand."""
    things = scene.things
    if alike(things):
        return ()
    split = sides(scene)
    if split is None:
        return tuple((things[first], relation, things[second]) for first, relation, second in relations(scene))
    return tuple((first, split.relation, second) for first in split.first for second in split.second)


def _fitting(asked: Thing, scene: Scene, seen: tuple[Seen, ...]) -> tuple[Seen, ...]:
    """Returns the things seen that the caption's words for ``asked`` may mean."""
    of_kind = tuple(thing for thing in seen if thing.kind == asked.kind)
    if len({thing.colour for thing in scene.things if thing.kind == asked.kind}) == 1:
        return of_kind
    return tuple(thing for thing in of_kind if thing.colour == asked.colour)


def _stands(one: Seen, relation: Relation, other: Seen) -> bool:
    right, down = other.x - one.x, other.y - one.y
    return right > abs(down) if relation == "left of" else down > abs(right)


@dataclass(frozen=True)
class Share:
    """How many were right of those asked for, at least one."""

    right: int
    asked: int

    @property
    def value(self) -> float:
        return self.right / self.asked

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % interval of Wilson (1927), as if each one asked for were drawn on its own."""
        return wilson(self.value, self.asked)


@dataclass
class Tally:
    """Sums the scores of pictures."""

    pictures: int = 0
    _right: Counter[Aspect] = field(default_factory=Counter)
    _asked: Counter[Aspect] = field(default_factory=Counter)

    def add(self, one: Score) -> None:
        """Counts one more picture."""
        self.pictures += 1
        for aspect, (right, asked) in one.counts().items():
            self._right[aspect] += right
            self._asked[aspect] += asked

    def share(self, aspect: Aspect) -> Share | None:
        """Returns the share that is right, of things for ``thing`` and ``colour``, else of pictures; None of none."""
        return Share(self._right[aspect], self._asked[aspect]) if self._asked[aspect] else None

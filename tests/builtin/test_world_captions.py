"""Captions, read by a parser that knows nothing of the grammar that wrote them, are true of their scenes."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import pytest

from limner.builtin.world import HELD_OUT_STYLE, KINDS, STYLES, Scene, Thing, attributes, caption, sample_scene
from limner.builtin.world.painting import polygons

BACKGROUND_CLUES = {
    "plain": r"\bplain\b", "stripes": r"\bstripe", "dots": r"\b(dotted|polka dots)\b", "sky": r"\b(sky|clouds)\b",
    "meadow": r"\b(meadow|grass|grassy)\b", "night": r"\b(night|moon)\b", "beach": r"\b(beach|sea|seaside)\b",
    "snow": r"\bsnow",
}  # fmt: skip
STYLE_CLUES = {
    "flat": r"\bflat\b", "outlined": r"\b(comic|ink|outlines)\b", "pencil": r"\bpencil\b",
    "watercolour": r"\bwatercolour\b", "pixel": r"\bpixel\b", "stained glass": r"\bstained glass\b",
}  # fmt: skip
PHRASE = re.compile(
    r"\b(?P<number>an?|two|three) (?:(?P<size>small|little|large|big) )?"
    r"(?:(?P<colour>red|orange|yellow|green|blue|purple|pink|brown|black|white) )?"
    rf"(?P<kind>{'|'.join(('butterflies', *(f'{kind}s' for kind in KINDS), *KINDS))})\b"
)
RELATIONS = ("left of", "right of", "above", "over", "below", "under", "between", "from left to right", "side by side",
             "next to each other", "in a row", "one above", "one below", "two above", "two below")  # fmt: skip


@dataclass(frozen=True)
class Mention:
    count: int
    kind: str
    colour: str | None
    size: str | None
    start: int
    end: int


def mentions(text: str) -> list[Mention]:
    found = []
    for match in PHRASE.finditer(text):
        count = {"a": 1, "an": 1, "two": 2, "three": 3}[match["number"]]
        noun = match["kind"]
        kind = {"butterflies": "butterfly", "fish": "fish"}.get(noun, noun.removesuffix("s") if count > 1 else noun)
        plural = noun == "fish" or noun == "butterflies" or (noun.endswith("s") and noun not in KINDS)
        assert plural if count > 1 else noun in KINDS, text
        size = {"little": "small", "big": "large"}.get(match["size"], match["size"])
        found.append(Mention(count, kind, match["colour"], size, match.start(), match.end()))
    return found


def box(thing: Thing) -> tuple[float, float, float, float]:
    points = [point for shape in polygons(thing, 1) for point in shape.points]
    return min(x for x, _ in points), min(y for _, y in points), max(x for x, _ in points), max(y for _, y in points)


def is_left(a: Thing, b: Thing) -> bool:
    return box(a)[2] < box(b)[0]


def is_above(a: Thing, b: Thing) -> bool:
    return box(a)[3] < box(b)[1]


def stands_so(text: str, found: list[Mention], groups: list[list[Thing]]) -> bool:
    """Returns whether the things assigned to the mentions stand as the words between and behind them say."""
    last = text[found[-1].end :]
    if len(found) == 1:
        return stand_alike(last, groups[0])
    if "from left to right" in last:
        row = [thing for group in groups for thing in group]
        return all(is_left(a, b) for a, b in pairwise(row))
    for index, mention in enumerate(found[:-1]):
        between = text[mention.end : found[index + 1].start].strip()
        before = [thing for group in groups[: index + 1] for thing in group]
        after = [thing for group in groups[index + 1 :] for thing in group]
        if between == "between":
            (middle,), (one,), (other,) = groups
            return (is_left(one, middle) and is_left(middle, other)) or (
                is_left(other, middle) and is_left(middle, one)
            )
        checks = {"left of": (is_left, before, after), "right of": (is_left, after, before)}
        checks |= {word: (is_above, before, after) for word in ("above", "over")}
        checks |= {word: (is_above, after, before) for word in ("below", "under")}
        for word, (holds, firsts, seconds) in checks.items():
            if between.endswith(word):
                return all(holds(a, b) for a in firsts for b in seconds)
        assert between in (",", "and"), text
    return True


def stand_alike(words: str, things: list[Thing]) -> bool:
    """Returns whether twins stand as the words behind their plural say."""
    by_x, by_y = sorted(things, key=lambda t: t.x), sorted(things, key=lambda t: t.y)
    if re.search(r"side by side|next to each other|in a row", words):
        return all(is_left(a, b) for a, b in pairwise(by_x))
    if re.search(r"one (above|below) the other", words):
        return is_above(by_y[0], by_y[1])
    if "two above and one below" in words:
        return is_above(by_y[0], by_y[2]) and is_above(by_y[1], by_y[2])
    if "one above and two below" in words:
        return is_above(by_y[0], by_y[1]) and is_above(by_y[0], by_y[2])
    return True


def fits(mention: Mention, group: list[Thing]) -> bool:
    return all(
        thing.kind == mention.kind
        and mention.colour in (None, thing.colour)
        and (mention.size or thing.size) == thing.size
        for thing in group
    )


def is_true(text: str, scene: Scene) -> bool:
    """Returns whether the things can be assigned to the mentions so that everything said of them holds."""
    found = mentions(text)
    if sum(mention.count for mention in found) != len(scene.things):
        return False
    for order in permutations(scene.things):
        rest, groups = list(order), []
        for mention in found:
            groups.append(rest[: mention.count])
            rest = rest[mention.count :]
        if all(fits(m, g) for m, g in zip(found, groups, strict=True)) and stands_so(text, found, groups):
            return True
    return False


def clues(text: str, patterns: dict[str, str]) -> list[str]:
    return [name for name, pattern in patterns.items() if re.search(pattern, text)]


CAPTIONED = [
    (scene, caption(scene, random.Random(seed)))
    for seed in range(2500)
    for scene in [sample_scene(random.Random(seed), (*STYLES, HELD_OUT_STYLE))]
]


def test_captions_are_true_of_their_scenes() -> None:
    for scene, text in CAPTIONED:
        assert is_true(text, scene), (text, scene)
        assert clues(text, BACKGROUND_CLUES) in ([], [scene.background]), text
        assert clues(text, STYLE_CLUES) in ([], [scene.style]), text


def test_the_parser_finds_captions_of_other_scenes_untrue() -> None:
    texts = [text for _, text in CAPTIONED]
    wrong = [is_true(text, scene) for (scene, _), text in zip(CAPTIONED, texts[1:], strict=False)]
    assert sum(wrong) < 0.01 * len(wrong)


def test_the_parser_finds_a_turned_relation_untrue() -> None:
    turned = {
        "left of": "right of",
        "right of": "left of",
        "above": "below",
        "below": "above",
        "over": "under",
        "under": "over",
    }
    checked = 0
    for scene, text in CAPTIONED:
        found = mentions(text)
        if len(found) != 2 or len(scene.things) != 2 or found[0].kind == found[1].kind:
            continue
        between = text[found[0].end : found[1].start]
        for word, other in turned.items():
            if between.strip().endswith(word):
                lie = text[: found[0].end] + between.replace(word, other) + text[found[1].start :]
                assert not is_true(lie, scene), lie
                checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("on the left", lambda t: t.x < 0.4), ("on the right", lambda t: t.x > 0.6),
        ("at the top", lambda t: t.y < 0.4), ("at the bottom", lambda t: t.y > 0.6),
        ("in the middle", lambda t: abs(t.x - 0.5) < 0.06 and abs(t.y - 0.5) < 0.06),
    ],
)  # fmt: skip
def test_a_place_that_is_told_is_true(name: str, shows: object) -> None:
    assert callable(shows)
    told = [scene for scene, text in CAPTIONED if name in text]
    assert len(told) > 10
    assert all(len(scene.things) == 1 and shows(scene.things[0]) for scene in told)


def test_complete_captions_tell_everything_that_is_judged() -> None:
    for scene, _ in CAPTIONED:
        text = caption(scene, random.Random(scene.seed), complete=True)
        assert is_true(text, scene), text
        labels, found = attributes(scene), mentions(text)
        assert clues(text, BACKGROUND_CLUES) == [labels.background], text
        assert clues(text, STYLE_CLUES) == [labels.style], text
        told = sorted((m.kind, m.colour) for m in found for _ in range(m.count))
        assert told == sorted(zip(labels.kinds, labels.colours, strict=True)), text
        assert labels.count == 1 or any(relation in text for relation in RELATIONS), text


def test_captions_are_repeatable_and_have_many_wordings() -> None:
    for scene, text in CAPTIONED[:50]:
        assert caption(scene, random.Random(3)) == caption(scene, random.Random(3))
        wordings = {caption(scene, random.Random(seed)) for seed in range(60)}
        assert len(wordings) > 12, text


def test_captions_are_plain_english_in_ascii() -> None:
    for _, text in CAPTIONED:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text
        assert len(text.split()) <= 30, text


@pytest.mark.parametrize("kind", ["apple", "owl", "umbrella", "cat"])
def test_articles_suit_the_word_behind_them(kind: str) -> None:
    scene = next(s for s, _ in CAPTIONED if len(s.things) == 1 and s.things[0].kind == kind)
    scene = replace(scene, things=(replace(scene.things[0], colour="orange"),))
    told = {phrase for seed in range(800) for phrase in re.findall(r"\ban? \w+", caption(scene, random.Random(seed)))}
    assert ("a cat" if kind == "cat" else f"an {kind}") in told
    assert "an orange" in told
    assert not any(re.match(r"a [aeiou]|an [^aeiou]", phrase) for phrase in told)

"""Each definition of the score has a picture that is right by it and one that is wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from limner.builtin.judge import Reading, Seen
from limner.builtin.scoring import ASPECTS, Score, Share, Tally, score
from limner.builtin.world import COLOURS, Arrangement, Scene, Thing, sample_scene

Look = tuple[str, str, float, float]  # kind, colour, x, y

LEFT, RIGHT, TOP, BOTTOM = (0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75)


def scene(arrangement: Arrangement, *looks: Look) -> Scene:
    things = tuple(Thing(kind, colour, "medium", x, y, 0.4, False, 0) for kind, colour, x, y in looks)
    return Scene("snow", "pencil", arrangement, things, seed=0)


def reading(*looks: Look) -> Reading:
    things = sorted((Seen(kind, colour, x, y, 1.0) for kind, colour, x, y in looks), key=lambda seen: (seen.y, seen.x))
    return Reading(tuple(things), "snow", "pencil")


def truth(asked: Scene) -> Reading:
    things = tuple(Seen(thing.kind, thing.colour, thing.x, thing.y, 1.0) for thing in asked.things)
    return Reading(things, asked.background, asked.style)


def scored(asked: Scene, *looks: Look) -> Score:
    return score(asked, reading(*looks))


CAT_AND_BOAT = scene("row", ("cat", "red", *LEFT), ("boat", "blue", *RIGHT))
TWIN_CATS = scene("row", ("cat", "red", *LEFT), ("cat", "red", *RIGHT))
TWO_CATS = scene("row", ("cat", "red", *LEFT), ("cat", "blue", *RIGHT))
CAT_OVER_BOAT = scene("column", ("cat", "red", *TOP), ("boat", "blue", *BOTTOM))


def test_the_truth_is_right_in_every_scene() -> None:
    for seed in range(500):
        asked = sample_scene(random.Random(seed))
        one = score(asked, truth(asked))
        assert one.wrong() == ()
        assert one.things_asked == one.things_right == one.colours_right == len(asked.things)


def test_a_single_thing_is_asked_neither_for_both_nor_for_a_relation() -> None:
    one = scored(scene("alone", ("cat", "red", *LEFT)), ("cat", "red", *RIGHT))
    assert (one.both, one.relation) == (None, None)
    assert one.wrong() == ()


def test_twins_are_asked_neither_for_both_nor_for_a_relation() -> None:
    one = scored(TWIN_CATS, ("cat", "red", *TOP), ("cat", "red", *BOTTOM))
    assert (one.both, one.relation) == (None, None)
    assert one.wrong() == ()


def test_three_things_are_not_asked_for_both() -> None:
    asked = scene("row", ("cat", "red", 0.2, 0.5), ("boat", "blue", 0.5, 0.5), ("key", "pink", 0.8, 0.5))
    assert score(asked, truth(asked)).both is None


def test_a_wrong_background_and_a_wrong_style_are_wrong_by_themselves() -> None:
    seen = truth(CAT_AND_BOAT)
    assert score(CAT_AND_BOAT, replace(seen, background="beach")).wrong() == ("background",)
    assert score(CAT_AND_BOAT, replace(seen, style="flat")).wrong() == ("style",)


def test_swapped_colours_leave_things_and_relation_right_and_the_rest_wrong() -> None:
    one = scored(CAT_AND_BOAT, ("cat", "blue", *LEFT), ("boat", "red", *RIGHT))
    assert one.wrong() == ("colour", "both")
    assert (one.things_right, one.colours_right) == (2, 0)


def test_one_wrong_colour_counts_as_one() -> None:
    one = scored(CAT_AND_BOAT, ("cat", "red", *LEFT), ("boat", "green", *RIGHT))
    assert one.wrong() == ("colour", "both")
    assert (one.things_right, one.colours_right) == (2, 1)


def test_a_missing_thing_has_no_right_colour_and_no_relation() -> None:
    one = scored(CAT_AND_BOAT, ("cat", "red", *LEFT))
    assert one.wrong() == ("thing", "colour", "count", "both", "relation")
    assert (one.things_asked, one.things_right, one.colours_right) == (2, 1, 1)


def test_the_colour_of_another_kind_counts_for_nothing() -> None:
    one = scored(CAT_AND_BOAT, ("cat", "red", *LEFT), ("car", "blue", *RIGHT))
    assert one.wrong() == ("thing", "colour", "both", "relation")
    assert (one.things_right, one.colours_right) == (1, 1)


def test_an_empty_picture_has_nothing_right_but_what_it_stands_before() -> None:
    one = scored(CAT_AND_BOAT)
    assert one.wrong() == ("thing", "colour", "count", "both", "relation")
    assert (one.things_right, one.colours_right) == (0, 0)


def test_a_thing_too_many_is_wrong_for_thing_count_and_both_but_hides_nothing_that_is_there() -> None:
    one = scored(CAT_AND_BOAT, ("cat", "red", *LEFT), ("boat", "blue", *RIGHT), ("key", "pink", *TOP))
    assert one.wrong() == ("thing", "count", "both")
    assert (one.things_right, one.colours_right) == (2, 2)


def test_a_missing_twin_is_one_thing_missing() -> None:
    one = scored(TWIN_CATS, ("cat", "red", *LEFT))
    assert one.wrong() == ("thing", "colour", "count")
    assert (one.things_asked, one.things_right, one.colours_right) == (2, 1, 1)


def test_one_red_cat_is_not_both_red_cats() -> None:
    one = scored(TWIN_CATS, ("cat", "red", *LEFT), ("cat", "blue", *RIGHT))
    assert (one.things_right, one.colours_right) == (2, 1)
    assert one.wrong() == ("colour",)


def test_a_twin_too_many_is_wrong() -> None:
    one = scored(TWIN_CATS, ("cat", "red", *LEFT), ("cat", "red", *RIGHT), ("cat", "red", *TOP))
    assert one.wrong() == ("thing", "count")
    assert (one.things_right, one.colours_right) == (2, 2)


def test_two_of_one_kind_may_be_found_in_either_order_of_their_colours() -> None:
    one = scored(TWO_CATS, ("cat", "blue", *LEFT), ("cat", "red", *RIGHT))
    assert one.wrong() == ("relation",)
    assert (one.things_right, one.colours_right) == (2, 2)


# ------------------------------------------------------------------------------------------------------ the relation
@pytest.mark.parametrize(
    ("cat", "boat", "right"),
    [
        ((0.25, 0.5), (0.75, 0.5), True),
        ((0.45, 0.5), (0.55, 0.55), True),
        ((0.75, 0.5), (0.25, 0.5), False),
        ((0.5, 0.25), (0.5, 0.75), False),
        ((0.3, 0.2), (0.6, 0.6), False),  # lower than it is to the right
        ((0.5, 0.5), (0.5, 0.5), False),
    ],
)
def test_left_of_means_further_left_than_up_or_down(
    cat: tuple[float, float], boat: tuple[float, float], right: bool
) -> None:
    assert scored(CAT_AND_BOAT, ("cat", "red", *cat), ("boat", "blue", *boat)).relation is right
    turned = cat[::-1], boat[::-1]
    assert scored(CAT_OVER_BOAT, ("cat", "red", *turned[0]), ("boat", "blue", *turned[1])).relation is right


def test_colours_do_not_matter_for_the_relation_of_two_kinds() -> None:
    assert scored(CAT_AND_BOAT, ("cat", "pink", *LEFT), ("boat", "pink", *RIGHT)).relation is True


def test_two_of_one_kind_have_no_right_relation_without_their_colours() -> None:
    assert scored(TWO_CATS, ("cat", "red", *LEFT), ("cat", "blue", *RIGHT)).relation is True
    assert scored(TWO_CATS, ("cat", "red", *LEFT), ("cat", "green", *RIGHT)).relation is False
    assert scored(TWO_CATS, ("cat", "green", *LEFT), ("cat", "green", *RIGHT)).relation is False


def test_a_second_cat_on_the_other_side_makes_the_relation_wrong() -> None:
    both_sides = (("cat", "red", 0.2, 0.5), ("boat", "blue", 0.5, 0.5), ("cat", "red", 0.8, 0.5))
    assert scored(CAT_AND_BOAT, *both_sides).relation is False
    one_side = (("cat", "red", 0.2, 0.5), ("cat", "red", 0.5, 0.5), ("boat", "blue", 0.8, 0.5))
    assert scored(CAT_AND_BOAT, *one_side).relation is True


def test_each_twin_must_stand_as_asked_and_be_there() -> None:
    asked = scene("row", ("cat", "red", 0.2, 0.5), ("cat", "red", 0.5, 0.5), ("boat", "blue", 0.8, 0.5))
    assert score(asked, truth(asked)).relation is True
    assert scored(asked, ("cat", "red", 0.2, 0.5), ("boat", "blue", 0.5, 0.5), ("cat", "red", 0.8, 0.5)).relation is (
        False
    )
    assert scored(asked, ("cat", "red", 0.2, 0.5), ("boat", "blue", 0.8, 0.5)).relation is False


def test_two_beside_each_other_over_a_third_may_stand_in_either_order_but_not_below_it() -> None:
    asked = scene("two above one", ("cat", "red", 0.3, 0.3), ("key", "pink", 0.7, 0.3), ("boat", "blue", 0.5, 0.8))
    cat, key, boat = ("cat", "red"), ("key", "pink"), ("boat", "blue")
    assert scored(asked, (*key, 0.3, 0.3), (*cat, 0.7, 0.3), (*boat, 0.5, 0.8)).relation is True
    assert scored(asked, (*cat, 0.3, 0.3), (*boat, 0.7, 0.3), (*key, 0.5, 0.8)).relation is False
    below = scene("one above two", ("boat", "blue", 0.5, 0.2), ("cat", "red", 0.3, 0.7), ("key", "pink", 0.7, 0.7))
    assert scored(below, (*boat, 0.5, 0.2), (*key, 0.3, 0.7), (*cat, 0.7, 0.7)).relation is True
    assert scored(below, (*key, 0.5, 0.2), (*boat, 0.3, 0.7), (*cat, 0.7, 0.7)).relation is False


def test_three_differing_things_in_a_row_have_one_right_order() -> None:
    asked = scene("row", ("cat", "red", 0.2, 0.5), ("key", "pink", 0.5, 0.5), ("boat", "blue", 0.8, 0.5))
    rights = [
        scored(asked, *((*look, x, 0.5) for look, x in zip(order, (0.2, 0.5, 0.8), strict=True))).relation
        for order in permutations((("cat", "red"), ("key", "pink"), ("boat", "blue")))
    ]
    assert rights == [True, False, False, False, False, False]


# ------------------------------------------------------------------------------------------- against another reckoning
def best_assignment(asked: Sequence[Thing], seen: Sequence[Seen]) -> tuple[int, int]:
    """Returns right things and right colours of the best of all assignments: most kinds, then most colours."""
    places: list[Seen | None] = [*seen, *([None] * len(asked))]
    found = []
    for order in permutations(places, len(asked)):
        pairs = [(a, s) for a, s in zip(asked, order, strict=True) if s is not None and s.kind == a.kind]
        found.append((len(pairs), sum(a.colour == s.colour for a, s in pairs)))
    return max(found)


def test_the_counts_are_those_of_the_best_assignment() -> None:
    rng = random.Random(3)
    partly = 0
    for seed in range(400):
        asked = sample_scene(random.Random(seed))
        kinds = [*(thing.kind for thing in asked.things), "key"]
        colours = [*(thing.colour for thing in asked.things), COLOURS[0]]
        looks = [(rng.choice(kinds), rng.choice(colours), rng.random(), rng.random()) for _ in range(rng.randrange(5))]
        one = scored(asked, *looks)
        assert (one.things_right, one.colours_right) == best_assignment(asked.things, reading(*looks).things)
        partly += 0 < one.colours_right < one.things_right
    assert partly > 20


# ---------------------------------------------------------------------------------------------------------- the tally
def test_the_tally_counts_things_for_thing_and_colour_and_pictures_for_the_rest() -> None:
    tally = Tally()
    tally.add(score(CAT_AND_BOAT, truth(CAT_AND_BOAT)))
    tally.add(scored(TWIN_CATS, ("cat", "red", *LEFT)))
    tally.add(scored(scene("alone", ("cat", "red", *LEFT)), ("cat", "blue", *LEFT)))
    assert tally.pictures == 3
    assert {aspect: tally.share(aspect) for aspect in ASPECTS} == {
        "thing": Share(4, 5),
        "colour": Share(3, 5),
        "background": Share(3, 3),
        "style": Share(3, 3),
        "count": Share(2, 3),
        "both": Share(1, 1),
        "relation": Share(1, 1),
        "everything": Share(1, 3),
    }


def test_what_was_never_asked_has_no_share() -> None:
    tally = Tally()
    assert tally.share("thing") is None
    tally.add(score(TWIN_CATS, truth(TWIN_CATS)))
    assert tally.share("both") is None
    assert tally.share("thing") == Share(2, 2)


@pytest.mark.parametrize("share", [Share(0, 7), Share(3, 8), Share(950, 1000), Share(10, 10)])
def test_the_interval_ends_where_the_share_seen_is_two_sided_95_percent_off(share: Share) -> None:
    """Wilson's interval holds every p with |share - p| <= 1.96 sqrt(p (1 - p) / n)."""
    for end in share.interval():
        off = abs(share.value - end)
        assert off == pytest.approx(1.959964 * (end * (1 - end) / share.asked) ** 0.5, abs=1e-7)
    low, high = share.interval()
    assert 0 <= low <= share.value + 1e-9
    assert share.value - 1e-9 <= high <= 1
    assert high - low > 0.01

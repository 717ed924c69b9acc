"""The numbers of what networks see, each computed a second time in the plainest way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
import pytest
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from limner.core.intervals import paired_change
from limner.report.copies import FEWEST, Copies, calibrate
from limner.report.encoders import Encoder
from limner.report.prompts import Asked, Group
from limner.report.scores import CALLED, OTHERS, Drawn, Known, Score, Seen, judged, scores

WIDTH = 6
Rows = NDArray[numpy.float64]


def rows(count: int, seed: int) -> Rows:
    found = numpy.random.default_rng(seed).normal(size=(count, WIDTH))
    unit: Rows = found / numpy.linalg.norm(found, axis=1, keepdims=True)
    return unit


def words(texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(numpy.concatenate([rows(1, len(text)) for text in texts]))


def never(images: Sequence[Image]) -> Tensor:
    raise AssertionError("the pictures are there already")


def asked(*groups: Group) -> tuple[Asked, ...]:
    return tuple(Asked("a" * (place + 1), group) for place, group in enumerate(groups))


def seen(drawn: Drawn, *, reads: bool = True, learned: int = 12, held_out: int = 6) -> Seen:
    known = Known(rows(learned, 1), rows(held_out, 2))
    count = len(drawn.each())
    return Seen(
        Encoder("net", never, words if reads else None),
        known,
        {"base": rows(count, 3), "step_000010": rows(count, 4)},
        calibrate(known.learned, known.held_out),
    )


def named(found: list[Score], metric: str, prompts: str) -> Score:
    (one,) = [score for score in found if (score.metric, score.prompts) == (metric, prompts)]
    return one


def test_the_fit_to_prompts_and_the_likeness_are_means_of_cosines() -> None:
    drawn = Drawn(asked("recipe", "learned from", "unrelated"), count=2)
    eyes = seen(drawn)
    found, _ = scores(eyes, drawn, "base", "step_000010")
    texts = [one.prompt for one in drawn.each()]
    for prompts, places in ((CALLED, [0, 1, 2, 3]), (OTHERS, [4, 5])):
        fit, like, moved = (
            named(found, metric, prompts)
            for metric in ("CLIP score", "likeness to the training pictures", "distance from the base's picture")
        )
        for model, values in (("base", fit.base), ("step_000010", fit.tuned)):
            cosines = [float(eyes.drawn[model][p] @ words([texts[p]])[0].numpy()) for p in places]
            assert values == pytest.approx(sum(100 * max(0.0, cosine) for cosine in cosines) / len(cosines))
        for model, value in (("base", like.base), ("step_000010", like.tuned)):
            pairs = [eyes.drawn[model][p] @ other for p in places for other in eyes.known.learned]
            assert value == pytest.approx(sum(pairs) / len(pairs))
        distances = [1 - eyes.drawn["base"][p] @ eyes.drawn["step_000010"][p] for p in places]
        assert (moved.base, moved.tuned) == (0.0, pytest.approx(sum(distances) / len(distances)))
        assert moved.change == paired_change([0.0] * len(places), [max(0.0, d) for d in distances])
        assert fit.pictures == len(places)


def test_distances_of_sets_need_enough_pictures_and_say_how_many_there_are() -> None:
    few = Drawn(asked(*["recipe"] * 9), count=1)
    found, left_out = scores(seen(few), few, "base", "step_000010")
    assert not [score for score in found if "given pictures" in score.metric]
    reasons = dict(left_out)
    assert "9 pictures" in reasons["CMMD to the given pictures by net"]
    assert "18 given ones; it takes 10 of each" in reasons["KID's distance to the given pictures by net"]
    enough = Drawn(asked(*["recipe"] * 10), count=1)
    found, left_out = scores(seen(enough), enough, "base", "step_000010")
    assert {score.metric for score in found if "given pictures" in score.metric} == {
        "KID's distance to the given pictures",
        "CMMD to the given pictures",
    }
    assert "Fréchet distance to the given pictures by net" in dict(left_out)


def test_a_network_that_reads_no_words_has_no_clip_numbers() -> None:
    drawn = Drawn(asked(*["recipe"] * 10), count=1)
    found, left_out = scores(seen(drawn, reads=False), drawn, "base", "step_000010")
    assert not [
        name for name in [*(score.metric for score in found), *dict(left_out)] if "CLIP" in name or "CMMD" in name
    ]


def test_diversity_is_that_of_each_prompt_s_own_pictures() -> None:
    drawn = Drawn(asked("recipe", "held out"), count=3)
    eyes = seen(drawn)
    found, left_out = scores(eyes, drawn, "base", "step_000010")
    one = named(found, "diversity of a prompt's pictures", CALLED)
    own = eyes.drawn["step_000010"]
    each = [sum(1 - own[a] @ own[b] for a, b in ((p, p + 1), (p, p + 2), (p + 1, p + 2))) / 3 for p in (0, 3)]
    assert (one.tuned, one.pictures) == (pytest.approx(sum(each) / 2), 2)
    assert "diversity" not in dict(left_out)
    single = Drawn(asked("recipe"), count=1)
    assert "--count 2" in dict(scores(seen(single), single, "base", "step_000010")[1])["diversity"]


def test_a_copy_is_nearer_than_any_picture_that_was_held_out() -> None:
    learned, held_out = rows(9, 1), rows(6, 2)
    copies = calibrate(learned, held_out)
    assert copies is not None
    assert copies.threshold == max(float(one @ other) for one in held_out for other in learned)
    assert (copies.pictures, copies.taken_from) == (6, "those that were held out")
    assert not any(one.copy for one in copies.of(held_out))
    found = copies.of(learned[[4, 2]])
    assert [(one.place, one.copy) for one in found] == [(4, True), (2, True)]
    assert found[0].likeness == pytest.approx(1)


def test_without_enough_held_out_pictures_those_that_were_learned_from_say_it() -> None:
    learned = rows(FEWEST, 1)
    copies = calibrate(learned, rows(FEWEST - 1, 2))
    assert copies is not None
    assert copies.threshold == max(
        float(one @ other) for place, one in enumerate(learned) for other in learned[place + 1 :]
    )
    assert calibrate(rows(FEWEST - 1, 1), rows(FEWEST - 1, 2)) is None


def test_the_share_of_copies_is_of_what_was_learned_only() -> None:
    drawn = Drawn(asked("recipe", "recipe", "unrelated"), count=1)
    learned = rows(8, 1)
    drawn_rows = numpy.concatenate([learned[[3]], -learned[[3]], learned[[3]]])
    eyes = Seen(
        Encoder("net", never, None),
        Known(learned, rows(0, 2)),
        {"base": -drawn_rows, "step_000010": drawn_rows},
        Copies(learned, 0.999, 8, "x"),
    )
    one = named(scores(eyes, drawn, "base", "step_000010")[0], "share of copies", CALLED)
    assert (one.base, one.tuned, one.pictures) == (0.5, 0.5, 2)


def test_what_is_right_in_scenes_is_compared_picture_by_picture() -> None:
    readings = {"base": [{"things": 1.0}, {"things": 0.0}], "tuned": [{"things": 0.5}, {"things": 0.0}]}
    (one,) = judged(readings, "base", "tuned")
    assert (one.metric, one.base, one.tuned, one.pictures) == ("right: things", 0.5, 0.25, 2)
    assert one.change == paired_change([1, 0], [0.5, 0])
    assert judged({"base": [], "tuned": []}, "base", "tuned") == []
    assert math.isclose(one.as_dict()["change"]["value"], -0.25)

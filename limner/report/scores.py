"""What networks see in the pictures of the base model and of a checkpoint, in numbers, each pair from one noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.core.intervals import Change, paired_change
from limner.evaluation.distance_intervals import FEWEST_PICTURES, GROUPS, paired_interval
from limner.evaluation.distances import diversity, frechet, gaussian_distance, kernel_distance
from limner.report.copies import Copies
from limner.report.prompts import SUBJECT, Asked

if TYPE_CHECKING:
    from limner.evaluation.distance_intervals import SetDistance
    from limner.report.encoders import Encoder, Rows

CALLED, OTHERS = "prompts of what was learned", "other prompts"


@dataclass(frozen=True)
class Score:
    """One number of the base model and of a checkpoint; the interval is that of the change."""

    metric: str
    encoder: str
    """The network that saw the pictures, as the recipe names it."""
    prompts: str
    """Of which prompts the pictures are."""
    base: float
    tuned: float
    change: Change
    pictures: int
    """Of each of the two; for diversity prompts."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        return {**dataclasses.asdict(self), "within_noise": self.change.within_noise}


@dataclass(frozen=True)
class Known:
    """The pictures that a run was given, as an encoder sees them."""

    learned: Rows
    """Those that it learned from."""
    held_out: Rows
    """The others, [0, D] where there are none."""


@dataclass(frozen=True)
class Seen:
    """All pictures of a comparison as one encoder sees them."""

    encoder: Encoder
    known: Known
    drawn: Mapping[str, Rows]
    """Of each model the pictures, prompt by prompt."""
    copies: Copies | None
    """Where a copy begins; None where too few pictures are known to tell."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn: ``count`` pictures of each prompt, in this order."""

    asked: tuple[Asked, ...]
    count: int

    def each(self) -> list[Asked]:
        """Returns what was asked for each picture."""
        return [one for one in self.asked for _ in range(self.count)]

    def parts(self) -> dict[str, list[int]]:
        """Returns the places of the pictures of what was learned and of the others."""
        found: dict[str, list[int]] = {CALLED: [], OTHERS: []}
        for place, one in enumerate(self.each()):
            found[CALLED if one.group in SUBJECT else OTHERS].append(place)
        return {name: places for name, places in found.items() if places}


def scores(seen: Seen, drawn: Drawn, base: str, tuned: str) -> tuple[list[Score], list[tuple[str, str]]]:
    """Returns what one encoder says of a checkpoint beside its base, and what it cannot say: what, and why."""
    found: list[Score] = []
    for part, places in drawn.parts().items():
        before, after = seen.drawn[base][places], seen.drawn[tuned][places]
        if seen.encoder.read is not None:
            found.append(_fit(seen, [drawn.each()[place].prompt for place in places], part, before, after))
        found.append(_likeness(seen, part, before, after))
        found.append(_moved(seen, part, before, after))
        if part == CALLED and seen.copies is not None:
            found.append(_copied(seen, seen.copies, part, before, after))
    places = drawn.parts().get(CALLED, [])
    distances, left_out = _distances(seen, seen.drawn[base][places], seen.drawn[tuned][places])
    found += distances
    if seen.copies is None:
        left_out.append(
            (f"copies by {seen.encoder.name}", "too few pictures are known to tell how near a new one comes")
        )
    if drawn.count < 2:
        left_out.append(("diversity", "there is one picture of each prompt; --count 2 draws more"))
    elif places:
        found.append(_diversity(seen, drawn, places, base, tuned))
    return sorted(found, key=lambda one: one.prompts != CALLED), left_out


def judged(readings: Mapping[str, Sequence[Mapping[str, float]]], base: str, tuned: str) -> list[Score]:
    """Returns how much of what the built-in world's scenes ask for is right, by the judge; a mapping per picture."""
    from limner.report.encoders import JUDGE

    if not readings[base]:
        return []
    found = []
    for name in readings[base][0]:
        before, after = ([one[name] for one in readings[model]] for model in (base, tuned))
        found.append(_score(f"right: {name}", JUDGE, "scenes of the built-in world", before, after))
    return found


def _score(metric: str, encoder: str, prompts: str, before: Sequence[float], after: Sequence[float]) -> Score:
    change = paired_change(before, after)
    return Score(metric, encoder, prompts, _mean(before), _mean(after), change, len(before))


def _fit(seen: Seen, texts: list[str], part: str, before: Rows, after: Rows) -> Score:
    """CLIP score, arXiv:2104.08718: the cosine of picture and prompt, none below 0; times 100, not times 2.5."""
    prompts = seen.encoder.prompts(texts)
    values = [(100 * (rows * prompts).sum(axis=1).clip(min=0)).tolist() for rows in (before, after)]
    return _score("CLIP score", seen.encoder.name, part, values[0], values[1])


def _likeness(seen: Seen, part: str, before: Rows, after: Rows) -> Score:
    """CLIP-I and DINO of arXiv:2208.12242: the mean cosine of a picture with all that the run learned from."""
    means = [(rows @ seen.known.learned.T).mean(axis=1).tolist() for rows in (before, after)]
    return _score("likeness to the training pictures", seen.encoder.name, part, means[0], means[1])


def _moved(seen: Seen, part: str, before: Rows, after: Rows) -> Score:
    distance = (1 - (before * after).sum(axis=1)).clip(min=0).tolist()
    return _score("distance from the base's picture", seen.encoder.name, part, [0.0] * len(distance), distance)


def _copied(seen: Seen, copies: Copies, part: str, before: Rows, after: Rows) -> Score:
    flags = [[float(one.copy) for one in copies.of(rows)] for rows in (before, after)]
    return _score("share of copies", seen.encoder.name, part, flags[0], flags[1])


def _distances(seen: Seen, before: Rows, after: Rows) -> tuple[list[Score], list[tuple[str, str]]]:
    """Returns how far the drawn pictures as a set are from the given ones, where there are enough of both."""
    import numpy

    given = numpy.concatenate([seen.known.learned, seen.known.held_out])
    kinds: list[tuple[str, SetDistance, int]] = [
        ("KID's distance to the given pictures", kernel_distance, FEWEST_PICTURES),
        ("Fréchet distance to the given pictures", frechet, GROUPS),
    ]
    if seen.encoder.read is not None:
        kinds.append(("CMMD to the given pictures", gaussian_distance, FEWEST_PICTURES))
    found, left_out = [], []
    for name, distance, fewest in kinds:
        if min(len(before), len(given)) < fewest:
            reason = f"{len(before)} pictures of {CALLED} and {len(given)} given ones; it takes {fewest} of each"
            left_out.append((f"{name} by {seen.encoder.name}", reason))
            continue
        change = paired_interval(distance, given, before, after)
        values = distance(before, given), distance(after, given)
        found.append(Score(name, seen.encoder.name, CALLED, *values, change, len(before)))
    return found, left_out


def _diversity(seen: Seen, drawn: Drawn, places: list[int], base: str, tuned: str) -> Score:
    names = [place // drawn.count for place in places]
    numbers = [list(diversity(seen.drawn[model][places], names)[1].values()) for model in (base, tuned)]
    return _score("diversity of a prompt's pictures", seen.encoder.name, CALLED, numbers[0], numbers[1])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

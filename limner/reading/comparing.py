"""All captions of a set against all its pictures; copies of pictures, and captions that read alike, are one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.reading.embedding import Embedded

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Pair:
    """A picture and one of its captions."""

    id: str
    caption: str
    score: float
    """100 x max(cosine, 0)."""
    rank: int
    """The place of this caption among the captions that are not this picture's own; 1 is the best fitting."""
    captions: int
    """How many captions were ranked, this one included."""
    better_caption: str | None
    """The best fitting of the other captions, where it fits better than this one."""
    fits_better: str | None
    """Another picture that this caption fits better, by more than the spread of the scores of wrong pairs."""
    score_there: float | None
    """The score of this caption with that picture."""


@dataclass(frozen=True)
class Table:
    """Different pictures and different captions, and which belong together."""

    ids: tuple[str, ...]
    """Of each different picture, its first name."""
    captions: tuple[str, ...]
    """Of the captions that the model reads alike, the first."""
    own: tuple[frozenset[int], ...]
    """Of each picture the numbers of its captions."""
    pairs: tuple[tuple[int, int], ...]
    """Numbers of picture and caption."""


def tabulate(
    points: Embedded, texts: dict[str, list[str]], read: dict[str, tuple[int, ...]]
) -> tuple[Table, list[int]]:
    """Returns the table, and where each different picture stands among the points first."""
    numbers: dict[tuple[int, ...], int] = {}
    captions: list[str] = []
    for text, tokens in read.items():
        if tokens not in numbers:
            numbers[tokens] = len(captions)
            captions.append(text)
    places: dict[str, int] = {}
    own: list[set[int]] = []
    first: list[int] = []
    for index, (id, sha256) in enumerate(zip(points.ids, points.sha256, strict=True)):
        if not texts[id]:
            continue
        if sha256 not in places:
            places[sha256] = len(own)
            own.append(set())
            first.append(index)
        own[places[sha256]].update(numbers[read[text]] for text in texts[id])
    pairs = tuple((picture, caption) for picture, several in enumerate(own) for caption in sorted(several))
    ids = tuple(points.ids[index] for index in first)
    return Table(ids, tuple(captions), tuple(map(frozenset, own)), pairs), first


@dataclass(frozen=True)
class Similarities:
    """What is kept of all cosines between pictures and captions."""

    of_pair: tuple[float, ...]
    rank: tuple[int, ...]
    other_caption: tuple[tuple[float, int] | None, ...]
    """By picture, the best caption that is not its own."""
    other_picture: tuple[tuple[float, int] | None, ...]
    """By caption, the best picture whose own it is not."""
    wrong_mean: float | None
    wrong_spread: float | None


def compare(pictures: Tensor, captions: Tensor, table: Table) -> Similarities:
    """Goes through all cosines, some pictures at a time."""
    import torch

    rows = max(1, _PAIRS_AT_ONCE // len(captions))
    of_pair, rank = [], []
    other_caption: list[tuple[float, int] | None] = []
    best = torch.full((len(captions),), -torch.inf)
    best_at = torch.full((len(captions),), -1)
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, len(pictures), rows):
        cosines = pictures[start : start + rows] @ captions.T
        foreign = torch.ones_like(cosines, dtype=torch.bool)
        for row, several in enumerate(table.own[start : start + rows]):
            foreign[row, sorted(several)] = False
        others = cosines.masked_fill(~foreign, -torch.inf)
        for row, several in enumerate(table.own[start : start + rows]):
            for caption in sorted(several):
                of_pair.append(float(cosines[row, caption]))
                rank.append(1 + int((others[row] > cosines[row, caption]).sum()))
        values, places = others.max(dim=1)
        other_caption += [_found(value, place) for value, place in zip(values.tolist(), places.tolist(), strict=True)]
        values, places = others.max(dim=0)
        better = values > best
        best, best_at = torch.where(better, values, best), torch.where(better, places + start, best_at)
        wrong = (100 * cosines[foreign].clamp(min=0)).double()
        count, total, squares = count + len(wrong), total + float(wrong.sum()), squares + float((wrong**2).sum())
    mean = total / count if count else None
    spread = None if mean is None else max(0.0, squares / count - mean**2) ** 0.5
    other_picture = [_found(value, place) for value, place in zip(best.tolist(), best_at.tolist(), strict=True)]
    return Similarities(tuple(of_pair), tuple(rank), tuple(other_caption), tuple(other_picture), mean, spread)


def _found(value: float, place: int) -> tuple[float, int] | None:
    return None if value == -math.inf else (value, place)


def pairs_of(table: Table, similarities: Similarities) -> list[Pair]:
    pairs = []
    for (picture, caption), cosine, rank in zip(table.pairs, similarities.of_pair, similarities.rank, strict=True):
        score = to_score(cosine)
        caption_there = similarities.other_caption[picture]
        picture_there = similarities.other_picture[caption]
        if picture_there is not None and to_score(picture_there[0]) <= score + (similarities.wrong_spread or 0.0):
            picture_there = None
        pairs.append(
            Pair(
                id=table.ids[picture],
                caption=table.captions[caption],
                score=score,
                rank=rank,
                captions=1 + len(table.captions) - len(table.own[picture]),
                better_caption=None if caption_there is None or rank == 1 else table.captions[caption_there[1]],
                fits_better=None if picture_there is None else table.ids[picture_there[1]],
                score_there=None if picture_there is None else to_score(picture_there[0]),
            )
        )
    return pairs


def to_score(cosine: float) -> float:
    """Returns 100 x max(cosine, 0)."""
    return 100 * max(cosine, 0.0)

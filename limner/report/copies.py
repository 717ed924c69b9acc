"""Whether a drawn picture is a copy of one that was learned from: nearer than new pictures of the same kind come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.evaluation.distances import nearest

if TYPE_CHECKING:
    from limner.report.encoders import Rows

FEWEST = 5
"""New pictures that the threshold is taken from, at least."""


@dataclass(frozen=True)
class Nearest:
    """The picture that was learned from which a drawn one is nearest to."""

    place: int
    """Its place among those that were learned from."""
    likeness: float
    """The cosine of the two."""
    copy: bool
    """It is nearer than any of the new pictures that the threshold was taken from."""


@dataclass(frozen=True)
class Copies:
    """The threshold, and the pictures that were learned from."""

    learned: Rows
    threshold: float
    """The highest cosine of a picture that is new to the model with its nearest of those that it learned from."""
    pictures: int
    """New ones, from which that was taken: one more of their kind is above it once in ``pictures`` + 1 times."""
    taken_from: str
    """Which they are."""

    def of(self, rows: Rows) -> list[Nearest]:
        """Returns the nearest one of each picture, [N, D]."""
        places, cosines = nearest(rows, self.learned)
        return [
            Nearest(int(place), float(cosine), bool(cosine > self.threshold))
            for place, cosine in zip(places, cosines, strict=True)
        ]


def calibrate(learned: Rows, held_out: Rows) -> Copies | None:
    """Returns the threshold, from the pictures that were held out, which no copy is among; where those are fewer than
    :data:`FEWEST`, from how near each that was learned from is to the others. None where those are too few too.
    """
    import numpy

    if len(held_out) >= FEWEST:
        _, cosines = nearest(held_out, learned)
        return Copies(learned, float(cosines.max()), len(held_out), "those that were held out")
    if len(learned) < FEWEST:
        return None
    products = learned @ learned.T
    numpy.fill_diagonal(products, -1.0)
    highest = float(products.max(axis=1).max())
    return Copies(learned, highest, len(learned), "those that it learned from, each beside the others")

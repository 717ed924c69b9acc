"""Which pictures of a class folder are used, and which the base model has yet to draw."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from pydantic import Field

from limner.core.config import Config
from limner.data.example import LeftOut
from limner.data.listing import Listing

RECORD = "limner-class.json"
"""The file that says how the drawn pictures of a class folder were made."""
_DRAWN = re.compile(r"limner-class-(\d{4,})\.png")


class ClassDrawing(Config):
    """How the base model draws the class pictures that are missing."""

    steps: int = Field(default=50, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(default=7.5, ge=0, le=1000)
    """Guidance scale; 1 is none."""
    scheduler: str = "ddim"
    """Name of the sampler; empty is the model's own."""
    seed: int = Field(default=0, ge=0)
    """Seed of the first picture; the next has the next seed."""
    batch_size: int = Field(default=4, ge=1)
    """Pictures drawn at once. The set is the same whatever it is."""


def drawn_name(number: int) -> str:
    """Returns the name of a drawn picture, counted from 0."""
    return f"limner-class-{number:04d}.png"


@dataclass(frozen=True)
class ClassFolder:
    """The pictures of a class folder: the user's own, and as many drawn ones as lack until ``wanted`` are there."""

    listing: Listing
    wanted: int | None
    """None: whatever is there is used, and nothing is drawn."""

    @property
    def drawn(self) -> dict[int, str]:
        """The ids of the drawn pictures that are there, by number."""
        found = {id: _DRAWN.fullmatch(id) for id in self.listing.images}
        return {int(match[1]): id for id, match in found.items() if match}

    @property
    def numbers(self) -> range:
        """The numbers of the drawn pictures that belong to the set, there or not."""
        own = len(self.listing.images) - len(self.drawn)
        return range(max(0, (self.wanted or 0) - own))

    @property
    def missing(self) -> list[int]:
        """The numbers of the pictures that have yet to be drawn."""
        drawn = self.drawn
        return [number for number in self.numbers if number not in drawn]

    def used(self) -> Listing:
        """Returns the listing without drawn pictures that the set does not need, and without the record."""
        numbers = self.numbers
        surplus = [id for number, id in self.drawn.items() if self.wanted is not None and number not in numbers]
        quiet = [LeftOut(id, "drawn for a run that asked for more class pictures") for id in surplus]
        if RECORD in self.listing.others:
            quiet.append(LeftOut(RECORD, "says how the class pictures were drawn"))
        return dataclasses.replace(
            self.listing,
            images={id: path for id, path in self.listing.images.items() if id not in surplus},
            others={id: path for id, path in self.listing.others.items() if id != RECORD},
            quiet=(*self.listing.quiet, *quiet),
        )

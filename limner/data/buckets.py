"""Which size a picture is trained at, and which part of it is seen."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from limner.core.config import Config

Size = tuple[int, int]
"""Width and height in pixels, in this order everywhere."""

CropChoice = Literal["center", "random"]
CROP_GRID = 8
"""Random crops are this many pixels apart, so that a cache of latents stays finite."""
MOST_PIXELS = 89_478_485
"""Pillow's own limit against pictures made to exhaust the memory: a quarter of a gigabyte of RGB."""


class ImageConfig(Config):
    """How pictures are chosen, scaled and cropped."""

    resolution: int = Field(default=512, ge=8, le=8192)
    """Pixels on the side of the square; other buckets have about its area. Use what the model was made for."""
    buckets: bool = True
    """Keep the shape of a picture: it goes to the bucket of the nearest aspect ratio. False: all are cropped square."""
    bucket_step: int = Field(default=64, ge=8, le=1024)
    """Sides of buckets are multiples of this many pixels. A smaller step crops less and makes more buckets."""
    max_aspect: float = Field(default=2.0, ge=1, le=16, allow_inf_nan=False)
    """The longer side of a bucket is at most this many times the shorter; more extreme pictures are cropped to it."""
    crop: CropChoice = "center"
    """Which part is kept where picture and bucket differ in shape: the middle, or another part at each visit."""
    max_cut: float | None = Field(default=None, ge=0, lt=1)
    """Stop where a visit would not see more than this share of a picture; 0.1 keeps a subject from being cut."""
    flip: bool = False
    """Flip half of the visits left to right. Not for lettering, nor for faces that should stay themselves."""
    background: str = "#ffffff"
    """The colour, as #rrggbb, behind transparent parts."""
    max_pixels: int = Field(default=MOST_PIXELS, ge=1, le=MOST_PIXELS)
    """A picture with more pixels by its header is refused before it is unpacked."""
    bad_files: Literal["stop", "leave_out"] = "stop"
    """What to do about pictures that cannot be read: stop and name them, or go on without them and name them."""

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            raise ValueError(f"{value!r} is no colour. Write it as '#rrggbb', for instance '#ffffff' for white.")
        return value.lower()

    @model_validator(mode="after")
    def _buckets_fit(self) -> ImageConfig:
        if self.buckets and self.bucket_step % 8:
            raise ValueError(f"bucket_step {self.bucket_step} is not a multiple of 8, which latents need.")
        if self.buckets and self.resolution % self.bucket_step:
            multiple = max(round(self.resolution / self.bucket_step), 1) * self.bucket_step
            divisor = math.gcd(self.resolution, self.bucket_step)
            step = f"bucket_step to {divisor}, or " if divisor % 8 == 0 else ""
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of bucket_step {self.bucket_step}. "
                f"Set resolution to {multiple}, or {step}buckets to false."
            )
        return self

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """Returns the background as three numbers in [0, 255]."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


# ------------------------------------------------------------------------------------------------------- buckets
def bucket_sizes(config: ImageConfig) -> tuple[Size, ...]:
    """Returns the sizes to train at, narrow ones first: the square and, if wanted, shapes of about its area.

    A bucket has sides that are multiples of the step, at most ``resolution`` squared pixels, and no room on either
    side for one more step. So the turned bucket of every bucket is there too.
    """
    side, step = config.resolution, config.bucket_step
    if not config.buckets:
        return ((side, side),)

    def longest(other: int) -> int:
        return side * side // other // step * step

    widths = range(step, math.ceil(side * config.max_aspect) + step, step)
    sizes = [(width, longest(width)) for width in widths if longest(width) >= step]
    return tuple(
        (width, height)
        for width, height in sizes
        if longest(height) == width and max(width, height) <= config.max_aspect * min(width, height)
    )


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Returns the bucket of the nearest aspect ratio, on a logarithmic scale: 2:1 and 1:2 are equally far from 1:1.

    Of two equally near ones, the one closer to a square; so a turned picture gets the turned bucket.
    """
    wanted = _log_aspect(size)

    def distance(bucket: Size) -> tuple[float, float, Size]:
        aspect = _log_aspect(bucket)
        return round(abs(aspect - wanted), 12), abs(aspect), bucket

    return min(buckets, key=distance)


def _log_aspect(size: Size) -> float:
    return math.log(size[0]) - math.log(size[1])


# ----------------------------------------------------------------------------------------------------- placement
@dataclass(frozen=True)
class Placement:
    """How a picture is made to fill its bucket at one visit."""

    resize: Size
    """The whole picture is scaled to this size, which covers the bucket."""
    crop: tuple[int, int, int, int]
    """Left, top, width, height of the part that is seen, in scaled pixels."""
    flip: bool
    """Left and right are exchanged at the end."""

    @property
    def cut_off(self) -> float:
        """The part of the picture's area that is not seen, in [0, 1)."""
        return 1 - self.crop[2] * self.crop[3] / (self.resize[0] * self.resize[1])


def place(size: Size, bucket: Size, *, crop: CropChoice, flip: bool, rng: random.Random) -> Placement:
    """Returns the placement of an upright picture in its bucket: scaled without distortion until it covers it, cropped.

    Three numbers are drawn from ``rng`` whatever the choices are, so that switching flips on moves no crop.
    """
    width, height = covering_size(size, bucket)
    across, down, turned = rng.random(), rng.random(), rng.random()
    spare_x, spare_y = width - bucket[0], height - bucket[1]
    if crop == "center":
        left, top = spare_x // 2, spare_y // 2
    else:
        left, top = _grid_offset(spare_x, across), _grid_offset(spare_y, down)
    return Placement((width, height), (left, top, *bucket), flip and turned < 0.5)


def always_seen(size: Size, bucket: Size, crop: CropChoice) -> tuple[int, int, int, int]:
    """Returns left, top, width and height, in scaled pixels, of what every visit sees; a side is 0 if there is none."""
    covering = covering_size(size, bucket)
    sides = []
    for spare, side in zip((covering[0] - bucket[0], covering[1] - bucket[1]), bucket, strict=True):
        first, last = spare // 2, spare // 2
        if crop == "random":
            first, last = _grid_offset(spare, 0.0), _grid_offset(spare, 1 - 2**-53)
        sides.append((last, max(0, first + side - last)))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def placements(size: Size, bucket: Size, *, crop: CropChoice) -> list[Placement]:
    """Returns every placement that :func:`place` can give, flips aside."""
    if crop == "center":
        return [place(size, bucket, crop=crop, flip=False, rng=random.Random(0))]
    resize = covering_size(size, bucket)
    across, down = (
        [_grid_offset(spare, (step + 0.5) / (spare // CROP_GRID + 1)) for step in range(spare // CROP_GRID + 1)]
        for spare in (resize[0] - bucket[0], resize[1] - bucket[1])
    )
    return [Placement(resize, (left, top, *bucket), False) for left in across for top in down]


def covering_size(size: Size, bucket: Size) -> Size:
    """Returns the size of the picture scaled so that it just covers the bucket, each side off by less than a pixel."""
    scale = enlargement(size, bucket)
    return round(size[0] * scale), round(size[1] * scale)


def enlargement(size: Size, bucket: Size) -> float:
    """Returns the factor by which a picture is scaled to cover its bucket; above 1 it has too few pixels."""
    return max(bucket[0] / size[0], bucket[1] / size[1])


def _grid_offset(spare: int, u: float) -> int:
    """Returns an offset in [0, spare], one of a grid that lies in the middle of it; ``u`` in [0, 1) chooses."""
    steps = spare // CROP_GRID
    return (spare - steps * CROP_GRID) // 2 + CROP_GRID * int(u * (steps + 1))

"""Masks: which part of a picture its loss looks at, from a file beside the picture or from its alpha channel."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.bad_image import BadImage
from limner.data.buckets import ImageConfig, Placement, Size, placements
from limner.data.example import Example, FileImage, ImageSource, LeftOut, Reading
from limner.data.image import decode
from limner.data.listing import masked_stem, split_suffix
from limner.data.mask_facts import MaskFacts, MaskMemory, NoMask, mask_memory
from limner.data.summary import listed, printable
from limner.data.text import counted, first_few

if TYPE_CHECKING:
    import numpy
    from PIL import Image
    from torch import Tensor

    from limner.data.ledger import Prepared

    Array = numpy.ndarray[Any, Any]

HALF_WHITE = 128
"""A mask with no pixel of at least this value has nothing inside."""
_GREY_TOLERANCE = 8
_LOOKED_FOR = "Looked for photo.mask.png and photo-masklabel.png beside photo.jpg."


class Masks(Config):
    """Train on a part of each picture: what is white in its mask."""

    source: Literal["alpha", "files"]
    """Where masks are: in the pictures' alpha channel (alpha, what is opaque is inside), or for photo.jpg in
    photo.mask.png or photo-masklabel.png beside it (files, white is inside), of the same size."""
    outside: float = Field(default=0.1, ge=0, lt=1)
    """What lies outside counts this much, what is inside 1, grey in between; 0 ignores the outside."""
    missing: Literal["stop", "whole"] = "stop"
    """What to do with a picture without a mask: stop, or count the whole of it."""

    def mask_in(self, data: bytes, images: ImageConfig) -> tuple[Image.Image | None, tuple[str, ...]]:
        """Returns the mask that an encoded file holds, upright, mode L, white inside; and notes on how it was read.

        None for a picture without an alpha channel. Raises BadImage for what is no mask.
        """
        if self.source == "alpha":
            return decode(data, background=images.background_rgb, max_pixels=images.max_pixels).alpha, ()
        decoded = decode(data, background=(0, 0, 0), max_pixels=images.max_pixels)
        return _grey(decoded.image), decoded.notes

    def latent_mask(self, data: bytes, placement: Placement, size: tuple[int, int], images: ImageConfig) -> Tensor:
        """Returns the mask of each latent, [1, h, w] float32 in [0, 1], for ``size`` = (h, w).

        ``data`` is a file that :func:`look_at_masks` has found to hold a mask.
        """
        import torch

        mask, _ = self.mask_in(data, images)
        assert mask is not None
        return torch.from_numpy(area_average(mask, placement, size)).float()[None]

    def weigh(self, mask: Tensor) -> Tensor:
        """Returns how much each latent counts, float32 in [outside, 1]; exactly 1 where the mask is 1."""
        return (self.outside + (1 - self.outside) * mask.double()).float()


@dataclass(frozen=True)
class PictureMask:
    """The mask of one picture."""

    source: ImageSource
    """The file that holds it: its own, or the picture."""
    sha256: str
    inside: float
    """The share of the whole picture that is inside, in [0, 1]; grey counts as its part."""
    notes: tuple[str, ...]


# ------------------------------------------------------------------------------------------------------- finding
def with_masks(reading: Reading, masks: Masks | None) -> Reading:
    """Returns the reading with each example's mask file in it, and a note on mask files that nothing uses.

    Raises UserError where it is not clear which mask is whose.
    """
    files = [row for row in reading.left_out if row.mask is not None]
    if masks is None or masks.source != "files":
        why = "masks is not set" if masks is None else f"masks.source is {masks.source}"
        note = (
            f"{counted(len(files), 'file')} left out that look like masks ({first_few([row.id for row in files])}): "
            f"{why}. Set masks.source: files to use them, or move them away; rename them if they are pictures."
        )
        return replace(reading, notes=(*reading.notes, note)) if files else reading
    if not all(isinstance(example.image, FileImage) for example in reading.examples):
        raise UserError(
            f"'files' needs a file for each picture; those of {reading.layout} lie inside other files.",
            where="masks.source",
            fix="Use masks.source: alpha, or unpack the pictures into a folder.",
        )
    found = _mask_of_each(reading.examples, files)
    examples = tuple(
        replace(one, mask=FileImage(found[one.id][1])) if one.id in found else one for one in reading.examples
    )
    used = {id for id, _ in found.values()}
    unused = [_unused(row) for row in files if row.id not in used]
    left_out = tuple(row for row in reading.left_out if row.mask is None)
    notes = [f"{counted(len(unused), 'mask')} not used ({unused[0].id}: {unused[0].reason})."] if unused else []
    return replace(reading, examples=examples, left_out=(*left_out, *unused), notes=(*reading.notes, *notes))


def _mask_of_each(examples: Sequence[Example], files: Sequence[LeftOut]) -> dict[str, tuple[str, Path]]:
    """Returns the id and the place of the mask of each example that has one, by the example's id."""
    by_stem: dict[str, list[tuple[str, Path]]] = {}
    for row in files:
        stem = masked_stem(row.id)
        if stem is not None and row.mask is not None and split_suffix(row.id)[1] == ".png":
            by_stem.setdefault(stem, []).append((row.id, row.mask))
    found: dict[str, tuple[str, Path]] = {}
    owner: dict[str, str] = {}
    for example in examples:
        stem = split_suffix(example.id)[0]
        masks = by_stem.get(stem, [])
        if len(masks) > 1:
            names = " and ".join(id for id, _ in masks)
            raise UserError(f"{example.id!r} has two masks: {names}.", where="masks.source", fix="Keep one of them.")
        if masks and stem in owner:
            raise UserError(
                f"{masks[0][0]!r} stands beside two pictures of that name, {owner[stem]} and {example.id}.",
                where="masks.source",
                fix="Rename one picture, and give each its own mask.",
            )
        if masks:
            found[example.id], owner[stem] = masks[0], example.id
    return found


def _unused(row: LeftOut) -> LeftOut:
    if split_suffix(row.id)[1] != ".png":
        return replace(row, reason="a mask by its name, but not a PNG file")
    return replace(row, reason="a mask without a picture of the same name that is used")


# ------------------------------------------------------------------------------------------------------- looking
def look_at_masks(
    prepared: Sequence[Prepared], images: ImageConfig, masks: Masks, *, cache: Path | None
) -> list[PictureMask | None]:
    """Returns the mask of each picture, None for those without one, after decoding all of them.

    What decoding tells is kept in ``cache``/masks.jsonl by the bytes of the file: the next look only hashes them.

    Raises UserError for masks that are damaged, coloured, of another size than their picture, or with nothing inside
    the part that is seen. Each crop that a visit may draw must see something of the inside: its loss would otherwise
    look at the outside alone, or at nothing. A picture without a mask is an error too, unless ``masks.missing`` is
    whole and others have one.
    """
    looks: list[PictureMask | str | None] = []
    with (
        mask_memory(cache / "masks.jsonl" if cache else None, images, masks.source) as known,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
    ):
        for picture, look in zip(
            prepared, pool.map(lambda one: _look(one, images, masks, known), prepared), strict=True
        ):
            if look.facts is not None:
                known.put((look.sha256, picture.bucket), look.facts)
            looks.append(_judge(picture, look, images))
    bad = [(one.example.id, look) for one, look in zip(prepared, looks, strict=True) if isinstance(look, str)]
    if bad:
        lines = [f"  - {printable(name)}: its mask {reason}" for name, reason in bad[:5]]
        more = [f"  - and {len(bad) - 5} more"] if len(bad) > 5 else []
        raise UserError(
            f"the masks of {len(bad)} of {counted(len(prepared), 'picture')} cannot be used:\n"
            + "\n".join([*lines, *more]),
            where="masks",
            fix="Mend these masks.",
        )
    _refuse_missing(
        [one.example.id for one, look in zip(prepared, looks, strict=True) if look is None], len(prepared), masks
    )
    return [look for look in looks if not isinstance(look, str)]


def _refuse_missing(without: Sequence[str], count: int, masks: Masks) -> None:
    all_missing = len(without) == count
    if not without or (masks.missing == "whole" and not all_missing):
        return
    looked = _LOOKED_FOR if masks.source == "files" else "They have no alpha channel."
    raise UserError(
        f"{len(without)} of {counted(count, 'picture')} without a mask: {listed(without)}. {looked}",
        where="masks.source" if all_missing else "masks.missing",
        fix="Leave masks out to train on whole pictures."
        if all_missing
        else "Give each its mask, or set masks.missing: whole to count the whole of these.",
    )


@dataclass(frozen=True)
class _Look:
    """What became of trying to decode a mask: facts, the reason why it cannot be used, or neither without a file."""

    source: ImageSource | None
    sha256: str = ""
    facts: MaskFacts | NoMask | None = None
    reason: str = ""


def _look(picture: Prepared, images: ImageConfig, masks: Masks, known: MaskMemory) -> _Look:
    source = picture.example.image if masks.source == "alpha" else picture.example.mask
    if source is None:
        return _Look(None)
    try:
        data = source.read()
        sha256 = hashlib.sha256(data).hexdigest()
        facts = known.get((sha256, picture.bucket)) or _learn(data, picture.bucket, images, masks)
    except OSError as error:
        return _Look(source, reason=f"cannot be read: {error.strerror or type(error).__name__}")
    except BadImage as error:
        return _Look(source, reason=str(error))
    return _Look(source, sha256, facts)


def _learn(data: bytes, bucket: Size, images: ImageConfig, masks: Masks) -> MaskFacts | NoMask:
    """Returns what decoding the mask of a picture in ``bucket`` tells; raises BadImage for what is no mask."""
    import numpy

    mask, notes = masks.mask_in(data, images)
    if mask is None:
        return NoMask()
    empty = _count_empty(mask, placements(mask.size, bucket, crop=images.crop))
    return MaskFacts(mask.size, float(numpy.asarray(mask).mean()) / 255, empty, notes)


def _judge(picture: Prepared, look: _Look, images: ImageConfig) -> PictureMask | str | None:
    """Returns the mask of a picture, the reason why it cannot be used, or None where there is none."""
    mask = look.facts
    if look.reason:
        return look.reason
    if look.source is None or not isinstance(mask, MaskFacts):
        return None
    if mask.size != picture.size:
        (width, height), (wide, high) = mask.size, picture.size
        return f"has another size: it is {width} x {height}, the picture {wide} x {high} when upright"
    if mask.empty:
        crops = len(placements(mask.size, picture.bucket, crop=images.crop))
        if mask.empty == crops:
            return "has nothing inside: nothing of the part that is seen is white"
        return (
            f"has crops with nothing inside: {mask.empty} of {crops} that images.crop: random may draw; "
            "set images.crop: center or images.buckets: true, or crop the picture nearer to its subject"
        )
    return PictureMask(look.source, look.sha256, mask.inside, tuple(f"mask, {note}" for note in mask.notes))


def _count_empty(mask: Image.Image, crops: Sequence[Placement]) -> int:
    """Returns how many of the crops see no pixel that is at least half white."""
    white = mask.point([255 if value >= HALF_WHITE else 0 for value in range(256)])
    return sum(white.crop(_whole_pixels(_seen(mask.size, one))).getbbox() is None for one in crops)


def _whole_pixels(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(edge, 6) for edge in box)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


# -------------------------------------------------------------------------------------------------------- pixels
def _grey(picture: Image.Image) -> Image.Image:
    """Returns an RGB picture as mode L; raises BadImage if it has colours, which say nothing of inside and outside."""
    from PIL import ImageChops

    red, green, blue = picture.split()
    if any(any(ImageChops.difference(green, other).histogram()[_GREY_TOLERANCE + 1 :]) for other in (red, blue)):
        raise BadImage("is coloured: a mask is grey, white is inside")
    return green


def area_average(mask: Image.Image, placement: Placement, size: tuple[int, int]) -> Array:
    """Returns the mean of the mask over the part of the picture that each latent stands for, [h, w] float64 in [0, 1].

    ``size`` is (h, w). The cells divide the crop evenly; a pixel that an edge cuts counts on both sides by its area.
    """
    import numpy

    height, width = size
    left, top, right, bottom = _seen(mask.size, placement)
    values = numpy.asarray(mask)
    rows = _means(values, numpy.linspace(top, bottom, height + 1))
    means: Array = _means(rows.T, numpy.linspace(left, right, width + 1)).T / 255
    return means[:, ::-1].copy() if placement.flip else means


def _seen(size: tuple[int, int], placement: Placement) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of what is seen, in pixels of the picture before it is scaled."""
    left, top, width, height = placement.crop
    x, y = size[0] / placement.resize[0], size[1] / placement.resize[1]
    return left * x, top * y, min((left + width) * x, size[0]), min((top + height) * y, size[1])


def _means(values: Array, edges: Array) -> Array:
    """Returns the means of ``values`` [n, m] along the first axis between neighbours of ``edges`` in [0, n]."""
    import numpy

    first = int(edges[0])
    part = values[first : math.ceil(edges[-1])]
    sums = numpy.zeros((len(part) + 1, part.shape[1]))
    numpy.cumsum(part, axis=0, dtype=numpy.float64, out=sums[1:])
    at = edges - first
    whole = numpy.minimum(at.astype(int), len(part) - 1)
    means: Array = numpy.diff(sums[whole] + (at - whole)[:, None] * part[whole], axis=0) / numpy.diff(edges)[:, None]
    return means

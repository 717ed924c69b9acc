"""Pictures that look the same although their bytes differ: other quality, other size, a sliver cut off."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from PIL import Image

    Array = numpy.ndarray[Any, Any]

NEAR_DISTANCE = 10
"""Bits in which two difference hashes of the same picture may differ.

Measured on 2,664 photos of Flickr8k and Flickr30k, 300 copies of each kind. Found: all at JPEG quality 30, half the
size, a third of the size at quality 50, squeezed to a square, or 15 % brighter; more than 99 % with 2 % of the side
lengths cut off, about 87 % with 5 %, 45 % with 8 %. Taken for copies among the 3.5 million pairs of photos: none.
"""
NEAR_DIFFERENCE = 0.4
"""Difference of two thumbnails relative to the contrast of the stronger. Near hashes alone would make one group of all
drawings on white. Copies stay below 0.3 (below 0.5 where 5 % are cut off); photos whose hashes happen to be near begin
at 0.65."""
LEAST_CONTRAST = 2.0
"""Standard deviation of a thumbnail, in levels of 255. The hash of a plainer picture is noise: it is near to none."""

_THUMBNAIL = 8
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Signature:
    """What is remembered of a picture to find others like it."""

    dhash: int
    """64 bits: in the picture scaled to 9 x 8 grey pixels, whether each is darker than its right neighbour."""
    thumbnail: bytes
    """The picture scaled to 8 x 8 RGB pixels, 192 bytes."""


def signature(image: Image.Image) -> Signature:
    """Returns the signature of a decoded, upright RGB picture."""
    import numpy
    from PIL import Image

    box = Image.Resampling.BOX
    small = image.resize((72, 64), box)  # both sizes below divide it, and the large picture is read only once
    grey = numpy.asarray(small.convert("L").resize((9, 8), Image.Resampling.BILINEAR))
    bits = numpy.packbits(grey[:, :-1] < grey[:, 1:])
    return Signature(int.from_bytes(bits.tobytes(), "big"), small.resize((_THUMBNAIL, _THUMBNAIL), box).tobytes())


def near_groups(signatures: Sequence[Signature], *, max_distance: int = NEAR_DISTANCE) -> list[int | None]:
    """Returns the number of each picture's group of near-duplicates, None for those without any.

    Groups are numbered from 0 in the order of their first picture. Two pictures are near if their hashes differ in at
    most ``max_distance`` bits and their thumbnails agree; groups are chains of such pairs. Hashes are cut into
    ``max_distance`` + 1 bands: near ones are equal in at least one band, so that only those are compared.
    """
    import numpy

    count = len(signatures)
    if count == 0:
        return []
    hashes = numpy.array([item.dhash for item in signatures], dtype=numpy.uint64)
    pixels = numpy.frombuffer(b"".join(item.thumbnail for item in signatures), dtype=numpy.uint8)
    shapes = pixels.reshape(count, -1).astype(numpy.float32)
    shapes -= shapes.mean(axis=1, keepdims=True)
    contrast = numpy.linalg.norm(shapes, axis=1)
    textured = numpy.flatnonzero(contrast >= LEAST_CONTRAST * shapes.shape[1] ** 0.5)
    if len(textured) == 0:
        return [None] * count

    parents = numpy.arange(count)
    for members in _runs_of_equal_bands(hashes, textured, max_distance):
        rows = max(1, _PAIRS_AT_ONCE // len(members))
        for start in range(0, len(members) - 1, rows):
            first, second = members[start : start + rows], members[start:]
            near = numpy.bitwise_count(hashes[first][:, None] ^ hashes[second]) <= max_distance
            near &= _alike(shapes, contrast, first, second)
            roots = _roots(parents, second)
            near &= roots[: len(first), None] != roots  # pairs within a group bring nothing new
            for i, j in zip(*(index.tolist() for index in numpy.nonzero(near)), strict=True):
                _unite(parents, first[i], second[j])
    return _numbered(parents)


def _runs_of_equal_bands(hashes: Array, chosen: Array, max_distance: int) -> Iterator[Array]:
    """Gives, for each band of bits, the indices of the hashes that are equal in it, where there are at least two."""
    import numpy

    edges = [round(64 * band / (max_distance + 1)) for band in range(max_distance + 2)]
    for low, high in itertools.pairwise(edges):
        bands = (hashes[chosen] >> numpy.uint64(low)) & numpy.uint64(2 ** (high - low) - 1)
        order = numpy.argsort(bands, kind="stable")
        cuts = numpy.flatnonzero(numpy.diff(bands[order])) + 1
        yield from (run for run in numpy.split(chosen[order], cuts) if len(run) > 1)


def _alike(shapes: Array, contrast: Array, first: Array, second: Array) -> Array:
    """Returns whether the thumbnails agree, [first, second]; |a - b|^2 = |a|^2 + |b|^2 - 2ab."""
    import numpy

    squared = contrast[first][:, None] ** 2 + contrast[second] ** 2 - 2 * shapes[first] @ shapes[second].T
    alike: Array = squared <= (NEAR_DIFFERENCE * numpy.maximum(contrast[first][:, None], contrast[second])) ** 2
    return alike


def _roots(parents: Array, items: Array) -> Array:
    roots: Array = parents[items]
    while (parents[roots] != roots).any():
        roots = parents[roots]
    return roots


def _unite(parents: Array, a: int, b: int) -> None:
    while parents[a] != a:
        a = parents[a]
    while parents[b] != b:
        b = parents[b]
    parents[max(a, b)] = min(a, b)


def _numbered(parents: Array) -> list[int | None]:
    import numpy

    roots = _roots(parents, numpy.arange(len(parents))).tolist()
    grouped = sorted({root for item, root in enumerate(roots) if root != item})
    numbers = {root: number for number, root in enumerate(grouped)}
    return [numbers.get(root) for root in roots]

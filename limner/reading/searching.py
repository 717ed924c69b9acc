"""Finding pictures by words or by another picture: what ``limner search`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.data.buckets import ImageConfig
from limner.data.example import FileImage
from limner.data.image import decode
from limner.data.listing import list_images
from limner.data.text import counted
from limner.evaluation.features import embed_captions
from limner.reading.embedding import (
    DEFAULT_CLIP,
    Embedded,
    Picture,
    embed_pictures,
    load_clip,
    warn_of_cuts,
)
from limner.reading.page import Card, Section, write_page

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Hit:
    """A picture that was found."""

    id: str
    path: Path
    similarity: float
    """Cosine of the angle to the query, in [-1, 1]."""


@dataclass(frozen=True)
class Found:
    """What was found for one query, the nearest first."""

    query: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    model: str
    pictures: int
    """Pictures that were searched."""
    embedded: int
    """Of them so many were embedded now; the others were in the cache."""
    found: tuple[Found, ...]
    unreadable: tuple[tuple[str, str], ...]
    """Pictures that cannot be read, and why."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        found = [
            {
                "query": one.query,
                "hits": [{"id": hit.id, "path": str(hit.path), "similarity": hit.similarity} for hit in one.hits],
            }
            for one in self.found
        ]
        unreadable = [{"id": id, "reason": reason} for id, reason in self.unreadable]
        return {
            "model": self.model,
            "pictures": self.pictures,
            "embedded": self.embedded,
            "found": found,
            "unreadable": unreadable,
        }


def search(
    folder: Path,
    queries: Sequence[str] = (),
    *,
    like: Sequence[Path] = (),
    model: str = DEFAULT_CLIP,
    revision: str | None = None,
    top: int = 10,
    page: Path | None = None,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Returns for each query, and each picture of ``like``, the ``top`` pictures of the folder that are nearest to it.

    The picture of ``like`` itself is none of them. Raises UserError where there is nothing to search, or for.
    """
    progress = progress or Silent()
    if not queries and not like:
        raise UserError("there is nothing to look for.", where="search", fix="Give words, or a picture with --like.")
    if not all(query.strip() for query in queries):
        raise UserError("a query is empty.", where="search", fix="Give words.")
    listing = list_images(folder, where="DIR")
    for note in listing.notes():
        progress.say(note)
    loaded = load_clip(model, revision=revision, device=device, progress=progress)
    warn_of_cuts(loaded, queries, "query", progress)

    def embedded(pictures: Sequence[Picture], shown: Progress) -> Embedded:
        return embed_pictures(loaded, pictures, cache=cache, images=ImageConfig(), progress=shown)

    asked = embedded([Picture(str(path), FileImage(path)) for path in like], Silent())
    for id, reason in asked.unreadable:
        raise UserError(f"{id!r} {reason}.", where="--like", fix="Name a picture.")
    points = embedded([Picture(id, FileImage(path)) for id, path in listing.images.items()], progress)
    warn_of_unreadable(points.unreadable, len(listing.images), progress)
    found = [
        _nearest(query, vector, points, listing.images, top, without="")
        for query, vector in zip(queries, embed_captions(loaded, queries) if queries else (), strict=True)
    ]
    found += [
        _nearest(f"like {id}", vector, points, listing.images, top, without=sha256)
        for id, sha256, vector in zip(asked.ids, asked.sha256, asked.vectors, strict=True)
    ]
    result = SearchResult(model, len(points.ids), points.made, tuple(found), points.unreadable)
    if page is not None:
        _write(page, folder, result)
    return result


def warn_of_unreadable(unreadable: Sequence[tuple[str, str]], count: int, progress: Progress) -> None:
    """Names the pictures that cannot be read; raises UserError where that is all of ``count``."""
    if unreadable and len(unreadable) == count:
        id, reason = unreadable[0]
        raise UserError(
            f"none of {counted(count, 'picture')} can be read; {id!r} {reason}.", where="DIR", fix="Mend them."
        )
    for id, reason in unreadable:
        progress.warn(f"left out: {id!r} {reason}")


def _nearest(query: str, vector: Tensor, points: Embedded, paths: dict[str, Path], top: int, *, without: str) -> Found:
    """Returns the pictures nearest to a vector; of equally near ones the first by name comes first."""
    similarities = (points.vectors @ vector).tolist()
    order = sorted(range(len(similarities)), key=lambda index: -similarities[index])
    chosen = [index for index in order if points.sha256[index] != without][:top]
    return Found(query, tuple(Hit(points.ids[i], paths[points.ids[i]], similarities[i]) for i in chosen))


def _write(path: Path, folder: Path, result: SearchResult) -> None:
    sections = [
        Section(
            one.query,
            "Similarity is the cosine between picture and query.",
            tuple(Card(opened(hit.path), hit.id, (f"similarity {hit.similarity:.3f}",)) for hit in one.hits),
        )
        for one in result.found
    ]
    rows = [("model", result.model), ("pictures", f"{result.pictures:,}")]
    write_page(path, "Found pictures", f"In {folder}.", rows, sections)


def opened(path: Path) -> Any:
    """Returns the decoded picture of a file that was readable a moment ago."""
    images = ImageConfig()
    return decode(path.read_bytes(), background=images.background_rgb, max_pixels=images.max_pixels).image

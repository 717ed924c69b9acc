"""Retrieval with several captions for each picture: pictures found by words, and words found by pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data import DatasetConfig
from limner.evaluation.features import OnProgress, cut_captions, embed_captions, embed_pictures, silent
from limner.evaluation.measurement import Measurement, Number, content_hash, share
from limner.evaluation.pictures import Shown, ShownSet, check_name, metric_name, read_shown
from limner.evaluation.ranking import ranks
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from torch import Tensor

PLACES = (1, 5, 10)


class Retrieval(Config):
    """R@1, R@5 and R@10 both ways: the share of captions whose picture, and of pictures one of whose captions, is
    among the first so many."""

    kind: Literal["retrieval"] = "retrieval"
    dataset: DatasetConfig
    """The pictures with their captions; five for each picture in the usual protocol, any number here."""
    name: str | None = None
    """What the metric is called in tables and files. Unset: its kind and that of its data set."""
    guard: bool = False
    """A set that is not trained on, so that forgetting shows; refused if one of its pictures is trained on."""

    models: ClassVar[tuple[str, ...]] = ("clip",)

    _check_name = field_validator("name")(check_name)

    @property
    def title(self) -> str:
        return metric_name(self.kind, self.dataset, self.name)

    def survey(self) -> ShownSet:
        """Returns the pictures, equal ones as one with all its captions; raises UserError for an empty caption."""
        where = f"metric {self.title!r}"
        read = read_shown(self.dataset, where)
        for picture in read.pictures:
            if not all(caption.strip() for caption in picture.captions):
                raise UserError(
                    f"{picture.id} has an empty caption, which no picture can be found by.",
                    where=where,
                    fix="Caption it, or take it out.",
                )
        merged = _merged(read)
        if len(merged.pictures) < 2:
            raise UserError("one picture is always found.", where=where, fix="Name a set with more pictures.")
        return replace(merged, content=content_hash([(p.id, p.sha256, p.captions) for p in merged.pictures]))

    def measure(self, model: DualEncoder, *, on_progress: OnProgress = silent) -> Measurement:
        """Returns the shares of both directions and their mean.

        Text to image: each caption is a query, right for its picture and for every other that has the same caption.
        Image to text: the first of all captions that is right counts. What is equally similar counts as nearer than
        what is right. A number "first k" is left out where there are no more than k pictures.
        """
        shown = self.survey()
        texts = sorted({caption for picture in shown.pictures for caption in picture.captions})
        place = {text: number for number, text in enumerate(texts)}
        captions = [[place[caption] for caption in picture.captions] for picture in shown.pictures]
        embedded = embed_pictures(model, shown.pictures, on_progress)
        image_ranks, text_ranks = both_ways(embedded, embed_captions(model, texts), captions)
        return Measurement(
            metric=self.title,
            kind=self.kind,
            guard=self.guard,
            of=f"{shown.layout}, {sum(map(len, captions)):,} captions",
            content=shown.content,
            ids=tuple(one.id for one in shown.pictures),
            numbers=tuple(_numbers(image_ranks, text_ranks)),
            raw={"image_to_text_ranks": image_ranks, "text_to_image_ranks": text_ranks},
            notes=(*shown.notes, *_duplicate_captions(captions), *cut_captions(model, texts)),
        )


def both_ways(pictures: Tensor, texts: Tensor, captions: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Returns for each picture the rank of its best caption, and the rank that it has for each of its captions.

    ``pictures`` is [N, D], ``texts`` [T, D] has every different caption once; ``captions`` has for each picture the
    places of its captions in ``texts``.
    """
    holders: list[list[int]] = [[] for _ in range(len(texts))]
    copies = [0] * len(texts)
    for number, several in enumerate(captions):
        for text in several:
            copies[text] += 1
            holders[text].append(number)
    of_texts = ranks(texts, pictures, holders)
    return ranks(pictures, texts, captions, copies), [[of_texts[text] for text in several] for several in captions]


def _numbers(image_ranks: Sequence[int], text_ranks: Sequence[Sequence[int]]) -> list[Number]:
    found: list[tuple[int, list[float], list[float]]] = []
    for most in PLACES:
        if most < len(image_ranks):
            to_text = [float(rank <= most) for rank in image_ranks]
            to_image = [sum(rank <= most for rank in several) / len(several) for several in text_ranks]
            found.append((most, to_text, to_image))
    both = [(one + other) / 2 for one, other in zip(found[0][1], found[0][2], strict=True)]
    return [
        share("R@1, mean of both ways", both),
        *(share(f"image to text R@{most}", to_text) for most, to_text, _ in found),
        *(share(f"text to image R@{most}", to_image) for most, _, to_image in found),
    ]


def _merged(read: ShownSet) -> ShownSet:
    """Returns the set with pictures of equal bytes as one: nobody can tell which of them a caption means."""
    first: dict[str, Shown] = {}
    for picture in read.pictures:
        same = first.get(picture.sha256)
        captions = picture.captions if same is None else (*same.captions, *picture.captions)
        first[picture.sha256] = replace(same or picture, captions=captions)
    dropped = len(read.pictures) - len(first)
    note = (f"{dropped:,} pictures are copies of others; each counts as one picture with all the captions.",)
    return replace(read, pictures=tuple(first.values()), notes=(*read.notes, *(note if dropped else ())))


def _duplicate_captions(captions: Sequence[Sequence[int]]) -> tuple[str, ...]:
    holders: dict[int, set[int]] = {}
    for number, several in enumerate(captions):
        for text in several:
            holders.setdefault(text, set()).add(number)
    shared = sum(len(pictures) > 1 for pictures in holders.values())
    return (f"{shared:,} captions stand at several pictures; each is right for all of them.",) if shared else ()

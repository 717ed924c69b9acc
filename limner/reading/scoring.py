"""Whether captions fit their pictures: what ``limner score`` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import load_config
from limner.core.errors import UserError
from limner.core.intervals import bootstrap
from limner.core.progress import Progress, Silent
from limner.data.auto import recognised
from limner.data.buckets import ImageConfig
from limner.data.example import Example, Reading
from limner.data.image import decode
from limner.data.text import counted
from limner.evaluation.features import embed_captions
from limner.reading.comparing import Pair, compare, pairs_of, tabulate
from limner.reading.embedding import (
    DEFAULT_CLIP,
    Embedded,
    Picture,
    embed_pictures,
    load_clip,
    warn_of_cuts,
)
from limner.reading.page import Card, Section, write_page
from limner.reading.searching import warn_of_unreadable

if TYPE_CHECKING:
    from limner.models.clip import ClipModel

CONVENTION = "100 x max(cosine, 0), as torchmetrics reports it; the paper (arXiv:2104.08718) has a factor of 250"


@dataclass(frozen=True)
class ScoreResult:
    """How well captions and pictures fit. Copies of a picture count as one, and so do captions read alike."""

    model: str
    layout: str
    pairs: tuple[Pair, ...]
    """The worst first."""
    pictures: int
    """Different pictures, by their bytes."""
    captions: int
    """Different captions, as the model reads them."""
    mean: float
    """Of all different pictures, each counted once with the mean of its pairs."""
    interval: tuple[float, float] | None
    """95 %, by bootstrap over the different pictures; None where there is only one."""
    mean_of_wrong_pairs: float | None
    """Of pictures and captions that do not belong together: what the model gives for nothing."""
    spread: float | None
    """Standard deviation of the scores of wrong pairs. A caption that fits another picture better by more than this
    is named."""
    unreadable: tuple[tuple[str, str], ...]

    @property
    def first(self) -> int:
        """Pairs whose picture no other caption fits better."""
        return sum(pair.rank == 1 for pair in self.pairs)

    def rows(self) -> list[tuple[str, str]]:
        """Returns labels and values for people."""
        interval = "" if self.interval is None else f", 95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f}"
        rows = [
            ("model", self.model),
            ("data", f"{self.layout}: {counted(self.pictures, 'different picture')}, "
                     f"{counted(self.captions, 'different caption')}, {counted(len(self.pairs), 'pair')}"),
            ("score", f"mean {self.mean:.2f}{interval}"),
        ]  # fmt: skip
        if self.mean_of_wrong_pairs is not None and self.spread is not None:
            rows += [
                ("wrong pairs", f"mean {self.mean_of_wrong_pairs:.2f}, standard deviation {self.spread:.2f}"),
                ("rank 1", f"{self.first:,} of {len(self.pairs):,} pairs: no other caption fits the picture better"),
            ]
        else:
            rows.append(("rank", "there is no other caption to compare with, so ranks say nothing"))
        return [*rows, ("the number", CONVENTION)]

    def as_dict(self, worst: int | None = None) -> dict[str, Any]:
        """Returns the same as plain values, for JSON; ``worst`` leaves out the better pairs."""
        values = dataclasses.asdict(dataclasses.replace(self, pairs=self.pairs[:worst]))
        values["unreadable"] = [{"id": id, "reason": reason} for id, reason in self.unreadable]
        return {**values, "rank_1": self.first, "convention": CONVENTION}


def score(
    data: Path,
    overrides: Sequence[str] = (),
    *,
    model: str = DEFAULT_CLIP,
    revision: str | None = None,
    worst: int = 20,
    page: Path | None = None,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Returns how well the captions of a folder, or of a recipe's dataset, fit their pictures.

    Captions are compared as they are written: what a recipe's ``captions`` would do to them is not done. ``page`` gets
    the ``worst`` pairs.
    """
    progress = progress or Silent()
    reading, images, folder = _read(data, overrides)
    for note in reading.notes:
        progress.say(note)
    loaded = load_clip(model, revision=revision, device=device, progress=progress)
    examples = sorted(reading.examples, key=lambda example: example.id)
    pictures = [Picture(example.id, example.image) for example in examples]
    points = embed_pictures(loaded, pictures, cache=cache or folder, images=images, progress=progress)
    warn_of_unreadable(points.unreadable, len(pictures), progress)
    result = _compared(loaded, model, reading.layout, points, examples, progress)
    if page is not None:
        _write(page, data, result, worst, {example.id: example for example in examples}, images)
    return result


def _read(data: Path, overrides: Sequence[str]) -> tuple[Reading, ImageConfig, Path | None]:
    """Returns what is scored, how its pictures are decoded, and the folder of the cache where a recipe names one."""
    if not data.is_dir():
        config = load_config(data, overrides)
        return config.dataset.read(), config.images, config.cache.folder
    if overrides:
        raise UserError(
            f"{overrides[0]!r} changes a recipe, and {str(data)!r} is a folder.", where="score", fix="Leave it out."
        )
    layout, evidence = recognised(data)
    lenient: dict[str, Any] = {
        name: "leave_out" for name in ("uncaptioned", "missing") if name in type(layout).model_fields
    }
    reading = layout.model_copy(update=lenient).read()
    note = f"Recognised as kind: {layout.kind}, because {evidence}."
    return dataclasses.replace(reading, notes=(note, *reading.notes)), ImageConfig(), None


# ---------------------------------------------------------------------------------------------------- the comparison
def _compared(
    loaded: ClipModel, name: str, layout: str, points: Embedded, examples: Sequence[Example], progress: Progress
) -> ScoreResult:
    texts = {example.id: [caption for caption in example.captions if caption] for example in examples}
    all_texts = list(dict.fromkeys(caption for id in points.ids for caption in texts[id]))
    if not all_texts:
        raise UserError("there is no caption to score.", where="score", fix="Write captions, as with limner caption.")
    warn_of_cuts(loaded, all_texts, "caption", progress)
    table, first = tabulate(points, texts, dict(zip(all_texts, loaded.token_ids(all_texts), strict=True)))
    similarities = compare(points.vectors[first], embed_captions(loaded, table.captions), table)
    pairs = sorted(pairs_of(table, similarities), key=lambda pair: (pair.score, pair.id, pair.caption))
    by_picture: dict[str, list[float]] = {}
    for pair in pairs:
        by_picture.setdefault(pair.id, []).append(pair.score)
    means = [sum(scores) / len(scores) for _, scores in sorted(by_picture.items())]
    return ScoreResult(
        model=name,
        layout=layout,
        pairs=tuple(pairs),
        pictures=len(means),
        captions=len(table.captions),
        mean=sum(means) / len(means),
        interval=bootstrap(means)[1:] if len(means) > 1 else None,
        mean_of_wrong_pairs=similarities.wrong_mean,
        spread=similarities.wrong_spread,
        unreadable=points.unreadable,
    )


# ------------------------------------------------------------------------------------------------------------ telling
def sentence(pair: Pair) -> str:
    """Returns what is said of a pair: 'rank 12 of 40; fits b.jpg much better (31.20)'."""
    said = [f"rank {pair.rank:,} of {pair.captions:,}"] if pair.captions > 1 else []
    if pair.fits_better is not None and pair.score_there is not None:
        said.append(f"this caption fits {pair.fits_better} much better ({pair.score_there:.2f})")
    if pair.better_caption is not None:
        said.append(f"the caption that fits this picture best is {pair.better_caption!r}")
    return "; ".join(said)


def _write(
    path: Path, data: Path, result: ScoreResult, worst: int, examples: dict[str, Example], images: ImageConfig
) -> None:
    cards = []
    for pair in result.pairs[:worst]:
        decoded = decode(examples[pair.id].image.read(), background=images.background_rgb, max_pixels=images.max_pixels)
        cards.append(Card(decoded.image, pair.caption, (f"{pair.id}: {pair.score:.2f}", sentence(pair))))
    section = Section("The worst pairs", "The lowest scores first. Look: the model may be wrong.", tuple(cards))
    write_page(path, "Pictures and captions", f"Of {data}.", result.rows(), [section])

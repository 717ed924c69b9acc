"""Captions for the pictures of a folder that have none: what ``limner caption`` does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.data.bad_image import BadImage
from limner.data.buckets import ImageConfig
from limner.data.caption_tools import Captions, CaptionTools
from limner.data.example import Example, FileImage
from limner.data.image import decode
from limner.data.listing import Listing, list_images
from limner.data.text import counted
from limner.reading.captioner import DEFAULT_CAPTIONER, Written, load_captioner
from limner.reading.embedding import DEFAULT_CLIP, why_unreadable
from limner.reading.ranking import SLOT, Choice, load_ranker, read_candidates
from limner.reading.stores import Kind, Store, open_store, put

if TYPE_CHECKING:
    from PIL import Image

PICTURES_AT_ONCE = 8
LEDGER = Path(".limner") / "captioning.jsonl"
"""Below the folder; hidden, so that it is taken for no caption file."""

Outcome = Literal["captioned", "skipped", "unreadable", "empty", "not reached"]


@dataclass(frozen=True)
class Line:
    """What became of one picture."""

    id: str
    outcome: Outcome
    caption: str = ""
    """As it was written."""
    reason: str = ""
    """Why there is no new caption."""
    note: str = ""


@dataclass(frozen=True)
class CaptionResult:
    """What captioning came to."""

    model: str
    lines: tuple[Line, ...]
    """One for each picture."""
    ledger: Path

    def count(self, outcome: Outcome) -> int:
        """Returns how many pictures came to this."""
        return sum(line.outcome == outcome for line in self.lines)

    def sentence(self) -> str:
        """Returns the counts for people."""
        parts = [f"captioned {counted(self.count('captioned'), 'picture')}"]
        parts += [f"{self.count('skipped'):,} had a caption"] if self.count("skipped") else []
        parts += [f"{self.count('unreadable'):,} cannot be read"] if self.count("unreadable") else []
        parts += [f"for {self.count('empty'):,} nothing was written"] if self.count("empty") else []
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts as plain values, for JSON."""
        outcomes: tuple[Outcome, ...] = ("captioned", "skipped", "unreadable", "empty")
        counts: dict[str, Any] = {outcome: self.count(outcome) for outcome in outcomes}
        return {"model": self.model, "ledger": str(self.ledger), **counts}


class Writer(Protocol):
    """A model that writes captions."""

    @property
    def name(self) -> str:
        """What it is called."""

    def write(self, pictures: Sequence[Image.Image]) -> list[Written]:
        """Returns a caption for each picture; an empty one where it has none to give."""


def caption(
    folder: Path,
    *,
    model: str | None = None,
    revision: str | None = None,
    rank: Path | None = None,
    templates: Sequence[str] = (),
    best: int | None = None,
    above: float | None = None,
    prompt: str = "",
    beams: int | None = None,
    write: Kind = "sidecars",
    prefix: str = "",
    trigger: str | None = None,
    max_words: int | None = None,
    replace: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> CaptionResult:
    """Writes a caption for each picture of a folder that has none, and a ledger with a line for each picture.

    With an image-to-text model, which is told ``prompt``; with ``rank``, a file of captions or tags, a CLIP model
    chooses the ``best`` of them. Captions that are there stay, and with ``replace`` are kept as copies. What is
    written stays written if the job is stopped, and the next call goes on.
    """
    progress = progress or Silent()
    _refuse_idle_options(
        rank, {"--prompt": prompt, "--beams": beams}, {"--template": templates, "--best": best, "--above": above}
    )
    tools = _tools(prefix, trigger)
    choice = rank and Choice(read_candidates(rank, progress), tuple(templates) or (SLOT,), best or 1, above)
    listing = list_images(folder, where="DIR")
    for note in listing.notes():
        progress.say(note)
    store = open_store(write, listing, replace=replace)
    ledger = _ledger_file(listing)
    name = model or (DEFAULT_CLIP if choice else DEFAULT_CAPTIONER)
    lines = {id: _before(id, store, replace) for id in listing.images}
    todo = [id for id, line in lines.items() if line.outcome == "not reached"]
    try:
        if todo:
            writer: Writer
            if choice:
                writer = load_ranker(name, choice, revision=revision, device=device, progress=progress)
            else:
                writer = load_captioner(name, revision=revision, device=device, prompt=prompt, beams=beams or 3)
            for line in _write_all(writer, store, listing, todo, tools, max_words, progress):
                lines[line.id] = line
    finally:
        rows = (json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in lines.values())
        put(ledger, "".join(rows).encode("utf-8", "backslashreplace"))
    for line in lines.values():
        if line.outcome in ("unreadable", "empty"):
            progress.warn(f"{line.id!r} gets no caption: {line.reason}")
    return CaptionResult(name, tuple(lines.values()), ledger)


def _refuse_idle_options(rank: Path | None, of_writing: dict[str, Any], of_ranking: dict[str, Any]) -> None:
    """Raises UserError for an option that would do nothing, or that cannot be."""
    idle, fix = (of_ranking, "Give --rank FILE.") if rank is None else (of_writing, "Leave it out with --rank.")
    for name, value in idle.items():
        if value not in (None, "", (), []):
            raise UserError(f"{value!r} would do nothing here.", where=name, fix=fix)
    for name, value in {**of_writing, **of_ranking}.items():
        if name in ("--beams", "--best") and value is not None and value < 1:
            raise UserError(f"{value} is less than 1.", where=name, fix="Give 1 or more.")


def _tools(prefix: str, trigger: str | None) -> CaptionTools:
    options = validate(Captions, {"prefix": prefix, "add_trigger_word": trigger is not None}, where="--prefix")
    if problems := options.conflicts(trigger):
        raise UserError(problems[0], where="--trigger")
    return CaptionTools(options, trigger)


def _ledger_file(listing: Listing) -> Path:
    """Returns where the ledger goes; raises UserError where nothing can be written in the folder."""
    ledger = listing.root / LEDGER
    try:
        ledger.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{listing.name!r} cannot be written to: {error.strerror}.",
            where="DIR",
            fix="Allow yourself to write there, or copy the folder.",
        ) from None
    return ledger


def _before(id: str, store: Store, replace: bool) -> Line:
    if id in store.captioned and not replace:
        return Line(id, "skipped", reason=f"it has a caption, in {store.captioned[id]}")
    return Line(id, "not reached", reason="the job ended before its turn")


# --------------------------------------------------------------------------------------------------------- the writing
def _write_all(
    writer: Writer,
    store: Store,
    listing: Listing,
    todo: Sequence[str],
    tools: CaptionTools,
    max_words: int | None,
    progress: Progress,
) -> Iterator[Line]:
    """Writes captions, some pictures at a time, and yields each picture's line once its caption is on the disk."""
    for start in range(0, len(todo), PICTURES_AT_ONCE):
        pictures: dict[str, Image.Image] = {}
        for id in todo[start : start + PICTURES_AT_ONCE]:
            try:
                pictures[id] = _opened(listing.images[id])
            except (BadImage, OSError) as error:
                yield Line(id, "unreadable", reason=why_unreadable(error))
        written = writer.write(list(pictures.values())) if pictures else []
        lines = [_line(id, one, tools, max_words) for id, one in zip(pictures, written, strict=True)]
        store.write({line.id: line.caption for line in lines if line.outcome == "captioned"})
        yield from lines
        progress.stage("captions", min(start + PICTURES_AT_ONCE, len(todo)), len(todo))


def _opened(path: Path) -> Image.Image:
    images = ImageConfig()
    return decode(path.read_bytes(), background=images.background_rgb, max_pixels=images.max_pixels).image


def _line(id: str, written: Written, tools: CaptionTools, max_words: int | None) -> Line:
    words = written.caption.split()
    if not words:
        return Line(id, "empty", reason=written.note or "the model wrote nothing")
    note = written.note
    if max_words is not None and len(words) > max_words:
        note = "; ".join(part for part in (note, f"{len(words)} words cut to {max_words}") if part)
    text = " ".join(words[:max_words])
    example = Example(id, FileImage(Path()), (text,))
    return Line(id, "captioned", caption=tools.fixed(example), note=note)

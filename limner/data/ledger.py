"""The ledger: every file that was found, what becomes of it, and why. Nothing is left out without a row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limner.core.errors import UserError
from limner.core.rundir import write_atomic
from limner.data.bad_image import BadImage
from limner.data.buckets import ImageConfig, Size, always_seen, bucket_sizes, enlargement, nearest_bucket, place
from limner.data.duplicates import near_groups, signature
from limner.data.example import Example, Reading, Role
from limner.data.facts import Facts, FactsCache
from limner.data.image import decode
from limner.data.masks import Masks, PictureMask, look_at_masks
from limner.data.plain import one_colour
from limner.data.summary import listed, printable, summary_rows

_AT_ONCE = 1024


@dataclass(frozen=True)
class Row:
    """One file. What is None was not found out, because the file is not used or varies from visit to visit."""

    id: str
    used: bool
    reason: str = ""
    """Why it is left out."""
    sha256: str = ""
    """Of the file's bytes."""
    width: int | None = None
    """Upright, in the file."""
    height: int | None = None
    bucket: str = ""
    """'512x448', width first."""
    resize: Size | None = None
    """What the whole picture is scaled to."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, width, height of what is seen, in scaled pixels; None where it is drawn at each visit."""
    always_seen: tuple[int, int, int, int] | None = None
    """The part that every visit sees, written as ``crop``; width or height is 0 where there is none."""
    enlarged: float = 1.0
    """The factor, where the picture has fewer pixels than its bucket."""
    cut_off: float = 0.0
    """The part of the area that one visit does not see, in [0, 1)."""
    inside: float | None = None
    """The share of the whole picture that is inside its mask, in [0, 1]; None where it has none."""
    captions: int = 0
    tokens: int | None = None
    """Of its longest caption, special ones included."""
    tokens_cut: bool = False
    """A caption is longer than what the text encoder reads."""
    one_colour: str = ""
    """'#rrggbb' where the picture shows nothing but this colour."""
    duplicate_of: str = ""
    """The first picture with the same bytes."""
    near_group: int | None = None
    """The number of a group of pictures that look the same."""
    role: Role | None = None
    repeats: int = 0
    weight: float = 0.0
    notes: tuple[str, ...] = ()
    part: Literal["train", "validation"] | None = None
    """Where a part is held out: which of the two the picture belongs to."""


@dataclass(frozen=True)
class Prepared:
    """A picture that is used."""

    example: Example
    sha256: str
    size: Size
    """Upright, in the file."""
    bucket: Size
    mask: PictureMask | None = None


@dataclass(frozen=True)
class Ledger:
    """What a data set comes to; sorted by id, so that it does not depend on the order in which files were found."""

    layout: str
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    prepared: tuple[Prepared, ...]
    """What is trained on."""
    manifest: str
    """One sha256 over the ids, bytes, captions, weights, repeats, roles and mask files of all that is used."""
    token_limit: int
    awaited: int = 0
    """Visits per epoch of pictures that are not there yet: they are drawn before training."""
    held_out: tuple[Prepared, ...] = ()
    """What is only measured on."""

    def summary(self) -> tuple[tuple[str, str], ...]:
        """Returns labels and values for people: what was found, what becomes of it, and what is worth a look."""
        return summary_rows(self)


def survey(
    reading: Reading,
    images: ImageConfig,
    *,
    count_tokens: Callable[[Sequence[str]], list[int]] | None,
    token_limit: int,
    cache: Path | None,
    on_progress: Callable[[int, int], None] | None = None,
    longest_captions: Callable[[Example], Sequence[str]] = lambda example: example.captions,
    masks: Masks | None = None,
) -> Ledger:
    """Returns the ledger of a data set after decoding every picture once.

    Tokens are counted in ``longest_captions``: an example's captions as a visit may read them, at their longest.

    What decoding tells is kept in ``cache``/images.jsonl and masks.jsonl by the bytes of the file: the next survey only
    hashes them.
    Raises UserError if a picture cannot be used and ``images.bad_files`` is "stop", if none can be used, or if a mask
    cannot be used.
    """
    examples = sorted(reading.examples, key=lambda example: example.id)
    if len({example.id for example in examples}) != len(examples):
        raise ValueError(f"two examples of {reading.layout} have the same id")
    with FactsCache(cache / "images.jsonl" if cache else None, images) as known:
        looks = list(_look_at_all(examples, images, known, on_progress))
    bad = [(example.id, look.reason) for example, look in zip(examples, looks, strict=True) if look.facts is None]
    _refuse(reading, bad, images)

    buckets = bucket_sizes(images)
    tokens = _token_counts({example.id: longest_captions(example) for example in examples}, count_tokens)
    good = [(example, look.sha256, look.facts) for example, look in zip(examples, looks, strict=True) if look.facts]
    groups = near_groups([facts.signature for _, _, facts in good])
    prepared, rows, firsts = [], [], dict[str, str]()
    for (example, sha256, facts), group in zip(good, groups, strict=True):
        picture = Prepared(example, sha256, facts.size, nearest_bucket(facts.size, buckets))
        first = firsts.setdefault(sha256, example.id)
        prepared.append(picture)
        rows.append(
            dataclasses.replace(
                _row(picture, images, tokens.get(example.id), token_limit),
                duplicate_of="" if first == example.id else first,
                near_group=group,
                one_colour=(colour := one_colour(facts.signature)),
                notes=(*facts.notes, *([f"of one colour only: {colour}"] if colour else [])),
            )
        )
    if masks is not None:
        found = look_at_masks(prepared, images, masks, cache=cache)
        prepared = [dataclasses.replace(one, mask=mask) for one, mask in zip(prepared, found, strict=True)]
        rows = [_masked(row, mask) for row, mask in zip(rows, found, strict=True)]
    rows += [Row(id=name, used=False, reason=reason) for name, reason in bad]
    rows += [Row(id=item.id, used=False, reason=item.reason) for item in reading.left_out]
    return Ledger(
        layout=reading.layout,
        notes=reading.notes,
        rows=tuple(sorted(rows, key=lambda row: (row.id, row.reason))),
        prepared=tuple(prepared),
        manifest=_manifest(prepared),
        token_limit=token_limit,
        awaited=reading.awaited,
    )


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Writes one JSON object per row, whole or not at all; the same ledger gives the same bytes."""
    lines = (json.dumps(vars(row), ensure_ascii=False) + "\n" for row in ledger.rows)
    write_atomic(path, _encoded("".join(lines)))


# ------------------------------------------------------------------------------------------------------- looking
@dataclass(frozen=True)
class _Look:
    """What became of trying to decode a picture: facts, or the reason why it cannot be used."""

    sha256: str
    facts: Facts | None
    reason: str = ""


def _look_at_all(
    examples: Sequence[Example],
    images: ImageConfig,
    known: FactsCache,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[_Look]:
    """Gives a look for every example, in order; a few are decoded at once, and no picture stays in memory."""
    done = 0
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        for start in range(0, len(examples), _AT_ONCE):
            for look in pool.map(lambda example: _look(example, images, known), examples[start : start + _AT_ONCE]):
                if look.facts is not None:
                    known.put(look.sha256, look.facts)
                done += 1
                if on_progress is not None:
                    on_progress(done, len(examples))
                yield look
    finally:
        pool.shutdown(cancel_futures=True)


def _look(example: Example, images: ImageConfig, known: FactsCache) -> _Look:
    try:
        data = example.image.read()
    except OSError as error:
        return _Look("", None, f"cannot be read: {error.strerror or type(error).__name__}")
    sha256 = hashlib.sha256(data).hexdigest()
    facts = known.get(sha256)
    if facts is not None:
        return _Look(sha256, facts)
    try:
        decoded = decode(data, background=images.background_rgb, max_pixels=images.max_pixels)
    except BadImage as error:
        return _Look(sha256, None, str(error))
    return _Look(sha256, Facts(decoded.image.size, decoded.notes, signature(decoded.image)))


def _refuse(reading: Reading, bad: Sequence[tuple[str, str]], images: ImageConfig) -> None:
    count = len(reading.examples)
    if count == 0:
        left = listed([f"{item.id} ({item.reason})" for item in reading.left_out], most=5)
        raise UserError(
            f"{reading.layout}: no picture was found." + (f" Left out: {left}." if left else ""),
            where="dataset",
            fix="Put pictures there, or name another place.",
        )
    if not bad or (images.bad_files == "leave_out" and len(bad) < count):
        return
    lines = [f"  - {printable(name)}: {reason}" for name, reason in bad[:5]]
    if len(bad) > 5:
        lines.append(f"  - and {len(bad) - 5} more")
    remedy = "" if len(bad) == count else ", or set images.bad_files=leave_out to go on without them"
    raise UserError(
        f"{len(bad)} of {count} pictures cannot be used:\n" + "\n".join(lines),
        where="dataset",
        fix=f"Mend or remove them{remedy}.",
    )


# ---------------------------------------------------------------------------------------------------------- rows
def _row(picture: Prepared, images: ImageConfig, tokens: int | None, token_limit: int) -> Row:
    placement = place(picture.size, picture.bucket, crop="center", flip=False, rng=random.Random(0))
    return Row(
        id=picture.example.id,
        used=True,
        sha256=picture.sha256,
        width=picture.size[0],
        height=picture.size[1],
        bucket=f"{picture.bucket[0]}x{picture.bucket[1]}",
        resize=placement.resize,
        crop=placement.crop if images.crop == "center" else None,
        always_seen=always_seen(picture.size, picture.bucket, images.crop),
        enlarged=round(max(1.0, enlargement(picture.size, picture.bucket)), 4),
        cut_off=round(placement.cut_off, 4),
        captions=len(picture.example.captions),
        tokens=tokens,
        tokens_cut=tokens is not None and tokens > token_limit,
        role=picture.example.role,
        repeats=picture.example.repeats,
        weight=picture.example.weight,
    )


def _masked(row: Row, mask: PictureMask | None) -> Row:
    if mask is None:
        return row
    return dataclasses.replace(row, inside=round(mask.inside, 4), notes=(*row.notes, *mask.notes))


def _token_counts(
    captions: Mapping[str, Sequence[str]], count_tokens: Callable[[Sequence[str]], list[int]] | None
) -> dict[str, int]:
    """Returns the tokens of each example's longest caption, by id; each caption is counted once, however often it
    stands."""
    if count_tokens is None:
        return {}
    known = sorted({caption for several in captions.values() for caption in several})
    counts = dict(zip(known, count_tokens(known), strict=True))
    return {id: max(counts[caption] for caption in several) for id, several in captions.items()}


def _manifest(prepared: Sequence[Prepared]) -> str:
    lines = (
        [one.example.id, one.sha256, one.example.captions, one.example.weight, one.example.repeats, one.example.role]
        + ([one.mask.sha256] if one.mask is not None and one.example.mask is not None else [])
        for one in prepared
    )
    return hashlib.sha256(_encoded("".join(json.dumps(line) + "\n" for line in lines))).hexdigest()


def _encoded(text: str) -> bytes:
    """Returns UTF-8; a byte of a file name that was no UTF-8 (a lone surrogate) becomes the JSON escape of itself."""
    return text.encode("utf-8", "backslashreplace")

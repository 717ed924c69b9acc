"""A ledger in a few lines for people."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limner.data.ledger import Ledger, Row

Lines = list[tuple[str, str]]

SOFT = 1.05
"""Enlargements below this factor are not worth a word."""


def summary_rows(ledger: Ledger) -> tuple[tuple[str, str], ...]:
    """Returns labels and values: what was found and left out, sizes, crops, captions, duplicates, notes."""
    used = [row for row in ledger.rows if row.used]
    left_out = [row for row in ledger.rows if not row.used]
    lines = [
        ("layout", ledger.layout),
        ("pictures", f"{len(ledger.rows)} found, {len(used)} used, {len(left_out)} left out"),
        *_grouped("left out", left_out, lambda row: [row.reason]),
        *_roles(used),
        *_held_out(used),
        *_shapes(used),
        *_masks(used),
        *_captions(used, ledger.token_limit),
        *_duplicates(used),
        *_grouped("note", used, lambda row: row.notes),
    ]
    return tuple(lines)


def printable(name: str) -> str:
    """Returns a name that any terminal takes: bytes that are no UTF-8 and control characters are escaped."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """Returns the first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more


def _grouped(label: str, rows: Iterable[Row], texts: Callable[[Row], Iterable[str]]) -> Lines:
    """Returns a line per kind of text (what stands before its colon), the frequent ones first."""
    kinds: defaultdict[str, list[Row]] = defaultdict(list)
    details: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for text in texts(row):
            kind = text.partition(": ")[0]
            kinds[kind].append(row)
            details[kind].add(text)
    ordered = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    return [
        (
            label,
            f"{len(kinds[kind])}: {details[kind].pop() if len(details[kind]) == 1 else kind} "
            f"({listed([row.id for row in kinds[kind]])})",
        )
        for kind in ordered
    ]


def _roles(used: Sequence[Row]) -> Lines:
    counts = Counter(row.role for row in used)
    return (
        [("roles", f"{counts['instance']} of the subject, {counts['class']} of its class")] if counts["class"] else []
    )


def _held_out(used: Sequence[Row]) -> Lines:
    names = [row.id for row in used if row.part == "validation"]
    if not names:
        return []
    subject = sum(row.role == "instance" for row in used)
    of = f"{subject} of the subject (class pictures all train)" if subject < len(used) else str(subject)
    return [("held out", f"{len(names)} of {of}, {len(names) / subject:.0%}, not trained on: {listed(names)}")]


def _shapes(used: Sequence[Row]) -> Lines:
    sizes = sorted(((row.width or 0, row.height or 0) for row in used), key=lambda size: size[0] * size[1])
    smallest, median, largest = sizes[0], sizes[len(sizes) // 2], sizes[-1]
    buckets = Counter(row.bucket for row in used).most_common()
    most_cut = max(used, key=lambda row: row.cut_off)
    cut_off = statistics.median(row.cut_off for row in used)
    lines = [
        ("sizes", f"{_size(smallest)} smallest, {_size(median)} median, {_size(largest)} largest"),
        ("buckets", listed([f"{bucket}: {count}" for bucket, count in buckets], most=8)),
        ("cropped away", f"{cut_off:.0%} of the area (median), {most_cut.cut_off:.0%} of {printable(most_cut.id)}"),
    ]
    soft = sorted((row for row in used if row.enlarged >= SOFT), key=lambda row: -row.enlarged)
    if soft:
        names = listed([f"{row.id} {row.enlarged:.1f}x" for row in soft])
        lines.append(("enlarged", f"{len(soft)} with fewer pixels than the bucket, which will look soft: {names}"))
    return lines


def _masks(used: Sequence[Row]) -> Lines:
    shares = [(row.inside, row.id) for row in used if row.inside is not None]
    if not shares:
        return []
    median = statistics.median(share for share, _ in shares)
    least, name = min(shares)
    whole = f"; {len(used) - len(shares)} without a mask count whole" if len(shares) < len(used) else ""
    return [
        (
            "masks",
            f"{len(shares)}: {median:.1%} of the picture is inside (median), {least:.1%} of {printable(name)}{whole}",
        )
    ]


def _captions(used: Sequence[Row], token_limit: int) -> Lines:
    counts = [row.captions for row in used]
    low, high = min(counts), max(counts)
    lines = [("captions", f"{sum(counts)}: {low if low == high else f'{low} to {high}'} per picture")]
    longest = max((row.tokens for row in used if row.tokens is not None), default=None)
    cut = [row.id for row in used if row.tokens_cut]
    if cut:
        lines.append(
            ("captions cut", f"{len(cut)} with more than {token_limit} tokens, the rest is not read: {listed(cut)}")
        )
    elif longest is not None:
        lines.append(("tokens", f"{longest} in the longest caption, {token_limit} are read"))
    return lines


def _duplicates(used: Sequence[Row]) -> Lines:
    lines: Lines = []
    same = [row for row in used if row.duplicate_of]
    if same:
        pairs = listed([f"{row.id} = {row.duplicate_of}" for row in same])
        lines.append(("duplicates", f"{len(same)} with the bytes of another: {pairs}"))
    groups: defaultdict[int, list[Row]] = defaultdict(list)
    for row in used:
        if row.near_group is not None and not row.duplicate_of:
            groups[row.near_group].append(row)
    alike = [rows for rows in groups.values() if len(rows) > 1]
    if alike:
        names = "; ".join(listed([row.id for row in rows]) for rows in alike[:3])
        more = f"; and {len(alike) - 3} more groups" if len(alike) > 3 else ""
        lines.append(("near-duplicates", f"{sum(map(len, alike))} look like another: {names}{more}"))
    return lines


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

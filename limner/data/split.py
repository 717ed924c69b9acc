"""Which pictures are held out: whole groups of pictures that look the same, chosen by their content and the seed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from limner.core.errors import UserError
from limner.data.ledger import Ledger, Prepared


def hold_out(ledger: Ledger, *, share: float, seed: int) -> Ledger:
    """Returns the ledger with about ``share`` of its pictures moved from ``prepared`` to ``held_out``.

    Pictures with equal bytes and near-duplicates are never parted. Names and their order do not matter. Class pictures
    and what looks like one stay in training. Raises UserError where the groups leave nothing for one of the sides.
    """
    groups = _groups(ledger)
    subject = sum(picture.example.role == "instance" for picture in ledger.prepared)
    free = [group for group in groups if all(picture.example.role == "instance" for picture in group)]
    free.sort(key=lambda group: _place_in_line(group, seed))
    chosen = nearest_sum([len(group) for group in free], wanted=share * subject, most=subject - 1)
    if not chosen:
        locked = len(groups) - len(free)
        kept = f", {locked} of them with class pictures, which are not held out" if locked else ""
        raise UserError(
            f"{subject} {'picture' if subject == 1 else 'pictures'} in {len(groups)} "
            f"{'group' if len(groups) == 1 else 'groups'} of alike ones{kept}: no group can be held out while another "
            "is trained on.",
            where="validation.share",
            fix="Add pictures that differ, or leave validation out.",
        )
    held_out = {picture.example.id for place in chosen for picture in free[place]}
    return dataclasses.replace(
        ledger,
        prepared=tuple(one for one in ledger.prepared if one.example.id not in held_out),
        held_out=tuple(one for one in ledger.prepared if one.example.id in held_out),
        rows=tuple(
            dataclasses.replace(row, part="validation" if row.id in held_out else "train") if row.used else row
            for row in ledger.rows
        ),
    )


def content_of(pictures: Sequence[Prepared]) -> str:
    """Returns a hash of what the pictures are, whatever their names and order: a part must stay when a run goes on."""
    return hashlib.sha256(",".join(sorted(picture.sha256 for picture in pictures)).encode()).hexdigest()


def nearest_sum(sizes: Sequence[int], *, wanted: float, most: int) -> list[int]:
    """Returns the places of sizes whose sum, in [1, most], is as near to ``wanted`` as it can be; early ones first.

    Of two equally near sums it is the smaller one. Empty where no sum is possible.
    """
    cap = max(0, min(most, max(int(2 * wanted) + 1, min(sizes, default=0))))
    ones, sums = [0] * (len(sizes) + 1), [1] * (len(sizes) + 1)
    for place in reversed(range(len(sizes))):  # sums[place], bit s: sizes above 1 from here on can add up to s
        ones[place], sums[place] = ones[place + 1], sums[place + 1]
        if sizes[place] == 1:
            ones[place] += 1
        else:
            sums[place] |= (sums[place] << sizes[place]) & ((2 << cap) - 1)

    def possible(place: int, total: int) -> bool:
        low = max(0, total - ones[place])
        return (sums[place] >> low) & ((2 << (total - low)) - 1) != 0

    totals = (total for total in range(1, cap + 1) if possible(0, total))
    left = min(totals, key=lambda total: (abs(total - wanted), total), default=0)
    chosen = []
    for place, size in enumerate(sizes):
        if size <= left and possible(place + 1, left - size):
            chosen.append(place)
            left -= size
    return chosen


def _groups(ledger: Ledger) -> list[list[Prepared]]:
    """Returns the pictures in groups that must not be parted."""
    near = {row.id: row.near_group for row in ledger.rows if row.used}
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    for picture in ledger.prepared:
        number = near[picture.example.id]
        if number is not None:
            parents[root(picture.sha256)] = root(f"near {number}")
    groups: dict[str, list[Prepared]] = {}
    for picture in ledger.prepared:
        groups.setdefault(root(picture.sha256), []).append(picture)
    return list(groups.values())


def _place_in_line(group: Sequence[Prepared], seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:split:{content_of(group)}".encode(), digest_size=16).digest()

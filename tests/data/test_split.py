"""What is held out depends on the pictures alone, never parts copies, and is as much as was asked for."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig
from limner.data.example import BytesImage, Example, Reading, Role
from limner.data.ledger import Ledger, Prepared, Row, survey
from limner.data.split import content_of, hold_out, nearest_sum
from tests.data.test_ledger import picture

Kind = tuple[str, int | None, Role]
"""Bytes, near group and role of a picture."""


def ledger(kinds: Sequence[Kind], names: Sequence[str] | None = None) -> Ledger:
    names = names or [f"{number:03d}.png" for number in range(len(kinds))]
    prepared, rows = [], []
    for name, (content, near, role) in sorted(zip(names, kinds, strict=True)):
        prepared.append(Prepared(Example(name, BytesImage(b""), ("a",), role=role), content, (64, 64), (64, 64)))
        rows.append(Row(id=name, used=True, sha256=content, near_group=near, role=role))
    rows.append(Row(id="notes.txt", used=False, reason="no picture"))
    return Ledger("test", (), tuple(rows), tuple(prepared), "", 77)


KINDS = st.lists(
    st.tuples(
        st.sampled_from([f"bytes {number}" for number in range(8)]),
        st.sampled_from([None, None, 0, 1, 2]),
        st.sampled_from(("instance", "instance", "instance", "class")),
    ),
    min_size=1,
    max_size=12,
)


def linked(one: Kind, other: Kind) -> bool:
    return one[0] == other[0] or (one[1] is not None and one[1] == other[1])


def grouped(kinds: Sequence[Kind]) -> list[list[Kind]]:
    """Returns the chains of linked pictures, by growing each from its first member."""
    rest, groups = list(kinds), []
    while rest:
        group, grown = [rest.pop(0)], True
        while grown:
            more = [kind for kind in rest if any(linked(kind, member) for member in group)]
            rest = [kind for kind in rest if not any(linked(kind, member) for member in group)]
            group, grown = group + more, bool(more)
        groups.append(group)
    return groups


@given(KINDS, st.floats(0.01, 0.5), st.integers(0, 50), st.randoms())
@settings(max_examples=150, deadline=None)
def test_a_split_parts_no_copies_meets_the_share_and_depends_on_the_content_alone(
    kinds: list[Kind], share: float, seed: int, random: object
) -> None:
    free = [group for group in grouped(kinds) if all(kind[2] == "instance" for kind in group)]
    subject = sum(kind[2] == "instance" for kind in kinds)
    sums = {
        sum(map(len, chosen)) for count in range(1, len(free) + 1) for chosen in itertools.combinations(free, count)
    }
    possible = [total for total in sums if total < subject]
    if not possible:
        with pytest.raises(UserError, match=rf"in {len(grouped(kinds))} groups? of alike"):
            hold_out(ledger(kinds), share=share, seed=seed)
        return
    split = hold_out(ledger(kinds), share=share, seed=seed)
    held = [kinds[int(one.example.id[:3])] for one in split.held_out]
    kept = [kinds[int(one.example.id[:3])] for one in split.prepared]
    assert len(held) + len(kept) == len(kinds)
    assert not any(linked(one, other) for one in held for other in kept)
    assert all(kind[2] == "instance" for kind in held)
    assert any(kind[2] == "instance" for kind in kept)
    assert abs(len(held) - share * subject) == min(abs(total - share * subject) for total in possible)
    parts = {row.id: row.part for row in split.rows}
    assert parts.pop("notes.txt") is None
    assert {name for name, part in parts.items() if part == "validation"} == {one.example.id for one in split.held_out}
    assert {name for name, part in parts.items() if part == "train"} == {one.example.id for one in split.prepared}

    names = [f"{number}-renamed.png" for number in range(len(kinds))]
    random.shuffle(names)  # type: ignore[attr-defined]
    again = hold_out(ledger(kinds, names), share=share, seed=seed)
    assert content_of(again.held_out) == content_of(split.held_out)


@given(st.lists(st.integers(1, 6), max_size=9), st.floats(0, 12), st.integers(0, 20))
@settings(max_examples=300, deadline=None)
def test_the_sum_is_the_nearest_that_there_is(sizes: list[int], wanted: float, most: int) -> None:
    chosen = nearest_sum(sizes, wanted=wanted, most=most)
    assert len(set(chosen)) == len(chosen)
    sums = {sum(some) for count in range(1, len(sizes) + 1) for some in itertools.combinations(sizes, count)}
    expected = min(
        (total for total in sums if total <= most), key=lambda total: (abs(total - wanted), total), default=0
    )
    assert sum(sizes[place] for place in chosen) == expected


def test_each_seed_holds_out_other_pictures_and_each_picture_has_its_turn() -> None:
    kinds: list[Kind] = [(f"bytes {number}", number // 2 if number < 10 else None, "instance") for number in range(30)]
    turns = [0] * 30
    for seed in range(300):
        for one in hold_out(ledger(kinds), share=0.2, seed=seed).held_out:
            turns[int(one.example.id[:3])] += 1
    assert all(30 < count < 95 for count in turns), turns  # 60 expected, pairs and single ones alike
    assert sum(turns) == 300 * 6


def test_a_large_set_is_split_exactly_too() -> None:
    sizes = [1 + number % 4 for number in range(12_000)] + [1] * 20_000
    chosen = nearest_sum(sizes, wanted=5000.0, most=40_000)
    assert sum(sizes[place] for place in chosen) == 5000


def test_a_recompressed_copy_stays_with_its_picture() -> None:
    files = {f"{number}.png": picture(number) for number in range(6)}
    for number in range(6):
        file = io.BytesIO()
        with Image.open(io.BytesIO(files[f"{number}.png"])) as image:
            image.convert("RGB").resize((64, 48)).save(file, "JPEG", quality=60)
        files[f"small-{number}.jpg"] = file.getvalue()
    examples = tuple(Example(name, BytesImage(data), ("a",)) for name, data in files.items())
    images = ImageConfig(resolution=64, bucket_step=16)
    whole = survey(Reading("test", examples), images, count_tokens=None, token_limit=77, cache=None)
    for seed in range(10):
        held = {one.example.id for one in hold_out(whole, share=0.25, seed=seed).held_out}
        assert len(held) == 2  # of 2 and 4, which are equally near to 3, the smaller
        assert all((f"{number}.png" in held) == (f"small-{number}.jpg" in held) for number in range(6))


def test_the_summary_says_what_is_held_out() -> None:
    kinds: list[Kind] = [(str(number), None, "class" if number > 9 else "instance") for number in range(15)]
    full = hold_out(ledger(kinds), share=0.2, seed=1)
    rows = tuple(
        dataclasses.replace(row, width=64, height=64, bucket="64x64") if row.used else row for row in full.rows
    )
    summary = dict(dataclasses.replace(full, rows=rows).summary())
    assert summary["held out"].startswith("2 of 10 of the subject (class pictures all train), 20%, not trained on: ")

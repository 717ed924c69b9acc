"""The summary is short and names what a person should look at."""

from __future__ import annotations

from typing import Any

from limner.data.ledger import Ledger, Row
from limner.data.summary import listed, printable

USED: dict[str, Any] = {
    "used": True, "width": 100, "height": 80, "bucket": "64x48", "captions": 1, "role": "instance", "repeats": 1,
}  # fmt: skip


def lines(*rows: Row, token_limit: int = 77) -> list[tuple[str, str]]:
    return list(Ledger("Folder with text files", (), rows, (), "", token_limit).summary())


def values(label: str, *rows: Row, token_limit: int = 77) -> list[str]:
    return [value for name, value in lines(*rows, token_limit=token_limit) if name == label]


def test_a_set_without_surprises_has_six_lines() -> None:
    assert lines(Row("a", **USED), Row("b", **USED | {"width": 200, "bucket": "80x48", "cut_off": 0.25})) == [
        ("layout", "Folder with text files"),
        ("pictures", "2 found, 2 used, 0 left out"),
        ("sizes", "100x80 smallest, 200x80 median, 200x80 largest"),
        ("buckets", "64x48: 1, 80x48: 1"),
        ("cropped away", "12% of the area (median), 25% of b"),
        ("captions", "2: 1 per picture"),
    ]


def test_what_is_left_out_is_grouped_by_reason_the_frequent_ones_first() -> None:
    rows = [
        Row("z", used=False, reason="is empty: the file has 0 bytes"),
        *(Row(f"{i}.jpg", used=False, reason=f"is damaged or cut short: {i} bytes left") for i in range(5)),
        Row("ok", **USED),
    ]
    assert values("left out", *rows) == [
        "5: is damaged or cut short (0.jpg, 1.jpg, 2.jpg and 2 more)",
        "1: is empty: the file has 0 bytes (z)",
    ]


def test_enlarged_pictures_are_warned_of_the_worst_first() -> None:
    rows = [Row("a", **USED, enlarged=1.5), Row("b", **USED, enlarged=2.345), Row("c", **USED, enlarged=1.01)]
    assert values("enlarged", *rows) == ["2 with fewer pixels than the bucket, which will look soft: b 2.3x, a 1.5x"]
    assert values("enlarged", rows[2]) == []


def test_captions_that_are_cut_are_named_and_otherwise_the_longest_is() -> None:
    short, long = Row("a", **USED, tokens=5), Row("b", **USED | {"captions": 3}, tokens=90, tokens_cut=True)
    assert values("captions cut", short, long) == ["1 with more than 77 tokens, the rest is not read: b"]
    assert values("captions", short, long) == ["4: 1 to 3 per picture"]
    assert values("tokens", short) == ["5 in the longest caption, 77 are read"]
    assert values("tokens", Row("a", **USED)) == []


def test_duplicates_and_near_duplicates_are_named_and_not_told_twice() -> None:
    rows = [
        Row("a", **USED, near_group=0),
        Row("b", **USED, near_group=0, duplicate_of="a"),
        Row("c", **USED, near_group=1),
        Row("d", **USED, near_group=1),
        Row("e", **USED),
    ]
    assert values("duplicates", *rows) == ["1 with the bytes of another: b = a"]
    assert values("near-duplicates", *rows) == ["2 look like another: c, d"]


def test_class_pictures_are_counted_apart() -> None:
    assert values("roles", Row("a", **USED), Row("b", **USED | {"role": "class"})) == [
        "1 of the subject, 1 of its class"
    ]


def test_notes_are_grouped() -> None:
    rows = [Row("a", **USED, notes=("animated: the first of 2 frames is used",)), Row("b", **USED)]
    assert values("note", *rows) == ["1: animated: the first of 2 frames is used (a)"]


def test_names_can_always_be_printed() -> None:
    assert printable("caf\udce9\x1b[31m\n.png") == "caf\\udce9\\x1b[31m\\n.png"
    assert printable("Größe 猫.png") == "Größe 猫.png"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"

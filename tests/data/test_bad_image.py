"""A file that is no picture is called by its name."""

from __future__ import annotations

import pytest

from limner.data.bad_image import reason_of_unreadable


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0", "holds only zero bytes: 3 of them"),
        (b"  \r\n<HTML lang=en>", "is no picture: it begins like HTML"),
        (b'<?xml version="1.0"?><svg/>', "is no picture: it begins like XML"),
        (b"<svg xmlns=", "is an SVG drawing"),
        (b'{"error": "not found"}', "is no picture: it begins like JSON"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"8BPS\0\1", "is a Photoshop document"),
        (b"PK\x03\x04", "is no picture: it is a ZIP archive"),
        (b"\xff\x0a\xfa", "is a JPEG XL picture"),
        (b"\0\0\0\x1cftypheix", "is a HEIC picture"),
        (b"\0\0\0\x1cftypmp42", "is no picture that can be read: it begins with b'\\x00\\x00\\x00\\x1cftyp'"),
        (b"RIFF\0\0\0\0WEBP", "is damaged: it begins like a WebP file"),
        (b"", "holds only zero bytes: 0 of them"),
    ],
)
def test_the_reason_names_what_it_looks_like(data: bytes, words: str) -> None:
    assert reason_of_unreadable(data, ("JPEG", "PNG")).startswith(words)


def test_the_readable_formats_are_listed() -> None:
    assert reason_of_unreadable(b"hello", ("JPEG", "PNG")).endswith("readable are JPEG, PNG")

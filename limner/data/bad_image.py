"""Why a file is not used as a picture: what often stands under the name of one."""

from __future__ import annotations

from collections.abc import Sequence

_HTML = "is no picture: it begins like HTML, a saved web page"
_BEGINNINGS = (  # in lower case
    (b"version https://git-lfs", "is no picture: it is a Git LFS pointer, fetch the real file with git lfs pull"),
    (b"<!doctype html", _HTML),
    (b"<html", _HTML),
    (b"<head", _HTML),
    (b"<script", _HTML),
    (b"<svg", "is an SVG drawing, which has no pixels: export it as PNG"),
    (b"<?xml", "is no picture: it begins like XML"),
    (b"{", "is no picture: it begins like JSON"),
    (b"%pdf", "is a PDF document: export its pictures as PNG"),
    (b"8bps", "is a Photoshop document: export it as PNG"),
    (b"pk\x03\x04", "is no picture: it is a ZIP archive"),
    (b"\x00\x00\x00\x0cjp  ", "is a JPEG 2000 picture, which is not read: save it as PNG or JPEG"),
    (b"\x00\x00\x00\x0cjxl ", "is a JPEG XL picture, which is not read: save it as PNG or JPEG"),
    (b"\xff\x0a", "is a JPEG XL picture, which is not read: save it as PNG or JPEG"),
    (b"\xff\xd8\xff", "is damaged: it begins like a JPEG file, but cannot be opened"),
    (b"\x89png", "is damaged: it begins like a PNG file, but cannot be opened"),
    (b"gif8", "is damaged: it begins like a GIF file, but cannot be opened"),
    (b"riff", "is damaged: it begins like a WebP file, but cannot be opened"),
    (b"ii*\x00", "is damaged: it begins like a TIFF file, but cannot be opened"),
    (b"mm\x00*", "is damaged: it begins like a TIFF file, but cannot be opened"),
    (b"bm", "is damaged: it begins like a BMP file, but cannot be opened"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


class BadImage(Exception):
    """Bytes that cannot be used as a picture. The text says why and follows the file's name: the general part, then
    after a colon what differs from file to file."""


def reason_of_unreadable(data: bytes, formats: Sequence[str]) -> str:
    """Returns why bytes that are in none of the ``formats`` cannot be used."""
    if not data.strip(b"\0"):
        return f"holds only zero bytes: {len(data):,} of them, it was never written"
    beginning = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for prefix, reason in _BEGINNINGS:
        if beginning.startswith(prefix):
            return reason
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "is a HEIC picture, which is not read: save it as JPEG or PNG"
    return f"is no picture that can be read: it begins with {data[:8]!r}, readable are {', '.join(formats)}"

"""Every kind of file that is found in a folder of pictures becomes an upright sRGB picture or a plain sentence."""

from __future__ import annotations

import io
import random
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from limner.data.bad_image import BadImage
from limner.data.buckets import MOST_PIXELS, Placement, place
from limner.data.image import Decoded, decode, to_pixels

WHITE = (255, 255, 255)
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def look(data: bytes, background: tuple[int, int, int] = WHITE, max_pixels: int = MOST_PIXELS) -> Decoded:
    return decode(data, background=background, max_pixels=max_pixels)


def reason(data: bytes, max_pixels: int = MOST_PIXELS) -> str:
    with pytest.raises(BadImage) as caught:
        look(data, max_pixels=max_pixels)
    return str(caught.value)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def plain(colour: Any, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def first_pixel(data: bytes, background: tuple[int, int, int] = WHITE) -> tuple[int, ...]:
    picture = look(data, background).image
    assert picture.mode == "RGB"
    pixel = picture.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def near(seen: tuple[int, ...], wanted: tuple[int, ...], levels: int) -> bool:
    return max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= levels


def photo(width: int = 48, height: int = 32) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------------ building files
def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], depth: int, colour: int, rows: list[bytes], *extra: bytes, after: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + after + chunk(b"IEND", b"")


def tiff(width: int, height: int, bits: int, photometric: int, pixels: bytes) -> bytes:
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Returns an ICC version 2 profile: a header of 128 bytes, a table of tags, the tags."""
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + b"\0" * (-len(tag) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, kind, space, connection)
    header = header.ljust(36, b"\0") + b"acsp".ljust(32, b"\0") + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


def linear_curve() -> bytes:
    return b"curv" + struct.pack(">II", 0, 0)


def xyz(*numbers: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*numbers)


def linear_grey_profile() -> bytes:
    return icc(b"GRAY", b"XYZ ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": linear_curve()})


def swapped_profile() -> bytes:
    """A linear RGB profile whose first channel is sRGB's green and whose second is its red."""
    columns = {b"rXYZ": (0.3851, 0.7169, 0.0971), b"gXYZ": (0.4360, 0.2225, 0.0139), b"bXYZ": (0.1431, 0.0606, 0.7141)}
    curves = {name: linear_curve() for name in (b"rTRC", b"gTRC", b"bTRC")}
    white = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    return icc(b"RGB ", b"XYZ ", white | {name: xyz(*column) for name, column in columns.items()} | curves)


def ink_profile() -> bytes:
    """A CMYK profile in which the first ink prints red, and any other ink black."""
    ramp = bytes(range(256))
    corners = [(100, 0, 0)] + [(0, 0, 0)] * 15
    corners[8] = (54, 81, 70)  # sRGB's red, adapted to D50; the first channel varies slowest
    clut = b"".join(bytes((round(light * 2.55), a + 128, b + 128)) for light, a, b in corners)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + clut + ramp * 3
    return icc(b"CMYK", b"Lab ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"A2B0": table})


# ---------------------------------------------------------------------------------------------------- orientation
CORNERS = {  # what is stored for each orientation, so that a viewer shows red top left and green top right
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 100}),
    ],
)
def test_every_exif_orientation_comes_out_upright(orientation: int, file_format: str, options: dict[str, Any]) -> None:
    upright = plain(BLUE, size=(48, 32))
    upright.paste(RED, (0, 0, 16, 16))
    upright.paste(GREEN, (32, 0, 48, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(CORNERS[orientation](upright), file_format, exif=exif, **options)
    seen = look(data).image
    assert seen.size == (48, 32)
    assert near(seen.getpixel((6, 6)), RED, 12)
    assert near(seen.getpixel((42, 6)), GREEN, 12)
    assert near(seen.getpixel((24, 28)), BLUE, 12)


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_an_orientation_that_does_not_exist_changes_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert look(encoded(photo(), "JPEG", exif=exif)).image.size == (48, 32)


def test_broken_exif_is_told_and_the_picture_used() -> None:
    decoded = look(encoded(photo(), "JPEG", exif=b"Exif\0\0rubbish, not a directory"))
    assert decoded.image.size == (48, 32)
    assert any("EXIF" in note for note in decoded.notes)


def test_huge_exif_is_no_trouble() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x9286] = b"x" * 60_000
    data = encoded(photo(), "JPEG", exif=exif)
    data = data[:2] + b"\xff\xe1\xff\xff" + b"\0" * 65_533 + data[2:]
    assert look(data).image.size == (32, 48)


# --------------------------------------------------------------------------------------------------------- alpha
def half_clear(mode: str) -> Image.Image:
    image = plain((*BLUE, 255), "RGBA", (8, 8))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    return image.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        encoded(half_clear("RGBA"), "PNG"),
        encoded(half_clear("LA"), "PNG"),
        encoded(half_clear("RGBA"), "WEBP", lossless=True),
        encoded(half_clear("RGBA"), "TIFF"),
        encoded(half_clear("LA"), "TIFF"),
        encoded(half_clear("PA"), "TIFF"),
        encoded(half_clear("RGBA"), "GIF"),
        encoded(half_clear("P"), "PNG", transparency=half_clear("P").getpixel((0, 0))),
        encoded(half_clear("P"), "PNG", transparency=bytes([0]) * 200 + bytes([7])),
        encoded(half_clear("RGB"), "PNG", transparency=(0, 0, 0)),
        encoded(half_clear("L"), "PNG", transparency=0),
        encoded(half_clear("1").convert("1"), "PNG", transparency=0),
        png((8, 1), 2, 0, [b"\x00\x00"], chunk(b"tRNS", b"\0\0")),
        png((8, 1), 4, 0, [b"\xff\xff\xff\xff"], chunk(b"tRNS", b"\0\x0f")),
        png((8, 1), 2, 0, [b"\xaa\xaa"], chunk(b"tRNS", b"\0\x02")),
        png((2, 1), 16, 0, [b"\x12\x34\x12\x35"], chunk(b"tRNS", b"\x12\x34")),
        png((2, 1), 16, 4, [b"\x12\x34\0\0\x12\x34\xff\xff"]),
    ],
    ids=[
        "RGBA", "LA", "webp", "tiff RGBA", "tiff LA", "tiff PA", "gif", "palette index", "palette alphas",
        "RGB tRNS", "L tRNS", "1-bit tRNS", "2-bit tRNS black", "4-bit tRNS", "2-bit tRNS", "16-bit tRNS", "16-bit LA",
    ],
)  # fmt: skip
def test_transparent_parts_show_the_background_that_was_asked_for(data: bytes) -> None:
    assert first_pixel(data, background=(200, 100, 50)) == (200, 100, 50)
    assert look(data, background=(200, 100, 50)).notes == ("transparent parts are filled with #c86432",)


def test_half_transparency_is_mixed_and_opaque_parts_stay() -> None:
    image = plain((255, 0, 0, 128), "RGBA")
    assert near(first_pixel(encoded(image, "PNG"), background=(0, 0, 255)), (128, 0, 127), 1)
    picture = look(encoded(half_clear("RGBA"), "PNG"), background=GREEN).image
    assert picture.getpixel((7, 7)) == BLUE


def test_an_alpha_channel_that_hides_nothing_is_no_note() -> None:
    assert look(encoded(plain((*RED, 255), "RGBA"), "PNG")).notes == ()


def test_sixteen_bit_grey_pixels_beside_the_transparent_one_stay() -> None:
    data = png((2, 1), 16, 0, [b"\x12\x34\x12\x35"], chunk(b"tRNS", b"\x12\x34"))
    assert look(data).image.getpixel((1, 0)) == (18, 18, 18)


def test_one_transparent_colour_of_sixteen_bits_is_refused_rather_than_guessed() -> None:
    data = png((1, 1), 16, 2, [b"\0\1\0\1\0\1"], chunk(b"tRNS", b"\0\0\0\0\0\0"))
    assert "16-bit colour transparent" in reason(data)


# ------------------------------------------------------------------------------------------------ modes and depths
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (encoded(plain(1, "1"), "PNG"), WHITE),
        (encoded(plain(0, "1"), "TIFF", compression="group4"), (0, 0, 0)),
        (encoded(plain(128, "L"), "PNG"), GREY),
        (encoded(plain(GREEN).convert("P"), "PNG"), GREEN),
        (encoded(plain(GREEN), "BMP"), GREEN),
        (png((1, 1), 16, 2, [b"\xff\xff\x80\x00\x00\x00"]), (255, 128, 0)),
        (png((1, 1), 16, 0, [b"\x80\x80"]), GREY),
        (png((1, 1), 2, 0, [b"\x80"]), (170, 170, 170)),
        (encoded(Image.frombytes("I;16", (1, 1), b"\x80\x80"), "TIFF"), GREY),
        (encoded(Image.frombytes("I;16B", (1, 1), b"\x40\x00"), "TIFF"), (64, 64, 64)),
        (tiff(1, 1, 16, 1, b"\x00\x40"), (64, 64, 64)),
        (tiff(1, 1, 16, 0, b"\x00\x40"), (191, 191, 191)),
        (tiff(2, 1, 12, 1, b"\x80\x0f\xff"), GREY),
    ],
    ids=[
        "1-bit", "fax", "grey", "palette", "bmp", "16-bit RGB", "16-bit grey", "2-bit grey",
        "I;16", "I;16 big endian", "16-bit tiff", "16-bit tiff, white is zero", "12-bit tiff",
    ],
)  # fmt: skip
def test_every_pixel_format_is_scaled_to_eight_bits(data: bytes, wanted: tuple[int, int, int]) -> None:
    assert near(first_pixel(data), wanted, 1)


def test_lab_is_converted() -> None:
    assert near(first_pixel(encoded(plain((200, 120, 40)).convert("LAB"), "TIFF")), (200, 120, 40), 4)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    assert reason(encoded(plain(1, mode), "TIFF")).startswith("has pixels without a known range: 32-bit mode " + mode)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_tiny_and_extreme_pictures_are_decoded(size: tuple[int, int]) -> None:
    assert look(encoded(plain(RED, size=size), "PNG")).image.size == size


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo"])
def test_the_suffix_does_not_matter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(plain(RED), "PNG"))
    assert first_pixel(path.read_bytes()) == RED


# ------------------------------------------------------------------------------------------------ colour profiles
@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("TIFF", "RGB", {}),
        ("JPEG", "RGB", {"quality": 100, "subsampling": 0}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("AVIF", "RGB", {"quality": 100}),
    ],
)
def test_a_colour_profile_is_followed(file_format: str, mode: str, options: dict[str, Any]) -> None:
    data = encoded(plain(RED).convert(mode), file_format, icc_profile=swapped_profile(), **options)
    assert near(first_pixel(data), GREEN, 16 if file_format == "AVIF" else 2)
    assert look(data).notes == ()


def test_a_grey_profile_is_followed() -> None:
    for mode, colour in (("L", 128), ("LA", (128, 255))):
        data = encoded(plain(colour, mode), "PNG", icc_profile=linear_grey_profile())
        assert near(first_pixel(data), (188, 188, 188), 1)  # half the light is 188 of 255 in sRGB


def test_a_colour_profile_in_a_grey_picture_is_followed() -> None:
    data = encoded(plain(128, "L"), "JPEG", icc_profile=swapped_profile())
    assert near(first_pixel(data), (188, 188, 188), 2)


def test_a_cmyk_profile_is_followed() -> None:
    for file_format, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
        data = encoded(plain((255, 0, 0, 0), "CMYK"), file_format, icc_profile=ink_profile(), **options)
        assert near(first_pixel(data), RED, 6)
        assert look(data).notes == ()


def test_the_srgb_profile_changes_next_to_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = photo()
    seen = np.asarray(look(encoded(image, "PNG", icc_profile=profile)).image).astype(int)
    assert np.abs(seen - np.asarray(image)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile"),
        ("RGB", swapped_profile()[:200]),
        ("RGB", linear_grey_profile()),
        ("L", ink_profile()),
        ("CMYK", swapped_profile()),
    ],
)
def test_a_profile_that_cannot_be_used_is_told_and_srgb_assumed(mode: str, profile: bytes) -> None:
    data = encoded(plain(RED).convert(mode), "TIFF", icc_profile=profile)
    plain_data = encoded(plain(RED).convert(mode), "TIFF")
    decoded = look(data)
    assert decoded.image.getpixel((0, 0)) == first_pixel(plain_data)
    assert len(decoded.notes) == 1
    assert decoded.notes[0].startswith("its colour profile cannot be used, sRGB is assumed: ")


def test_cmyk_of_photoshop_keeps_its_polarity() -> None:
    ink = plain((0, 255, 255, 0), "CMYK", size=(16, 16))
    data = encoded(ink, "JPEG", quality=100)
    assert b"Adobe" in data
    assert near(first_pixel(data), RED, 4)
    assert look(data).notes == ("CMYK without a colour profile: its colours are approximate",)


def test_ycck_is_red_where_it_was_red() -> None:
    # YCCK holds the YCbCr of 1-C, 1-M, 1-Y (libjpeg, jdcolor.c); Photoshop's C, M, Y are 1 minus the ink
    luma, blueness, redness = plain((0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    stored = Image.new("CMYK", (16, 16), (255 - luma, 255 - blueness, 255 - redness, 0))
    data = encoded(stored, "JPEG", quality=100, subsampling=0)
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    assert near(first_pixel(data), RED, 6)


# --------------------------------------------------------------------------------------------------- many frames
@pytest.mark.parametrize(
    ("file_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {"quality": 100})]
)
def test_the_first_frame_of_an_animation_is_used_and_told(file_format: str, options: dict[str, Any]) -> None:
    others = [plain(GREEN, size=(16, 16)), plain(BLUE, size=(16, 16))]
    data = encoded(plain(RED, size=(16, 16)), file_format, save_all=True, append_images=others, **options)
    assert near(first_pixel(data), RED, 4)
    assert look(data).notes == ("animated: the first of 3 frames is used",)


@pytest.mark.parametrize("file_format", ["TIFF", "MPO"])
def test_the_first_page_is_used_and_told(file_format: str) -> None:
    data = encoded(plain(RED, size=(16, 16)), file_format, save_all=True, append_images=[plain(GREEN, size=(16, 16))])
    assert near(first_pixel(data), RED, 4)
    assert look(data).notes == ("several pages: the first of 2 is used",)


def test_the_first_page_comes_out_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(48, 32), "TIFF", save_all=True, append_images=[plain(GREEN)], exif=exif)
    assert look(data).image.size == (32, 48)


def test_a_whole_first_frame_before_a_damaged_second_one_is_used_and_told() -> None:
    data = encoded(plain(RED, size=(64, 64)), "GIF", save_all=True, append_images=[photo(64, 64)])
    decoded = look(data[: len(data) // 2])
    assert decoded.image.getpixel((0, 0)) == RED
    assert len(decoded.notes) == 1


# ------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty: the file has 0 bytes"),
        (b"\0" * 5000, "holds only zero bytes"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>404", "begins like HTML"),
        (b"<html><body>Not found", "begins like HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture"),
        (b"just some text", "is no picture that can be read"),
        (b"\xff\xd8\xff", "is damaged: it begins like a JPEG file"),
        (encoded(photo(), "PPM"), "is no picture that can be read"),
        (encoded(photo(), "JPEG2000"), "is a JPEG 2000 picture"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)), "is damaged: it begins like a PNG file"),
        (png((0, 1), 8, 2, [b""]), "is damaged"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert words in reason(data)


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("BMP", {}),
    ("AVIF", {}),
]


@pytest.mark.parametrize(("file_format", "options"), FORMATS)
def test_a_file_cut_short_anywhere_is_never_used_with_wrong_pixels(file_format: str, options: dict[str, Any]) -> None:
    data = encoded(photo(24, 16), file_format, **options)
    whole = look(data).image.tobytes()
    lengths = [*range(0, len(data), max(1, len(data) // 100)), *range(len(data) - 12, len(data))]
    refused = 0
    for length in lengths:
        try:
            assert look(data[:length]).image.tobytes() == whole
        except BadImage:
            refused += 1
    assert refused >= len(lengths) - 12


def test_half_a_jpeg_and_one_without_its_end_are_refused() -> None:
    data = encoded(photo(200, 200), "JPEG")
    assert data.endswith(b"\xff\xd9")
    for part in (data[: len(data) // 2], data[:-2], data[: len(data) // 2] + b"\0" * (len(data) // 2)):
        assert reason(part).startswith("is damaged or cut short")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_flipped_bit_in_the_pixels_of_a_png_is_found() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(pixels), "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    assert reason(bytes(data)).startswith("is damaged or cut short")


def test_a_tiff_that_lacks_strips_is_refused() -> None:
    rows = [struct.pack("<H", 257), struct.pack("<H", 278)]
    data = bytearray(tiff(8, 8, 8, 1, bytes(64)))
    for tag, value in zip(rows, (16, 8), strict=True):  # twice as high, with one strip of eight rows as before
        at = data.index(tag, 72) + 8
        data[at : at + 4] = struct.pack("<I", value)
    assert reason(bytes(data)) == "is damaged or cut short: its strips hold 64 of 128 pixels"


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_deflate"}, {"tiffinfo": {278: 7}}])
def test_a_tiff_of_many_strips_comes_out_whole(options: dict[str, Any]) -> None:
    image = photo(400, 300)
    assert look(encoded(image, "TIFF", **options)).image.tobytes() == image.tobytes()


def bombs() -> dict[str, bytes]:
    jpeg = bytearray(encoded(photo(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    gif = bytearray(encoded(photo(), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(encoded(photo(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    zeros = zlib.compress(bytes(10_000_000))
    return {
        "png": png((50_000, 50_000), 8, 2, [b"\0" * 10]),
        "png of one bit": png((100_000, 100_000), 1, 0, [b"\0" * 10]),
        "png between Pillow's warning and error": png((10_000, 10_000), 8, 0, [b"\0" * 10]),
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "tiff": tiff(100_000, 100_000, 8, 1, b"\0" * 10),
        "webp": b"RIFF\x26\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\x3f\0\xff\x3f\0" + b"ANIM\x06\0\0\0" + bytes(6),
        "text": png((1, 1), 8, 2, [b"\0\0\0"], chunk(b"zTXt", b"a\0\0" + zeros)),
        "text after the pixels": png((1, 1), 8, 2, [b"\0\0\0"], after=chunk(b"zTXt", b"a\0\0" + zeros)),
        "profile": png((1, 1), 8, 2, [b"\0\0\0"], chunk(b"iCCP", b"a\0\0" + zeros)),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_decompression_bomb_is_refused_at_once_and_without_a_warning(name: str) -> None:
    data = bombs()[name]
    start = time.process_time()
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        words = reason(data)
    assert time.process_time() - start < 1
    assert leaked == []
    if name not in ("text", "text after the pixels", "profile", "webp"):
        assert words.startswith("has more pixels than images.max_pixels allows")


def test_the_limit_is_inclusive_and_ours() -> None:
    data = encoded(plain(RED, size=(20, 10)), "PNG")
    assert look(data, max_pixels=200).image.size == (20, 10)
    assert reason(data, max_pixels=199) == "has more pixels than images.max_pixels allows: 20 x 10 = 200, not 199"


# ------------------------------------------------------------------------------------------------------ robustness
SEEDS = [encoded(photo(16, 12), file_format, **options) for file_format, options in FORMATS]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False))
def test_damaged_files_end_in_a_picture_or_a_sentence(data: bytes, rng: random.Random) -> None:
    damaged = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
    for _ in range(rng.randint(1, 5) if damaged else 0):
        reach = len(damaged) if rng.random() < 0.5 else min(len(damaged), 64)  # headers are short and matter most
        damaged[rng.randrange(reach)] = rng.randrange(256)
    try:
        decoded = look(bytes(damaged), max_pixels=1_000_000)
    except BadImage as error:
        words = str(error)
    else:
        words = f"is a picture of mode {decoded.image.mode}"
        assert decoded.image.width * decoded.image.height <= 1_000_000
    assert words.startswith(("is ", "has ", "holds ", "cannot "))
    assert "\n" not in words


def test_threads_leak_no_warning_and_leave_the_filters_of_warnings_as_they_were() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that is cut off"
    data = encoded(photo(400, 300), "JPEG", exif=exif.tobytes()[:-20])
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(data)) as image:
            image.getexif()
        assert len(leaked) > 0  # Pillow alone does warn
        leaked.clear()
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            sizes = list(pool.map(lambda data: look(data).image.size, [data] * 200))
        assert leaked == []
        assert warnings.filters == before
    assert set(sizes) == {(400, 300)}


# --------------------------------------------------------------------------------------------------------- pixels
def test_pixels_are_the_cropped_part_of_the_resized_picture() -> None:
    image = photo(60, 40)
    placement = Placement(resize=(48, 32), crop=(10, 3, 24, 24), flip=False)
    pixels = to_pixels(image, placement)
    wanted = image.resize((48, 32), Image.Resampling.LANCZOS).crop((10, 3, 34, 27))
    assert tuple(pixels.shape) == (3, 24, 24)
    assert str(pixels.dtype) == "torch.float32"
    levels = (pixels.permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(levels - np.asarray(wanted)).max() <= 1.01  # a rounding of the box may move a pixel by one level


def test_black_is_minus_one_and_white_is_one() -> None:
    placement = Placement(resize=(8, 8), crop=(0, 0, 8, 8), flip=False)
    pixels = to_pixels(plain((0, 51, 255), size=(8, 8)), placement)
    assert pixels[:, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])


def test_a_flip_exchanges_left_and_right() -> None:
    image = photo(32, 32)
    straight = to_pixels(image, Placement((32, 32), (0, 0, 32, 32), flip=False))
    flipped = to_pixels(image, Placement((32, 32), (0, 0, 32, 32), flip=True))
    assert flipped.flip(2).equal(straight)
    assert not flipped.equal(straight)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000), (4000, 3)])
def test_extreme_shapes_are_placed_without_filling_the_memory(size: tuple[int, int]) -> None:
    placement = place(size, (64, 64), crop="random", flip=True, rng=random.Random(0))
    assert tuple(to_pixels(plain(RED, size=size), placement).shape) == (3, 64, 64)

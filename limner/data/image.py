"""Encoded bytes to an upright sRGB picture, and a picture to pixels for a network. Nothing a file says is trusted."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import (
    AvifImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from limner.data.beginnings import reason_of_unreadable
from limner.data.buckets import MOST_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

    from limner.data.buckets import Placement

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")

# What Pillow raises on damaged or hostile bytes, plugin by plugin; OSError holds UnidentifiedImageError, ValueError
# holds UnicodeDecodeError, LookupError holds KeyError and IndexError, ArithmeticError holds OverflowError and
# ZeroDivisionError, RuntimeError holds RecursionError and NotImplementedError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_TOO_LARGE = "has more pixels than images.max_pixels allows"
_UPRIGHT: dict[object, Image.Transpose] = {  # the EXIF orientation and what turns it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """Bytes that cannot be used as a picture; the text says why, the general part before a colon."""


@dataclass(frozen=True)
class Decoded:
    """A picture as a viewer shows it."""

    image: Image.Image
    """Upright, sRGB, mode RGB."""
    notes: tuple[str, ...]
    """What was done to it that its owner may not expect."""


def decode(data: bytes, *, background: tuple[int, int, int], max_pixels: int) -> Decoded:
    """Returns the picture in ``data``, upright, in sRGB, its transparent parts over ``background``.

    Raises :class:`BadImage` for whatever cannot be used: no picture, cut short, damaged, more than ``max_pixels``
    by its header (nothing is unpacked then), pixels without a known range.
    """
    if not data:
        raise BadImage("is empty: the file has 0 bytes")
    with _pillow_warnings.silenced():
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image.size, max_pixels)
            if isinstance(image, PngImagePlugin.PngImageFile):
                _check_png(data)
            stored = _stored_form(image)
            image.load()
        except _DECODER_ERRORS as error:
            raise BadImage(_reason(data, error, max_pixels)) from None
        notes: list[str] = []
        try:
            picture = _turn_upright(_to_rgb(image, stored, background, notes), image, notes)
        except (OSError, ValueError, MemoryError) as error:
            raise BadImage(_reason(data, error, max_pixels)) from None
        _note_frames(image, notes)
    return Decoded(picture, tuple(notes))


def to_pixels(image: Image.Image, placement: Placement) -> Tensor:
    """Returns the placed picture, float32 [3, H, W] in [-1, 1].

    Only the cropped part is ever made: a picture of 20000 x 1 pixels would not fit into memory when it is enlarged.
    Pillow's resampling reads pixels beyond the box, so that this equals resizing first and cropping then.
    """
    import numpy
    import torch

    left, top, width, height = placement.crop
    x, y = image.width / placement.resize[0], image.height / placement.resize[1]
    box = (left * x, top * y, min((left + width) * x, image.width), min((top + height) * y, image.height))
    placed = image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=None)
    if placement.flip:
        placed = placed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(numpy.array(placed)).permute(2, 0, 1).contiguous().float() / 127.5 - 1


# ------------------------------------------------------------------------------------------------------ refusing
def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise BadImage(f"{_TOO_LARGE}: {size[0]} x {size[1]} = {pixels:,}, not {max_pixels:,}")
    if pixels == 0:
        raise BadImage(f"has no pixels: {size[0]} x {size[1]}")


def _check_png(data: bytes) -> None:
    """Compares every checksum of a PNG file; Pillow's decoder skips those of the pixels."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()


def _reason(data: bytes, error: BaseException, max_pixels: int) -> str:
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own limit, twice our greatest
        return f"{_TOO_LARGE}: more than {2 * MOST_PIXELS:,}, not {max_pixels:,}"
    if isinstance(error, MemoryError):
        return "cannot be unpacked: there is not enough memory, or its sizes are damaged"
    if not isinstance(error, UnidentifiedImageError):
        words = " ".join(str(error).split()) or type(error).__name__
        return f"is damaged or cut short: {words[:160]}"
    return reason_of_unreadable(data, FORMATS)


# ------------------------------------------------------------------------------------------------------- colours
@dataclass(frozen=True)
class _Stored:
    """How a file stores its pixels, where Pillow's mode does not say it."""

    white: int = 65535
    """The greatest value of a 16-bit grey picture."""
    white_is_zero: bool = False
    grey_step: int = 1
    """The factor by which Pillow spreads grey of less than 8 bits; it leaves the transparent value as it is."""
    deep_colour: bool = False
    """Three channels of 16 bits."""


def _stored_form(image: Image.Image) -> _Stored:
    """Reads the stored form from an opened picture that is not loaded yet."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        twelve_bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE) == (12,)
        photometric = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
        return _Stored(white=4095 if twelve_bits else 65535, white_is_zero=photometric == 0)
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        packing = image.tile[0].args
        return _Stored(grey_step={"L;2": 85, "L;4": 17}.get(str(packing), 1), deep_colour=packing == "RGB;16B")
    return _Stored()


def _to_rgb(image: Image.Image, stored: _Stored, background: tuple[int, int, int], notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    colour, alpha = _split_alpha(_eight_bits(image, stored), stored)
    picture = _to_srgb(colour, profile if isinstance(profile, bytes) else b"", notes)
    if alpha is None or alpha.getextrema() == (255, 255):
        return picture
    notes.append(f"transparent parts are filled with #{bytes(background).hex()}")
    return Image.composite(picture, Image.new("RGB", picture.size, background), alpha)


def _eight_bits(image: Image.Image, stored: _Stored) -> Image.Image:
    """Returns 16-bit grey scaled to 8 bits (Pillow's own conversion clips); other pictures as they are."""
    if image.mode in ("I", "F"):
        raise BadImage(f"has pixels without a known range: 32-bit mode {image.mode}, save it with 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image
    import numpy

    values = numpy.asarray(image).astype(numpy.float32)
    grey = numpy.clip(numpy.rint(values * (255 / stored.white)), 0, 255).astype(numpy.uint8)
    scaled = Image.fromarray(255 - grey if stored.white_is_zero else grey)
    if "transparency" not in image.info:
        return scaled
    opaque = numpy.where(values == image.info["transparency"], 0, 255).astype(numpy.uint8)
    return Image.merge("LA", (scaled, Image.fromarray(opaque)))


def _split_alpha(image: Image.Image, stored: _Stored) -> tuple[Image.Image, Image.Image | None]:
    """Returns the colours, in mode L, RGB or CMYK, and the alpha channel if there is one."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        if stored.deep_colour and "transparency" in image.info:
            raise BadImage("makes one 16-bit colour transparent: save it with an alpha channel or with 8 bits")
        if image.mode == "L" and "transparency" in image.info:
            image.info["transparency"] *= stored.grey_step
        *bands, alpha = image.convert("LA" if grey else "RGBA").split()
        return (bands[0] if grey else Image.merge("RGB", bands)), alpha
    if image.mode == "CMYK":
        return image, None
    return image.convert("L" if grey else "RGB"), None


def _to_srgb(colour: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            if colour.mode == "L" and space == "RGB":
                colour = colour.convert("RGB")
            if {"L": "GRAY"}.get(colour.mode, colour.mode) != space:
                raise ValueError(f"made for {space}, not for {colour.mode}")
            converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:  # None only with inPlace=True
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            notes.append(f"its colour profile cannot be used, sRGB is assumed: {words[:160]}")
    elif colour.mode == "CMYK":
        notes.append("CMYK without a colour profile: its colours are approximate")
    return colour.convert("RGB")


# ------------------------------------------------------------------------------------------ orientation and frames
def _turn_upright(picture: Image.Image, image: Image.Image, notes: list[str]) -> Image.Image:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return picture  # Pillow has turned it while it was loaded
    try:
        if "exif" in image.info:
            Image.Exif().load(image.info["exif"])  # getexif would not raise: opening has already tried, and kept silent
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DECODER_ERRORS:
        notes.append("its EXIF data cannot be read: it is used as it is stored, which may be on its side")
        return picture
    return picture if method is None else picture.transpose(method)


def _note_frames(image: Image.Image, notes: list[str]) -> None:
    try:
        if isinstance(image, (TiffImagePlugin.TiffImageFile, MpoImagePlugin.MpoImageFile)):
            if image.n_frames > 1:
                notes.append(f"several pages: the first of {image.n_frames} is used")
        elif (
            isinstance(
                image,
                (
                    GifImagePlugin.GifImageFile,
                    WebPImagePlugin.WebPImageFile,
                    PngImagePlugin.PngImageFile,
                    AvifImagePlugin.AvifImageFile,
                ),
            )
            and image.n_frames > 1
        ):
            notes.append(f"animated: the first of {image.n_frames} frames is used")
    except _DECODER_ERRORS:
        notes.append("several frames: the first is used, the others are damaged")


class _PillowWarnings:
    """Silences Pillow's own warnings while any thread decodes; what matters of them is said as a note or a reason.

    ``warnings.catch_warnings`` alone is not safe here: two threads that leave it in another order than they entered
    would restore each other's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._stack.close()


_pillow_warnings = _PillowWarnings()

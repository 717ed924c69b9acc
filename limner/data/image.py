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

from limner.data.bad_image import BadImage, reason_of_unreadable
from limner.data.buckets import MOST_PIXELS
from limner.data.colours import stored_form, to_rgb

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from limner.data.buckets import Placement

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")

_TOO_LARGE = "has more pixels than images.max_pixels allows"
_UPRIGHT: dict[object, str] = {  # the EXIF orientation and the Image.Transpose that turns it upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class Decoded:
    """A picture as a viewer shows it."""

    image: Image.Image
    """Upright, sRGB, mode RGB."""
    notes: tuple[str, ...]
    """What was done to it that its owner may not expect."""
    alpha: Image.Image | None = None
    """Its alpha channel, upright, mode L, if it has one."""


def decode(data: bytes, *, background: tuple[int, int, int], max_pixels: int) -> Decoded:
    """Returns the picture in ``data``, upright, in sRGB, its transparent parts over ``background``.

    Raises :class:`BadImage` for whatever cannot be used: no picture, cut short, damaged, more than ``max_pixels``
    by its header (nothing is unpacked then), pixels without a known range.
    """
    from PIL import Image

    if not data:
        raise BadImage("is empty: the file has 0 bytes")
    with _pillow_warnings.silenced():
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image.size, max_pixels)
            _check_whole(image, data)
            stored = stored_form(image)
            image.load()
        except _decoder_errors() as error:
            raise BadImage(_reason(data, error, max_pixels)) from None
        notes: list[str] = []
        try:
            colours, alpha = to_rgb(image, stored, background, notes)
            picture = _turn_upright(colours, image, notes)
            alpha = None if alpha is None else _turn_upright(alpha, image, [])
        except (OSError, ValueError, MemoryError) as error:
            raise BadImage(_reason(data, error, max_pixels)) from None
        _note_frames(image, notes)
    return Decoded(picture, tuple(notes), alpha)


def to_pixels(image: Image.Image, placement: Placement) -> Tensor:
    """Returns the placed picture, float32 [3, H, W] in [-1, 1].

    Only the cropped part is ever made: a picture of 20000 x 1 pixels would not fit into memory when it is enlarged.
    Pillow's resampling reads pixels beyond the box, so that this equals resizing first and cropping then.
    """
    import numpy
    import torch
    from PIL import Image

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


def _check_whole(image: Image.Image, data: bytes) -> None:
    """Finds the damage that Pillow's decoders overlook: checksums of a PNG's pixels, strips that a TIFF lacks."""
    from PIL import Image, PngImagePlugin, TiffImagePlugin

    if isinstance(image, PngImagePlugin.PngImageFile):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.verify()
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        boxes = [tile.extents for tile in image.tile if tile.extents is not None]
        covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
        if covered < image.width * image.height:
            raise BadImage(
                f"is damaged or cut short: its strips hold {covered:,} of {image.width * image.height:,} pixels"
            )


def _decoder_errors() -> tuple[type[Exception], ...]:
    """Returns what Pillow raises on damaged or hostile bytes, plugin by plugin.

    OSError holds UnidentifiedImageError, ValueError UnicodeDecodeError, LookupError KeyError and IndexError,
    ArithmeticError OverflowError and ZeroDivisionError, RuntimeError RecursionError and NotImplementedError.
    """
    from PIL import Image

    return (
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


def _reason(data: bytes, error: BaseException, max_pixels: int) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):  # Pillow's own limit, twice our greatest
        return f"{_TOO_LARGE}: more than {2 * MOST_PIXELS:,}, not {max_pixels:,}"
    if isinstance(error, MemoryError):
        return "cannot be unpacked: there is not enough memory, or its sizes are damaged"
    if not isinstance(error, UnidentifiedImageError):
        words = " ".join(str(error).split()) or type(error).__name__
        return f"is damaged or cut short: {words[:160]}"
    return reason_of_unreadable(data, FORMATS)


# ------------------------------------------------------------------------------------------ orientation and frames
def _turn_upright(picture: Image.Image, image: Image.Image, notes: list[str]) -> Image.Image:
    """Turns the picture; a TIFF has been turned by Pillow while it was loaded, and says nothing of it any more."""
    from PIL import ExifTags, Image

    try:
        if "exif" in image.info:
            Image.Exif().load(image.info["exif"])  # getexif would not raise: opening has already tried, and kept silent
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except _decoder_errors():
        notes.append("its EXIF data cannot be read: it is used as it is stored, which may be on its side")
        return picture
    return picture if method is None else picture.transpose(Image.Transpose[method])


def _note_frames(image: Image.Image, notes: list[str]) -> None:
    from PIL import AvifImagePlugin, GifImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    animations = (
        GifImagePlugin.GifImageFile,
        WebPImagePlugin.WebPImageFile,
        PngImagePlugin.PngImageFile,
        AvifImagePlugin.AvifImageFile,
    )
    try:
        if isinstance(image, animations) and image.n_frames > 1:
            notes.append(f"animated: the first of {image.n_frames} frames is used")
        if isinstance(image, (TiffImagePlugin.TiffImageFile, MpoImagePlugin.MpoImageFile)) and image.n_frames > 1:
            notes.append(f"several pages: the first of {image.n_frames} is used")
    except _decoder_errors():
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

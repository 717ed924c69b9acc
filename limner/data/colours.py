"""Whatever way a file stores its colours, to 8-bit sRGB: depth, palette, transparency, colour profile."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.data.bad_image import BadImage

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Stored:
    """How a file stores its pixels, where Pillow's mode does not say it."""

    white: int = 65535
    """The greatest value of a 16-bit grey picture."""
    white_is_zero: bool = False
    grey_step: int = 1
    """The factor by which Pillow spreads grey of less than 8 bits; it leaves the transparent value as it is."""
    deep_colour: bool = False
    """Three channels of 16 bits."""


def stored_form(image: Image.Image) -> Stored:
    """Reads the stored form from a picture that is opened, but not loaded yet."""
    from PIL import PngImagePlugin, TiffImagePlugin

    if isinstance(image, TiffImagePlugin.TiffImageFile):
        twelve_bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE) == (12,)
        photometric = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
        return Stored(white=4095 if twelve_bits else 65535, white_is_zero=photometric == 0)
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        packing = image.tile[0].args
        return Stored(grey_step={"L;2": 85, "L;4": 17}.get(str(packing), 1), deep_colour=packing == "RGB;16B")
    return Stored()


def to_rgb(
    image: Image.Image, stored: Stored, background: tuple[int, int, int], notes: list[str]
) -> tuple[Image.Image, Image.Image | None]:
    """Returns a loaded picture in sRGB, mode RGB, over ``background``, and its alpha channel, mode L, if it has one.

    Adds to ``notes`` what its owner should know.
    Raises BadImage where the colours could only be guessed.
    """
    from PIL import Image

    profile = image.info.get("icc_profile")
    colour, alpha = _split_alpha(_eight_bits(image, stored), stored)
    picture = _to_srgb(colour, profile if isinstance(profile, bytes) else b"", notes)
    if alpha is None or alpha.getextrema() == (255, 255):
        return picture, alpha
    notes.append(f"transparent parts are filled with #{bytes(background).hex()}")
    return Image.composite(picture, Image.new("RGB", picture.size, background), alpha), alpha


def _eight_bits(image: Image.Image, stored: Stored) -> Image.Image:
    """Returns 16-bit grey scaled to 8 bits (Pillow's own conversion clips); other pictures as they are."""
    import numpy
    from PIL import Image

    if image.mode in ("I", "F"):
        raise BadImage(f"has pixels without a known range: 32-bit mode {image.mode}, save it with 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image
    values = numpy.asarray(image)
    levels = numpy.rint(numpy.arange(65536) * (255 / stored.white)).clip(0, 255).astype(numpy.uint8)
    grey = Image.fromarray((255 - levels if stored.white_is_zero else levels)[values])
    if "transparency" not in image.info:
        return grey
    opaque = numpy.where(values == image.info["transparency"], 0, 255).astype(numpy.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def _split_alpha(image: Image.Image, stored: Stored) -> tuple[Image.Image, Image.Image | None]:
    """Returns the colours, in mode L, RGB or CMYK, and the alpha channel if there is one."""
    from PIL import Image

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
    from PIL import ImageCms

    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if colour.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
                colour = colour.convert("RGB")
            converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:  # None only with inPlace=True
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            notes.append(f"its colour profile cannot be used, sRGB is assumed: {words[:160]}")
    elif colour.mode == "CMYK":
        notes.append("CMYK without a colour profile: its colours are approximate")
    return colour.convert("RGB")

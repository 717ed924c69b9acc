"""From a scene to its picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from limner.builtin.world import stained_glass, styles
from limner.builtin.world.scenes import Scene

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 128

_STYLES: dict[str, Callable[[Scene, int], Image]] = {
    "flat": styles.flat,
    "outlined": styles.outlined,
    "pencil": styles.pencil,
    "watercolour": styles.watercolour,
    "pixel": styles.pixel,
    "stained glass": stained_glass.stained_glass,
}


def draw(scene: Scene, side: int = SIDE) -> Image:
    """Returns the scene's picture, RGB, ``side`` pixels a side; the same scene gives the same pixels.

    Raises ValueError unless ``side`` is a multiple of 16, at least 32.
    """
    if side < 32 or side % 16:
        raise ValueError(f"side is {side}; a picture's side is a multiple of 16, at least 32")
    return _STYLES[scene.style](scene, side)


def draw_mask(scene: Scene, side: int = SIDE) -> Image:
    """Returns where the scene's things stand, mode L, ``side`` pixels a side: white in the upright box of each."""
    from PIL import Image as images
    from PIL import ImageDraw

    mask = images.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    for thing in scene.things:
        width, height = thing.extent()
        left, top, right, bottom = (
            side * edge
            for edge in (thing.x - width / 2, thing.y - height / 2, thing.x + width / 2, thing.y + height / 2)
        )
        pen.rectangle((math.floor(left), math.floor(top), math.ceil(right) - 1, math.ceil(bottom) - 1), fill=255)
    return mask


def contact_sheet(scenes: Sequence[Scene], columns: int, side: int = SIDE) -> Image:
    """Returns the scenes' pictures side by side on white, row by row."""
    from PIL import Image as images

    gap = side // 32
    rows = -(-len(scenes) // columns)
    sheet = images.new("RGB", (columns * (side + gap) + gap, rows * (side + gap) + gap), "white")
    for number, scene in enumerate(scenes):
        row, column = divmod(number, columns)
        sheet.paste(draw(scene, side), (gap + column * (side + gap), gap + row * (side + gap)))
    return sheet

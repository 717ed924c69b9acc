"""Scenes as filled polygons on an image: what all styles begin with."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limner.builtin.world.backgrounds import Backdrop, backdrop
from limner.builtin.world.colours import RGB, Paint, blended, tone
from limner.builtin.world.curves import Outline, Point
from limner.builtin.world.scenes import Scene, Thing
from limner.builtin.world.shapes import corners
from limner.builtin.world.textures import as_floats
from limner.builtin.world.things import drawing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from limner.builtin.world.textures import Plane

OVERSAMPLE = 4
"""Pictures are painted this many times too large and then reduced: that is their anti-aliasing."""


@dataclass(frozen=True)
class Polygon:
    """A shape at its place in the picture, in pixels. ``corners`` are the sharp bends of its contour."""

    points: list[Point]
    colour: RGB
    paint: Paint
    edge: bool
    corners: list[Point]


@functools.cache
def _corners(kind: str) -> tuple[Outline, ...]:
    return tuple(corners(shape.outline) if shape.edge else () for shape in drawing(kind))


def polygons(thing: Thing, pixels: int) -> list[Polygon]:
    """Returns the thing's shapes, placed in a picture of ``pixels`` a side, the hindmost first."""
    half, angle = thing.side * pixels / 2, math.radians(thing.tilt)
    along_x = -half if thing.flipped else half
    xx, xy = along_x * math.cos(angle), -half * math.sin(angle)
    yx, yy = along_x * math.sin(angle), half * math.cos(angle)
    cx, cy = thing.x * pixels, thing.y * pixels

    def placed(outline: Outline) -> list[Point]:
        return [(cx + xx * x + xy * y, cy + yx * x + yy * y) for x, y in outline]

    return [
        Polygon(placed(shape.outline), tone(thing.colour, shape.paint), shape.paint, shape.edge, placed(bends))
        for shape, bends in zip(drawing(thing.kind), _corners(thing.kind), strict=True)
    ]


def pen(thing: Thing, width: float) -> int:
    """Returns the width of the lines on a thing: ``width`` on large ones, finer on smaller ones."""
    return max(1, round(width * min(1.0, 0.4 + thing.side)))


def wobbled(shapes: list[Polygon], amount: float, phase: float) -> list[Polygon]:
    """Returns a thing as an unsteady hand draws it: its points moved by waves of ``amount`` pixels."""
    rate, turn = 0.38 / amount, math.tau * phase

    def moved(point: Point) -> Point:
        x, y = point
        return (
            x + amount * (math.sin(rate * 0.5 * y + turn) + 0.6 * math.sin(rate * (y + 0.4 * x) + 2 * turn)) / 1.6,
            y + amount * (math.sin(rate * 0.4 * x + 3 * turn) + 0.6 * math.sin(rate * (x - 0.3 * y) + turn)) / 1.6,
        )

    return [replace(shape, points=[moved(point) for point in shape.points]) for shape in shapes]


def paint_backdrop(behind: Backdrop, pixels: int, line_width: int = 0) -> Image:
    """Returns the background as an RGB image of ``pixels`` a side; with quiet contours if they have a width."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (1, 2))
    strip.putpixel((0, 0), behind.top)
    strip.putpixel((0, 1), behind.bottom)
    image = strip.resize((1, pixels), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5)).resize((pixels, pixels))
    draw = ImageDraw.Draw(image)
    for patch in behind.patches:
        points = [(x * pixels, y * pixels) for x, y in patch.outline]
        draw.polygon(points, fill=patch.colour)
        if line_width and patch.edge:
            contour(draw, points, (), blended(patch.colour, (20, 20, 40), 0.5), line_width)
    return image


def paint_things(image: Image, things: list[list[Polygon]], line: RGB | None = None, width: int = 0) -> None:
    """Paints the things on an RGB image; with contours in ``line`` where it is given, the outermost ones thicker."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    for shapes in things:
        if line is None:
            for shape in shapes:
                draw.polygon(shape.points, fill=shape.colour)
            continue
        for shape in shapes:
            if shape.edge:
                contour(draw, shape.points, shape.corners, line, round(1.7 * width))
        open_edge: Polygon | None = None
        for shape in shapes:
            if shape.edge and open_edge:
                contour(draw, open_edge.points, open_edge.corners, line, width)
            open_edge = shape if shape.edge else open_edge
            draw.polygon(shape.points, fill=shape.colour)
        if open_edge:
            contour(draw, open_edge.points, open_edge.corners, line, width)


@dataclass(frozen=True)
class Layers:
    """A scene without any style, in the size of the finished picture and values in [0, 1]."""

    behind: Plane
    """The background alone, [side, side, 3]."""
    picture: Plane
    """The background with the things on it, [side, side, 3]."""
    inside: Plane
    """How much of each pixel belongs to a thing, [side, side, 1]."""


def layers(scene: Scene, things: list[list[Polygon]], side: int) -> Layers:
    """Returns the layers of a scene whose ``things`` stand in a picture of ``side * OVERSAMPLE`` pixels."""
    large = side * OVERSAMPLE
    image = paint_backdrop(backdrop(scene), large)
    behind = as_floats(image.reduce(OVERSAMPLE))
    paint_things(image, things)
    inside = as_floats(silhouette(things, large).reduce(OVERSAMPLE))[..., None]
    return Layers(behind, as_floats(image.reduce(OVERSAMPLE)), inside)


def spread(image: Image, shapes: list[Polygon], width: int) -> None:
    """Paints a seam around the shapes in their own colours, so that a reduction mixes in nothing from outside."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    for shape in shapes:
        contour(draw, shape.points, shape.corners, shape.colour, 2 * width)


def contour(draw: ImageDraw, points: list[Point], bends: list[Point] | Outline, line: RGB | int, width: int) -> None:
    """Draws a closed line along a polygon, round at its bends."""
    draw.line([*points, points[0]], fill=line, width=width)
    radius = width / 2
    for x, y in bends:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=line)


def silhouette(things: list[list[Polygon]], pixels: int) -> Image:
    """Returns a mask (mode L, 0 or 255) of where the things are."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (pixels, pixels))
    draw = ImageDraw.Draw(mask)
    for shapes in things:
        for shape in shapes:
            draw.polygon(shape.points, fill=255)
    return mask

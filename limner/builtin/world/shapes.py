"""What a drawing is made of: filled outlines, each with a paint, later ones over earlier ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from limner.builtin.world.colours import Paint
from limner.builtin.world.curves import Outline, clipped, ellipse, stroke, turned


@dataclass(frozen=True)
class Shape:
    """One filled outline. ``edge``: styles that draw lines draw its contour; small marks have none."""

    outline: Outline
    paint: Paint
    edge: bool


def corners(outline: Outline) -> Outline:
    """Returns the points at which a closed outline bends by more than 30 degrees."""
    found = []
    for index, (x, y) in enumerate(outline):
        (ax, ay), (bx, by) = outline[index - 1], outline[(index + 1) % len(outline)]
        before, after = math.atan2(y - ay, x - ax), math.atan2(by - y, bx - x)
        if abs(math.remainder(after - before, math.tau)) > math.radians(30):
            found.append((x, y))
    return tuple(found)


Drawing = tuple[Shape, ...]


def part(outline: Outline, paint: Paint = "main") -> Drawing:
    """Returns a piece of a thing, with a contour."""
    return (Shape(outline, paint, edge=True),)


def mark(outline: Outline, paint: Paint) -> Drawing:
    """Returns a patch on the piece before it, without a contour."""
    return (Shape(outline, paint, edge=False),)


def patch(outline: Outline, window: Outline, paint: Paint) -> Drawing:
    """Returns a patch as far as it lies inside a convex ``window``."""
    return mark(clipped(outline, window), paint)


def line(points: Outline, width: float, paint: Paint = "deep", end_width: float | None = None) -> Drawing:
    """Returns a painted line."""
    return mark(stroke(points, width, end_width), paint)


def rounded(outline: Outline, x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Drawing:
    """Returns a piece with light from the upper left: dark, but for the part inside an ellipse."""
    return part(outline, "dark") + patch(outline, ellipse(x, y, rx, ry, tilt), "main")


def eye(x: float, y: float, radius: float, look: tuple[float, float] = (0.15, 0.05)) -> Drawing:
    """Returns an eye: white, pupil and glint; ``look`` moves the pupil, in radii."""
    px, py = x + look[0] * radius, y + look[1] * radius
    return (
        mark(ellipse(x, y, radius), "paper")
        + mark(ellipse(px, py, 0.72 * radius), "ink")
        + mark(ellipse(px - 0.22 * radius, py - 0.26 * radius, 0.24 * radius), "paper")
    )


def tilted(drawing: Drawing, degrees: float) -> Drawing:
    """Returns the drawing turned clockwise about the origin."""
    return tuple(Shape(turned(shape.outline, degrees), shape.paint, shape.edge) for shape in drawing)

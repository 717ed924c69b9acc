"""The style that the built-in model never sees in its training: leaded glass with light behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.builtin.world.painting import OVERSAMPLE, Polygon, contour, layers, pen, polygons
from limner.builtin.world.scenes import Scene
from limner.builtin.world.textures import as_floats, as_image, blurred, cloudy, cutout
from limner.core.rng import stream

if TYPE_CHECKING:
    import random

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from limner.builtin.world.textures import Plane

LEAD = (0.1, 0.1, 0.12)
PANES = 5  # along each side


def stained_glass(scene: Scene, side: int) -> Image:
    """Returns panes of glowing glass between lines of lead."""
    import numpy as np

    rng = stream(scene.seed, 0, "stained glass")
    things = [polygons(thing, side * OVERSAMPLE) for thing in scene.things]
    layer = layers(scene, things, side)
    numbers, seams = _panes(side, rng)
    tints = np.array([_tint(rng) for _ in range(PANES**2)], np.float32)
    depth = 1.25 if layer.behind.mean() > 0.4 else 0.7  # deeper than paint by day; by night some light comes through
    glass = layer.behind**depth * tints[numbers]
    glass = glass + (layer.picture - glass) * layer.inside
    lead = np.maximum(_leading(scene, things, side), seams * (1 - layer.inside))
    streaks = cutout(cloudy(2 * side, 24, 11), side, rng) - 0.5
    lit = glass * (1.16 - 0.42 * blurred(lead, side / 36) + 0.16 * streaks)
    return as_image(lit + (np.array(LEAD, np.float32) - lit) * lead)


def _leading(scene: Scene, things: list[list[Polygon]], side: int) -> Plane:
    """Returns the lead around the things and between their pieces, in [0, 1], [side, side, 1]."""
    from PIL import Image, ImageDraw

    large = side * OVERSAMPLE
    lines = Image.new("L", (large, large))
    draw = ImageDraw.Draw(lines)
    for thing, shapes in zip(scene.things, things, strict=True):
        for shape in shapes:
            if shape.edge:
                contour(draw, shape.points, shape.corners, 255, pen(thing, large / 32))
        for shape in shapes:
            draw.polygon(shape.points, fill=0)
            if shape.edge:
                contour(draw, shape.points, shape.corners, 255, pen(thing, large / 74))
    return as_floats(lines.reduce(OVERSAMPLE))[..., None]


def _tint(rng: random.Random) -> tuple[float, float, float]:
    """Returns how much red, green and blue a pane lets through: it is lighter or darker, a little warmer or colder."""
    light, warmth = rng.uniform(0.72, 1.12), rng.uniform(-0.05, 0.05)
    return light + warmth, light, light - warmth


def _panes(side: int, rng: random.Random) -> tuple[NDArray[np.intp], Plane]:
    """Returns the number of each pixel's pane, [side, side], and the lead between panes in [0, 1], [side, side, 1].

    A pane is what lies nearest to one of ``PANES ** 2`` scattered points (Voronoi); lead lies where two are as near.
    """
    import numpy as np

    step = side / PANES
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    squared = np.stack([
        (x - (column + rng.uniform(0.1, 0.9)) * step) ** 2 + (y - (row + rng.uniform(0.1, 0.9)) * step) ** 2
        for row in range(PANES) for column in range(PANES)
    ])  # fmt: skip
    nearest, next_nearest = np.sqrt(np.partition(squared, 1, axis=0)[:2])
    between = np.clip(side / 75 - (next_nearest - nearest) * 0.7, 0, 1)
    border = np.minimum(np.minimum(x, side - 1 - x), np.minimum(y, side - 1 - y)) + 0.5
    frame = np.clip(side / 60 + 0.5 - border, 0, 1)
    return squared.argmin(axis=0), np.maximum(between, frame)[..., None].astype(np.float32)

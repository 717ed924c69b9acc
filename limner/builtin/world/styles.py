"""The styles of drawing that the built-in model learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.builtin.world.backgrounds import backdrop
from limner.builtin.world.colours import RGB, blended
from limner.builtin.world.painting import (
    OVERSAMPLE,
    Polygon,
    contour,
    layers,
    paint_backdrop,
    paint_things,
    pen,
    polygons,
    silhouette,
    spread,
    wobbled,
)
from limner.builtin.world.scenes import Scene
from limner.builtin.world.textures import as_floats, as_image, blurred, cloudy, cutout, strokes
from limner.core.rng import stream

if TYPE_CHECKING:
    import random

    from PIL.Image import Image

    from limner.builtin.world.textures import Plane

INK = (34, 30, 38)
GRAPHITE = (0.24, 0.23, 0.27)
PAPER = (0.985, 0.975, 0.95)


def flat(scene: Scene, side: int) -> Image:
    """Returns plain areas of colour, and a soft shadow behind each thing."""
    import numpy as np

    layer = layers(scene, [polygons(thing, side * OVERSAMPLE) for thing in scene.things], side)
    fallen = np.roll(layer.inside, (side // 43, side // 64), axis=(0, 1))
    shadow = blurred(fallen, side / 64) * (1 - layer.inside)
    return as_image(layer.picture * (1 - 0.34 * shadow))


def outlined(scene: Scene, side: int) -> Image:
    """Returns areas of colour with bold ink contours, as in a comic."""
    large = side * OVERSAMPLE
    image = paint_backdrop(backdrop(scene), large, round(large / 150))
    for thing in scene.things:
        paint_things(image, [polygons(thing, large)], INK, pen(thing, large / 90))
    return image.reduce(OVERSAMPLE)


def pencil(scene: Scene, side: int) -> Image:
    """Returns strokes of coloured pencils on white paper, contours in graphite."""
    import numpy as np

    rng = stream(scene.seed, 0, "pencil")
    things = [polygons(thing, side * OVERSAMPLE) for thing in scene.things]
    layer = layers(scene, things, side)
    firm = cutout(strokes(2 * side, 50, side / 64, 1), side, rng)
    loose = 0.6 * cutout(strokes(2 * side, 38, side / 72, 2), side, rng)
    loose = loose + 0.4 * cutout(strokes(2 * side, -46, side / 72, 4), side, rng)
    cover = layer.inside * (0.68 + 0.36 * firm) + (1 - layer.inside) * (0.52 + 0.32 * loose)
    cover = cover * (0.92 + 0.16 * cutout(cloudy(2 * side, side, 3), side, rng))
    paper = np.array(PAPER, np.float32)
    drawn = paper + (layer.picture - paper) * cover
    return as_image(drawn + (np.array(GRAPHITE, np.float32) - drawn) * 0.67 * _sketch(things, side, rng))


def _sketch(things: list[list[Polygon]], side: int, rng: random.Random) -> Plane:
    """Returns contours drawn twice by an unsteady hand, in [0, 1], [side, side, 1]."""
    from PIL import Image, ImageDraw

    large = side * OVERSAMPLE
    lines = Image.new("L", (large, large))
    draw = ImageDraw.Draw(lines)
    for shapes in things:
        for shape in shapes:
            draw.polygon(shape.points, fill=0)
            for _ in range(2 if shape.edge else 0):
                dx, dy = rng.uniform(-large / 170, large / 170), rng.uniform(-large / 170, large / 170)
                contour(draw, [(x + dx, y + dy) for x, y in shape.points], (), 255, round(large / 170))
    return as_floats(lines.reduce(OVERSAMPLE))[..., None]


def watercolour(scene: Scene, side: int) -> Image:
    """Returns washes of thin paint that gather at their edges, on paper with a ragged white rim."""
    import numpy as np

    rng = stream(scene.seed, 0, "watercolour")
    large = side * OVERSAMPLE
    things = [wobbled(polygons(thing, large), 0.02 * thing.side * large, rng.random()) for thing in scene.things]
    layer = layers(scene, things, side)
    colour = blurred(layer.behind, side / 110)
    colour = colour + (layer.picture - colour) * layer.inside
    pools = cutout(cloudy(2 * side, 9, 6), side, rng) + 0.5 * cutout(cloudy(2 * side, 40, 8), side, rng) - 0.75
    grain = cutout(cloudy(2 * side, side, 7), side, rng) - 0.5
    wash = _torn_edge(side, rng) * (0.84 + 0.36 * pools)
    strength = np.where(layer.inside > 0.5, 0.9 + 0.3 * pools, wash) + 0.12 * grain
    paper = np.array(PAPER, np.float32)
    painted = paper + (colour - paper) * strength
    rim = layer.inside - blurred(layer.inside, side / 40)  # above 0 just inside a thing's edge, below 0 just outside
    return as_image(painted * (1 - 0.45 * np.clip(rim, 0, 1) + 0.12 * np.clip(rim, -1, 0)))


def _torn_edge(side: int, rng: random.Random) -> Plane:
    """Returns 1 where the wash covers the paper and 0 at its irregular rim, [side, side, 1]."""
    import numpy as np

    y, x = np.mgrid[0:side, 0:side, 0:1][:2].astype(np.float32)
    border = np.minimum(np.minimum(x, side - 1 - x), np.minimum(y, side - 1 - y)) + 0.5
    rim = side / 26 * (0.2 + 1.6 * cutout(cloudy(2 * side, 30, 9), side, rng))
    covered: Plane = np.clip((border - rim) * (64 / side) + 0.5, 0, 1)
    return covered


def pixel(scene: Scene, side: int) -> Image:
    """Returns few colours in coarse squares, two pixels a side, and a dark line around each thing."""
    import numpy as np
    from PIL import Image

    large, square = side * OVERSAMPLE, 2 * OVERSAMPLE
    behind = backdrop(scene)
    bands = [blended(behind.top, behind.bottom, step / 6) for step in range(7)]
    ground = paint_backdrop(behind, large).reduce(square)
    drawn = as_floats(_snapped(ground, [*bands, *(patch.colour for patch in behind.patches)]))
    for thing in scene.things:
        shapes = polygons(thing, large)
        front = Image.new("RGB", (large, large))
        spread(front, shapes, square)
        paint_things(front, [shapes])
        centres = front.reduce(OVERSAMPLE).resize((side // 2, side // 2), Image.Resampling.NEAREST)
        inside = as_floats(silhouette([shapes], large).reduce(square))[..., None] > 0.45
        around = np.zeros_like(inside)
        for axis in (0, 1):
            around |= np.roll(inside, 1, axis) | np.roll(inside, -1, axis)
        drawn = np.where(around, np.array(INK, np.float32) / 255, drawn)
        drawn = np.where(inside, as_floats(_snapped(centres, [shape.colour for shape in shapes])), drawn)
    return as_image(drawn).resize((side, side), Image.Resampling.NEAREST)


def _snapped(image: Image, colours: list[RGB]) -> Image:
    """Returns the image with each pixel in the nearest of these colours."""
    from PIL import Image as images

    swatches = images.new("P", (1, 1))
    swatches.putpalette([value for colour in sorted(set(colours)) for value in colour])
    return image.quantize(palette=swatches, dither=images.Dither.NONE).convert("RGB")

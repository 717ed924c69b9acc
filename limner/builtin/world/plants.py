"""Drawings of fruit and of what grows."""

from __future__ import annotations

import math

from limner.builtin.world.curves import (
    Outline,
    arc,
    closed,
    curve,
    ellipse,
    mirrored,
    moved,
    stroke,
    symmetric,
    turned,
)
from limner.builtin.world.shapes import Drawing, line, mark, part, patch, rounded


def _leaf(x: float, y: float) -> Drawing:
    blade = curve((0, 0), (0.16, -0.2), (0.5, -0.22)) + curve((0.5, -0.22), (0.4, 0.08), (0, 0))
    vein = ((0.07, -0.03), (0.38, -0.16))
    return part(moved(blade, x, y), "leaf") + line(moved(vein, x, y), 0.035, "moss")


def apple() -> Drawing:
    """An apple with stalk and leaf."""
    body = symmetric(
        curve(
            (0, -0.44),
            (0.2, -0.56),
            (0.54, -0.58),
            (0.84, -0.26),
            (0.86, 0.2),
            (0.62, 0.72),
            (0.3, 0.94),
            (0.12, 0.92),
            (0, 0.88),
        )
    )
    drawing = rounded(body, -0.14, 0.04, 0.82, 0.86) + mark(ellipse(-0.42, -0.16, 0.13, 0.25, 24), "light")
    drawing += mark(ellipse(0, -0.44, 0.2, 0.06), "deep") + part(
        stroke(curve((0, -0.42), (0.02, -0.68), (0.12, -0.92)), 0.09), "wood"
    )
    return drawing + _leaf(0.04, -0.6)


def pear() -> Drawing:
    """A pear with stalk and leaf."""
    body = symmetric(
        curve((0, -0.74), (0.26, -0.62), (0.34, -0.24), (0.56, 0.14), (0.66, 0.54), (0.44, 0.9), (0, 0.98))
    )
    drawing = rounded(body, -0.14, 0.2, 0.62, 0.98) + mark(ellipse(-0.3, 0.34, 0.11, 0.24, 14), "light")
    drawing += mark(ellipse(-0.13, -0.4, 0.06, 0.12, 10), "light")
    drawing += part(stroke(curve((0, -0.7), (0.02, -0.86), (0.1, -1.04)), 0.09), "wood")
    return drawing + _leaf(0.04, -0.8) + mark(ellipse(0, 0.94, 0.07, 0.03), "deep")


def banana() -> Drawing:
    """A banana."""
    body = curve((-0.86, -0.66), (-0.62, 0.06), (-0.06, 0.4), (0.5, 0.36), (0.92, 0.04)) + curve(
        (0.98, 0.14), (0.72, 0.62), (0.1, 0.86), (-0.52, 0.62), (-0.92, 0.06), (-1, -0.62)
    )  # fmt: skip
    drawing = part(body) + mark(
        curve((-0.94, -0.3), (-0.7, 0.3), (-0.1, 0.66), (0.5, 0.6), (0.94, 0.16))
        + curve((0.98, 0.14), (0.72, 0.62), (0.1, 0.86), (-0.52, 0.62), (-0.92, 0.06)),
        "dark",
    )
    drawing += line(curve((-0.82, -0.3), (-0.58, 0.22), (-0.06, 0.5), (0.44, 0.48)), 0.06, "light")
    drawing += part(((-1.02, -0.6), (-0.84, -0.64), (-0.82, -0.92), (-0.98, -0.92)), "wood")
    return drawing + part(ellipse(0.94, 0.09, 0.07, 0.08), "iron")


def tree() -> Drawing:
    """A tree with a round crown."""
    trunk = symmetric((*curve((0, 0), (0.12, 0)), *curve((0.12, 0.7), (0.26, 1)), (0, 1)))
    crown = closed((0, -1), (0.4, -0.9), (0.62, -0.56), (0.82, -0.22), (0.72, 0.2), (0.34, 0.34), (0, 0.28),
                   (-0.36, 0.36), (-0.74, 0.2), (-0.82, -0.22), (-0.62, -0.58), (-0.38, -0.9))  # fmt: skip
    drawing = part(trunk, "wood") + rounded(crown, -0.16, -0.44, 0.8, 0.62)
    for x, y, radius in ((-0.32, -0.52, 0.26), (0.14, -0.66, 0.2), (-0.5, -0.08, 0.2), (0.02, -0.14, 0.2)):
        drawing += mark(stroke(arc(x, y, radius, radius, 170, 300), 0.09), "light")
    for x, y in ((0.46, -0.36), (0.5, 0.04), (0.2, 0.16)):
        drawing += mark(stroke(arc(x, y, 0.16, 0.16, -20, 110), 0.07), "deep")
    return drawing


def flower() -> Drawing:
    """A flower with six petals."""
    stem = stroke(curve((0, -0.2), (0.04, 0.4), (-0.02, 1)), 0.1)
    leaf: Outline = curve((0, 0.86), (0.2, 0.5), (0.56, 0.42)) + curve((0.56, 0.42), (0.46, 0.76), (0, 0.86))
    drawing = part(stem, "moss") + part(leaf, "leaf") + part(mirrored(leaf), "leaf")
    petal = closed((0, 0.08), (-0.2, -0.2), (-0.22, -0.46), (0, -0.6), (0.22, -0.46), (0.2, -0.2))
    for index in range(6):
        outline = moved(turned(petal, index * 60), 0, -0.4)
        drawing += part(outline, "main") + mark(
            moved(turned(ellipse(0, -0.26, 0.07, 0.16), index * 60), 0, -0.4), "dark"
        )
        drawing += mark(moved(turned(ellipse(-0.08, -0.46, 0.06, 0.08), index * 60), 0, -0.4), "light")
    drawing += part(ellipse(0, -0.4, 0.19), "pollen")
    for index in range(5):
        angle = math.radians(72 * index)
        drawing += mark(ellipse(0.09 * math.cos(angle), -0.4 + 0.09 * math.sin(angle), 0.03), "wood")
    return drawing


def mushroom() -> Drawing:
    """A mushroom with pale spots."""
    stalk = (
        curve((-0.24, 0), (-0.22, 0.5), (-0.36, 0.94))
        + curve((-0.2, 1), (0.2, 1), (0.36, 0.94))
        + curve((0.22, 0.5), (0.24, 0))
    )
    cap = symmetric(
        curve((0, -0.92), (0.5, -0.8), (0.88, -0.34), (0.96, 0.1)) + curve((0.96, 0.1), (0.6, 0.22), (0, 0.24))
    )
    drawing = part(stalk, "cream") + mark(
        curve((0.06, 0.2), (0.1, 0.6), (0.06, 1)) + curve((0.36, 0.94), (0.22, 0.5), (0.24, 0.1)), "smoke"
    )
    drawing += rounded(cap, -0.14, -0.3, 0.98, 0.62)
    for x, y, rx, ry in (
        (-0.06, -0.54, 0.19, 0.15),
        (-0.54, -0.22, 0.14, 0.17),
        (0.46, -0.38, 0.14, 0.16),
        (0.08, -0.04, 0.15, 0.11),
        (0.72, -0.02, 0.09, 0.1),
    ):
        drawing += mark(ellipse(x, y, rx, ry), "spot")
    return drawing + patch(cap, ((-1, 0.12), (1, 0.12), (1, 0.4), (-1, 0.4)), "deep")

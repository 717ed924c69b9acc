"""Drawings of vehicles, driving to the right."""

from __future__ import annotations

from limner.builtin.world.curves import (
    Outline,
    arc,
    box,
    clipped,
    closed,
    curve,
    ellipse,
    mirrored,
    stroke,
    symmetric,
)
from limner.builtin.world.shapes import Drawing, line, mark, part, patch, rounded


def _wheel(x: float, y: float, radius: float, spokes: bool = False) -> Drawing:
    drawing = part(ellipse(x, y, radius), "ink") + mark(ellipse(x, y, 0.56 * radius), "metal")
    if spokes:
        drawing += line(((x - 0.5 * radius, y), (x + 0.5 * radius, y)), 0.2 * radius, "ink")
        drawing += line(((x, y - 0.5 * radius), (x, y + 0.5 * radius)), 0.2 * radius, "ink")
    return drawing + mark(ellipse(x, y, 0.2 * radius), "iron")


def car() -> Drawing:
    """A small round car."""
    cabin = curve((-0.62, -0.06), (-0.52, -0.42), (-0.2, -0.58), (0.2, -0.56), (0.44, -0.36), (0.62, -0.04))
    body = closed((-0.98, 0.06), (-0.8, -0.12), (-0.3, -0.16), (0.4, -0.14), (0.8, -0.02), (1, 0.16), (0.98, 0.4),
                  (0.7, 0.46), (0, 0.46), (-0.7, 0.46), (-0.98, 0.38))  # fmt: skip
    rear: Outline = (*curve((-0.5, -0.1), (-0.42, -0.36), (-0.16, -0.46)), (-0.06, -0.46), (-0.06, -0.1))
    front: Outline = ((0.06, -0.1), (0.06, -0.47), *curve((0.18, -0.46), (0.34, -0.34), (0.48, -0.1)))
    drawing = part(cabin, "dark") + part(rear, "glass") + part(front, "glass")
    drawing += line(((-0.34, -0.14), (-0.2, -0.42)), 0.05, "paper") + line(
        ((0.14, -0.14), (0.26, -0.38)), 0.05, "paper"
    )
    drawing += rounded(body, -0.08, -0.1, 1.2, 0.4) + line(
        curve((-0.8, -0.02), (-0.2, -0.06), (0.5, -0.04)), 0.06, "light"
    )
    drawing += line(((0.0, 0), (0.0, 0.36)), 0.035) + line(((0.08, 0.06), (0.2, 0.06)), 0.05)
    drawing += mark(ellipse(0.9, 0.12, 0.08, 0.1), "flame") + part(box(-1.04, 0.32, -0.8, 0.42, 0.04), "metal")
    drawing += part(box(0.82, 0.32, 1.06, 0.42, 0.04), "metal")
    return drawing + _wheel(-0.54, 0.46, 0.26) + _wheel(0.56, 0.46, 0.26)


def train() -> Drawing:
    """A steam engine."""
    puffs = ((0.5, -0.86, 0.13), (0.28, -0.98, 0.17), (0, -1.04, 0.2))
    drawing: Drawing = ()
    for x, y, radius in puffs:
        drawing += part(ellipse(x, y, radius), "smoke")
    drawing += part(((0.42, -0.3), (0.46, -0.54), (0.36, -0.7), (0.78, -0.7), (0.68, -0.54), (0.72, -0.3)), "dark")
    drawing += part(curve((0.02, -0.28), (0.02, -0.46), (0.16, -0.54), (0.3, -0.46), (0.3, -0.28)), "pollen")
    boiler = box(-0.5, -0.34, 0.84, 0.3, 0.16)
    drawing += rounded(boiler, 0.16, -0.3, 1, 0.44) + mark(stroke(((-0.2, -0.22), (0.66, -0.22)), 0.07), "light")
    for x in (0, 0.4):
        drawing += line(((x, -0.32), (x, 0.28)), 0.05)
    drawing += part(box(-0.92, -0.6, -0.28, 0.36, 0.03)) + part(box(-0.78, -0.44, -0.42, -0.08, 0.04), "glass")
    drawing += line(((-0.7, -0.16), (-0.52, -0.36)), 0.05, "paper") + part(
        box(-1.02, -0.74, -0.18, -0.56, 0.07), "dark"
    )
    drawing += part(box(-0.98, 0.26, 0.9, 0.42, 0.03), "dark") + part(((0.8, 0.3), (1.12, 0.68), (0.74, 0.68)), "iron")
    drawing += part(ellipse(0.84, -0.02, 0.1, 0.13), "flame")
    drawing += _wheel(-0.6, 0.44, 0.29, spokes=True) + _wheel(0.06, 0.52, 0.21) + _wheel(0.56, 0.52, 0.21)
    return drawing + line(((-0.6, 0.46), (0.06, 0.54)), 0.07, "metal")


def boat() -> Drawing:
    """A sailing boat."""
    hull = (
        curve((-0.94, 0.5), (-0.3, 0.58), (0.4, 0.56), (0.98, 0.44))
        + curve((0.98, 0.44), (0.8, 0.78), (0.52, 0.96))
        + curve((0.4, 0.97), (-0.4, 0.97), (-0.56, 0.96))
        + curve((-0.56, 0.96), (-0.8, 0.76), (-0.94, 0.5))
    )
    sail = curve((0.06, -0.98), (0.56, -0.4), (0.84, 0.3)) + curve((0.84, 0.3), (0.4, 0.4), (0.06, 0.38))
    jib = curve((-0.08, -0.8), (-0.5, -0.2), (-0.74, 0.34)) + curve((-0.74, 0.34), (-0.4, 0.42), (-0.08, 0.38))
    drawing = part(stroke(((-0.01, -1.0), (-0.01, 0.56)), 0.08), "wood")
    drawing += part(sail) + patch(sail, ((0, 0.04), (1, -0.1), (1, 0.5), (0, 0.5)), "dark")
    drawing += patch(sail, ((0, -0.34), (1, -0.46), (1, -0.32), (0, -0.18)), "light")
    drawing += part(jib, "paper") + patch(jib, ((-1, 0.18), (0, 0.1), (0, 0.6), (-1, 0.6)), "smoke")
    drawing += rounded(hull, -0.1, 0.46, 1.1, 0.36)
    band: Outline = ((-1, 0.56), (1, 0.52), (1, 0.61), (-1, 0.65))
    drawing += mark(clipped(hull, band), "paper")
    for x in (-0.36, 0, 0.36):
        drawing += mark(ellipse(x, 0.77, 0.07), "glass")
    flag: Outline = ((0, -1.08), (0.3, -0.99), (0, -0.9))
    return drawing + part(flag, "dark")


def rocket() -> Drawing:
    """A rocket that takes off."""
    body = symmetric(curve((0, -1), (0.24, -0.7), (0.36, -0.2), (0.34, 0.24), (0.22, 0.54), (0, 0.54)))
    fin = curve((0.3, 0), (0.56, 0.2), (0.62, 0.72)) + curve((0.62, 0.72), (0.44, 0.52), (0.2, 0.46))
    flame = symmetric(curve((0, 0.5), (0.2, 0.56), (0.14, 0.8)) + curve((0.1, 0.84), (0, 1.04)))
    drawing = part(flame, "flame") + mark(ellipse(0, 0.64, 0.08, 0.16), "paper")
    drawing += part(fin, "dark") + part(mirrored(fin), "dark")
    drawing += rounded(body, -0.14, -0.3, 0.4, 0.98)
    drawing += patch(body, ((-1, -1.1), (1, -1.1), (1, -0.58), (-1, -0.58)), "dark")
    drawing += patch(body, ((-1, 0.3), (1, 0.3), (1, 0.4), (-1, 0.4)), "light")
    drawing += mark(stroke(curve((-0.22, -0.4), (-0.26, -0.1), (-0.22, 0.16)), 0.06), "light")
    drawing += part(ellipse(0, -0.2, 0.2), "metal") + mark(ellipse(0, -0.2, 0.14), "glass")
    drawing += mark(ellipse(-0.04, -0.24, 0.05), "paper")
    return drawing + part(box(-0.24, 0.48, 0.24, 0.6, 0.05), "iron")


def balloon() -> Drawing:
    """A hot-air balloon."""
    envelope = symmetric(curve((0, -1), (0.46, -0.88), (0.7, -0.5), (0.6, -0.08), (0.24, 0.42), (0.2, 0.5), (0, 0.5)))
    gore = symmetric(curve((0, -1), (0.2, -0.84), (0.28, -0.46), (0.22, -0.04), (0.09, 0.44), (0, 0.46)))
    drawing: Drawing = ()
    for x in (-0.15, 0.15):
        drawing += line(((x, 0.46), (0.8 * x, 0.78)), 0.035, "iron")
    drawing += part(envelope)
    for side in (1, -1):
        edge = curve((0, -1), (0.36, -0.86), (0.5, -0.48), (0.42, -0.06), (0.17, 0.46))
        seam = curve((0.09, 0.46), (0.22, -0.04), (0.28, -0.46), (0.2, -0.84), (0, -1))
        stripe = edge + seam if side == 1 else mirrored(edge + seam)
        drawing += mark(stripe, "dark" if side == 1 else "light")
    drawing += mark(gore, "main") + mark(stroke(arc(0, -0.42, 0.58, 0.46, 200, 240), 0.06), "light")
    drawing += part(box(-0.22, 0.42, 0.22, 0.52, 0.04), "dark")
    basket: Outline = ((-0.2, 0.74), (0.2, 0.74), (0.16, 1.02), (-0.16, 1.02))
    return drawing + part(basket, "wood") + line(((-0.2, 0.78), (0.2, 0.78)), 0.08, "cream")

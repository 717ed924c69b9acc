"""Drawings of a house and of what is found in it."""

from __future__ import annotations

import math

from limner.builtin.world.curves import Outline, arc, box, closed, curve, ellipse, stroke, symmetric
from limner.builtin.world.shapes import Drawing, line, mark, part, rounded, tilted


def house() -> Drawing:
    """A house with door, windows and a smoking chimney."""
    drawing = part(ellipse(0.52, -1.02, 0.12), "smoke") + part(ellipse(0.66, -1.16, 0.15), "smoke")
    drawing += part(box(0.36, -0.88, 0.6, -0.3), "dark") + part(box(-0.72, -0.2, 0.72, 0.96))
    drawing += mark(box(0.3, -0.2, 0.72, 0.96), "dark") + mark(box(-0.72, 0.84, 0.72, 0.96), "deep")
    roof: Outline = ((-0.98, -0.1), (-0.46, -0.78), (0.46, -0.78), (0.98, -0.1))
    drawing += part(roof, "dark")
    for y in (-0.58, -0.36):
        half = 0.46 + 0.52 * (y + 0.78) / 0.68
        drawing += line(((0.06 - half, y), (half - 0.06, y)), 0.05, "main")
    drawing += line(((-0.9, -0.1), (0.9, -0.1)), 0.09, "deep")
    drawing += part(box(-0.12, 0.3, 0.26, 0.96, 0.04), "wood") + mark(ellipse(0.17, 0.64, 0.045), "pollen")
    for x in (-0.42, 0.5):
        drawing += part(box(x - 0.17, 0.14, x + 0.17, 0.54), "pollen")
        drawing += line(((x, 0.14), (x, 0.54)), 0.05, "paper") + line(
            ((x - 0.17, 0.34), (x + 0.17, 0.34)), 0.05, "paper"
        )
    return drawing


def cup() -> Drawing:
    """A steaming cup on a saucer."""
    side, foot = curve((-0.64, -0.3), (-0.62, 0.2), (-0.4, 0.66)), curve((-0.34, 0.72), (-0.04, 0.75), (0.26, 0.72))
    body = side + foot + curve((0.32, 0.66), (0.54, 0.2), (0.56, -0.3))
    handle = stroke(arc(0.56, 0.1, 0.36, 0.28, -100, 110), 0.15)
    drawing: Drawing = ()
    for x in (-0.28, 0.2):
        drawing += mark(
            stroke(curve((x, -0.48), (x + 0.12, -0.64), (x - 0.04, -0.8), (x + 0.08, -0.98)), 0.1, 0.06), "smoke"
        )
    drawing += part(ellipse(-0.04, 0.78, 0.8, 0.16), "light") + mark(ellipse(-0.04, 0.76, 0.5, 0.08), "dark")
    drawing += part(handle, "dark") + rounded(body, -0.2, 0, 0.66, 0.9)
    drawing += mark(stroke(curve((-0.46, -0.06), (-0.44, 0.2), (-0.3, 0.5)), 0.1), "light")
    return drawing + part(ellipse(-0.04, -0.3, 0.6, 0.15), "light") + mark(ellipse(-0.04, -0.28, 0.48, 0.1), "wood")


def umbrella() -> Drawing:
    """An open umbrella."""
    canopy = arc(0, 0, 1, 0.88, 180, 360)
    for centre in (0.75, 0.25, -0.25, -0.75):
        canopy += arc(centre, 0, 0.25, 0.14, 0, -180)
    stick = stroke(curve((0, -0.9), (0, 0), (0, 0.74), (0.1, 0.94), (0.3, 0.92), (0.36, 0.74)), 0.09)
    drawing = part(stroke(((0, -1.02), (0, -0.8)), 0.08), "iron") + part(stick, "wood") + part(canopy)
    drawing += mark(
        curve((0, -0.88), (0.4, -0.6), (0.5, 0)) + arc(0.75, 0, 0.25, 0.14, 180, 360) + arc(0, 0, 1, 0.88, 360, 270),
        "dark",
    )
    drawing += mark(curve((0, -0.88), (-0.26, -0.66), (-0.5, 0)) + arc(-0.25, 0, 0.25, 0.14, 180, 360), "light")
    return tilted(
        drawing
        + line(curve((0, -0.88), (0.4, -0.6), (0.5, 0)), 0.035)
        + line(curve((0, -0.88), (-0.4, -0.6), (-0.5, 0)), 0.035),
        12,
    )


def hammer() -> Drawing:
    """A hammer with a claw."""
    head = closed((-0.2, -0.92), (0.3, -0.92), (0.4, -0.86), (0.4, -0.54), (0.3, -0.48), (-0.2, -0.48), (-0.42, -0.44),
                  (-0.76, -0.18), (-0.86, -0.26), (-0.7, -0.62), (-0.5, -0.86))  # fmt: skip
    drawing = part(box(-0.13, -0.5, 0.13, 1, 0.1), "wood") + mark(box(0.03, -0.46, 0.13, 0.3), "iron")
    drawing += part(box(-0.18, 0.2, 0.18, 1.04, 0.15)) + mark(box(0.05, 0.26, 0.17, 0.98, 0.05), "dark")
    for y in (0.4, 0.58, 0.76):
        drawing += line(((-0.14, y), (0.14, y)), 0.05)
    drawing += part(box(0.3, -0.86, 0.52, -0.54)) + part(box(0.48, -0.98, 0.76, -0.42, 0.08), "dark")
    drawing += rounded(head, -0.1, -0.86, 0.9, 0.34)
    drawing += line(curve((-0.5, -0.7), (-0.2, -0.82), (0.26, -0.82)), 0.08, "light")
    return tilted(drawing, 26)


def key() -> Drawing:
    """An old key."""
    bow = stroke(arc(-0.54, 0, 0.32, 0.32, 14, 346), 0.22)
    drawing = part(box(0.52, 0.02, 0.68, 0.42, 0.03), "dark") + part(box(0.78, 0.02, 0.96, 0.34, 0.03), "dark")
    drawing += part(box(-0.2, -0.12, 1.04, 0.12, 0.08)) + line(((-0.06, -0.06), (0.94, -0.06)), 0.07, "light")
    drawing += part(bow) + line(arc(-0.54, 0, 0.37, 0.37, 30, 130), 0.07, "dark")
    drawing += line(arc(-0.54, 0, 0.36, 0.36, 190, 280), 0.07, "light")
    drawing += part(box(-0.3, -0.19, -0.12, 0.19, 0.06), "dark")
    return tilted(drawing, -38)


def guitar() -> Drawing:
    """A guitar."""
    body = symmetric(
        curve((0, -0.14), (0.24, -0.16), (0.42, 0.02), (0.36, 0.28), (0.54, 0.56), (0.48, 0.88), (0.2, 1.02), (0, 1.04))
    )
    drawing = part(box(-0.09, -1, 0.09, 0.2), "wood") + part(box(-0.15, -1.34, 0.15, -0.98, 0.05), "dark")
    for y in (-0.84, -0.66, -0.48, -0.3):
        drawing += line(((-0.08, y), (0.08, y)), 0.035, "cream")
    for y in (-1.26, -1.08):
        drawing += mark(ellipse(-0.17, y, 0.05), "metal") + mark(ellipse(0.17, y, 0.05), "metal")
    drawing += rounded(body, -0.12, 0.36, 0.54, 0.84) + mark(ellipse(-0.24, 0.06, 0.06, 0.1, 20), "light")
    drawing += mark(ellipse(-0.34, 0.62, 0.07, 0.16, 10), "light") + mark(box(-0.09, -0.16, 0.09, 0.16), "wood")
    drawing += mark(ellipse(0, 0.3, 0.2), "cream") + mark(ellipse(0, 0.3, 0.16), "ink")
    drawing += mark(box(-0.22, 0.68, 0.22, 0.78, 0.03), "iron")
    for x in (-0.04, 0.04):
        drawing += line(((x, -1), (x, 0.72)), 0.022, "paper")
    return tilted(drawing, 28)


def star() -> Drawing:
    """A star with five points, folded along them."""
    tips = [(math.sin(math.radians(72 * i)), -math.cos(math.radians(72 * i))) for i in range(5)]
    notches = [
        (0.46 * math.sin(math.radians(72 * i + 36)), -0.46 * math.cos(math.radians(72 * i + 36))) for i in range(5)
    ]
    drawing = part(tuple(point for pair in zip(tips, notches, strict=True) for point in pair))
    for index in range(5):
        drawing += mark(((0, 0), tips[index], notches[index]), "dark" if index in (1, 2, 3) else "main")
        drawing += mark(((0, 0), tips[index], notches[index - 1]), "light" if index in (0, 4) else "main")
    return drawing


def heart() -> Drawing:
    """A heart."""
    half = curve(
        (0, -0.52), (0.2, -0.8), (0.56, -0.88), (0.9, -0.62), (0.94, -0.2), (0.66, 0.3), (0.3, 0.68), (0, 0.96)
    )
    drawing = rounded(symmetric(half), -0.12, -0.14, 0.96, 0.94)
    return drawing + mark(stroke(arc(-0.48, -0.36, 0.3, 0.3, 170, 270), 0.12, 0.09), "light")

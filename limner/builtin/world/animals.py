"""Drawings of animals, looking to the right."""

from __future__ import annotations

from limner.builtin.world.curves import (
    Outline,
    Point,
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
from limner.builtin.world.shapes import Drawing, eye, line, mark, part, patch, rounded


def cat() -> Drawing:
    """A sitting cat that faces us."""
    tail = stroke(curve((0.3, 0.86), (0.78, 0.82), (0.86, 0.42), (0.66, 0.12)), 0.2, 0.15)
    body = symmetric(curve((0, -0.2), (0.34, 0), (0.5, 0.5), (0.52, 0.86), (0.36, 1), (0, 1)))
    ear = curve((0.1, -0.8), (0.34, -1.06), (0.5, -1.2)) + curve((0.53, -1.16), (0.6, -0.8), (0.54, -0.44))
    inner = curve((0.28, -0.82), (0.4, -0.98), (0.47, -1.04)) + curve((0.49, -0.98), (0.5, -0.76), (0.46, -0.62))
    head = symmetric(curve((0, -0.86), (0.36, -0.82), (0.62, -0.46), (0.5, -0.12), (0.22, 0.06), (0, 0.08)))
    drawing = part(tail, "dark") + rounded(body, -0.12, 0.3, 0.56, 0.92) + mark(ellipse(0, 0.42, 0.2, 0.3), "light")
    for x in (-0.19, 0.19):
        drawing += part(ellipse(x, 0.92, 0.2, 0.12), "light")
    drawing += part(ear) + part(mirrored(ear))
    drawing += mark(inner, "dark") + mark(mirrored(inner), "dark") + rounded(head, -0.1, -0.5, 0.66, 0.62)
    drawing += mark(ellipse(0, -0.16, 0.24, 0.15), "light")
    for x in (-0.26, 0.26):
        drawing += eye(x, -0.4, 0.15)
    for side in (-1, 1):
        drawing += line(((side * 0.3, -0.16), (side * 0.74, -0.22)), 0.035) + line(
            ((side * 0.3, -0.09), (side * 0.7, -0.02)), 0.035
        )
    drawing += mark(((-0.09, -0.24), (0.09, -0.24), (0.0, -0.14)), "ink")
    return drawing + line(curve((-0.12, -0.06), (-0.06, -0.03), (0, -0.12), (0.06, -0.03), (0.12, -0.06)), 0.035, "ink")


def dog() -> Drawing:
    """A standing dog with hanging ears."""
    tail = stroke(curve((-0.66, -0.06), (-0.92, -0.16), (-1.02, -0.54)), 0.18, 0.1)
    body = (
        curve((0.3, -0.42), (-0.1, -0.22), (-0.5, -0.26), (-0.76, -0.08), (-0.82, 0.24), (-0.72, 0.56), (-0.76, 0.84))
        + curve((-0.74, 0.92), (-0.58, 0.94), (-0.42, 0.92))
        + curve((-0.42, 0.84), (-0.54, 0.76), (-0.48, 0.5), (-0.3, 0.34), (0.04, 0.36), (0.28, 0.36))
        + curve((0.32, 0.6), (0.34, 0.84), (0.34, 0.92))
        + curve((0.36, 0.94), (0.52, 0.94), (0.66, 0.92))
        + curve((0.66, 0.84), (0.56, 0.74), (0.56, 0.4), (0.66, 0.08), (0.7, -0.3))
    )
    hind = closed((-0.5, 0.2), (-0.26, 0.28), (-0.28, 0.6), (-0.16, 0.84), (-0.22, 0.92), (-0.44, 0.92), (-0.46, 0.6))
    fore = closed((0.02, 0.2), (0.26, 0.2), (0.22, 0.7), (0.34, 0.84), (0.28, 0.92), (0.06, 0.92), (0.06, 0.5))
    head = closed((0.2, -0.5), (0.34, -0.84), (0.66, -0.88), (0.84, -0.68), (1.1, -0.56), (1.16, -0.36),
                  (0.96, -0.22), (0.66, -0.14), (0.34, -0.2))  # fmt: skip
    ear = closed((0.24, -0.8), (0.42, -0.86), (0.52, -0.62), (0.44, -0.2), (0.26, -0.12), (0.12, -0.3), (0.14, -0.6))
    drawing = part(tail, "dark") + part(hind, "dark") + part(fore, "dark") + part(body)
    drawing += mark(
        closed((-0.48, 0.5), (-0.3, 0.34), (0.04, 0.36), (0.28, 0.36), (0.4, 0.24), (0, 0.22), (-0.36, 0.2)), "dark"
    )
    drawing += mark(stroke(curve((-0.66, -0.02), (-0.46, -0.14), (-0.2, -0.14)), 0.09), "light")
    for x in (-0.58, 0.5):
        drawing += mark(ellipse(x, 0.88, 0.14, 0.06), "light")
    drawing += mark(stroke(curve((0.3, -0.12), (0.46, 0), (0.66, -0.04)), 0.13), "paper")
    drawing += rounded(head, 0.6, -0.64, 0.6, 0.44) + mark(ellipse(0.98, -0.36, 0.17, 0.1, 12), "light")
    drawing += part(ear, "dark") + mark(ellipse(1.11, -0.5, 0.1, 0.08), "ink")
    drawing += line(curve((1.06, -0.34), (0.94, -0.26), (0.82, -0.3)), 0.035, "ink")
    return drawing + eye(0.68, -0.62, 0.12)


def rabbit() -> Drawing:
    """A sitting rabbit with long ears."""
    body = closed(
        (-0.72, 0.5), (-0.6, 0.02), (-0.2, -0.2), (0.2, 0), (0.42, 0.4), (0.44, 0.86), (0, 0.94), (-0.5, 0.92)
    )
    haunch = closed((-0.6, 0.7), (-0.5, 0.36), (-0.16, 0.26), (0.1, 0.5), (0.06, 0.86), (-0.3, 0.96), (-0.56, 0.9))
    head = closed(
        (0, -0.22), (0.12, -0.52), (0.44, -0.6), (0.72, -0.4), (0.82, -0.16), (0.66, 0.04), (0.3, 0.1), (0.06, 0)
    )
    ear = closed((0.06, 0.04), (-0.13, -0.3), (-0.12, -0.72), (0.02, -0.88), (0.15, -0.6), (0.16, -0.1))
    drawing = part(ellipse(-0.76, 0.62, 0.2), "paper") + part(
        turned(moved(ear, 0.34, -0.46), 10, (0.34, -0.46)), "dark"
    )
    drawing += rounded(body, -0.2, 0.3, 0.6, 0.62) + rounded(haunch, -0.3, 0.52, 0.34, 0.36)
    drawing += part(ellipse(-0.12, 0.92, 0.34, 0.1), "light") + part(ellipse(0.42, 0.9, 0.24, 0.1), "light")
    drawing += part(turned(moved(ear, 0.2, -0.42), -16, (0.2, -0.42)))
    drawing += mark(turned(ellipse(0.2, -0.86, 0.055, 0.28), -16, (0.2, -0.42)), "light")
    drawing += rounded(head, 0.3, -0.32, 0.5, 0.36) + mark(ellipse(0.56, -0.04, 0.16, 0.1, -10), "light")
    drawing += mark(ellipse(0.78, -0.2, 0.065, 0.05), "ink") + line(((0.6, -0.06), (0.34, 0.02)), 0.03)
    return drawing + line(((0.6, -0.1), (0.32, -0.1)), 0.03) + eye(0.46, -0.3, 0.12)


def fish() -> Drawing:
    """A fish with a fan of a tail."""
    body = closed(
        (-0.56, 0), (-0.2, -0.36), (0.3, -0.5), (0.76, -0.3), (0.98, 0.04), (0.74, 0.32), (0.3, 0.46), (-0.2, 0.32)
    )
    tail = curve((-0.44, 0), (-0.7, -0.2), (-0.98, -0.52)) + curve((-0.98, -0.52), (-0.84, 0), (-0.98, 0.52)) + curve(
        (-0.98, 0.52), (-0.7, 0.2), (-0.44, 0)
    )  # fmt: skip
    back = curve((-0.2, -0.32), (0, -0.66), (0.42, -0.72)) + curve((0.42, -0.72), (0.4, -0.56), (0.5, -0.42))
    belly = curve((-0.06, 0.36), (-0.1, 0.56), (0.02, 0.7)) + curve((0.02, 0.7), (0.22, 0.6), (0.32, 0.42))
    fin = curve((0.34, 0.08), (0.1, 0), (-0.16, 0.06)) + curve((-0.16, 0.06), (-0.1, 0.22), (0.1, 0.28), (0.34, 0.08))
    drawing = part(tail, "dark") + part(back, "dark") + part(belly, "dark")
    for y in (-0.22, 0, 0.22):
        drawing += line(((-0.86, 1.3 * y), (-0.62, 0.5 * y)), 0.05, "main")
    drawing += rounded(body, 0.24, -0.14, 0.86, 0.46)
    for x, y in ((-0.24, -0.12), (-0.24, 0.12), (-0.02, -0.24), (0.2, -0.3), (0.2, 0.3), (0, 0.28)):
        drawing += mark(stroke(arc(x - 0.06, y, 0.1, 0.1, -65, 65), 0.055), "light")
    drawing += patch(body, ellipse(1, -0.02, 0.42, 0.7), "light") + part(fin, "dark")
    drawing += line(curve((0.94, 0.16), (0.84, 0.16), (0.78, 0.1)), 0.04, "ink")
    return drawing + eye(0.7, -0.12, 0.13)


def whale() -> Drawing:
    """A whale that blows."""
    body = closed((-0.66, 0.04), (-0.3, 0.02), (0.06, -0.34), (0.5, -0.42), (0.88, -0.2), (1, 0.2), (0.8, 0.56),
                  (0.3, 0.68), (-0.2, 0.6), (-0.56, 0.32))  # fmt: skip
    fluke = (
        curve((-0.56, 0.2), (-0.72, -0.1), (-0.98, -0.2), (-1.06, -0.46))
        + curve((-1.06, -0.46), (-0.84, -0.44), (-0.7, -0.24))
        + curve((-0.7, -0.24), (-0.62, -0.5), (-0.38, -0.6))
        + curve((-0.38, -0.6), (-0.36, -0.3), (-0.54, -0.1), (-0.42, 0.1))
    )
    belly = curve((1.1, 0.26), (0.6, 0.36), (0.1, 0.38), (-0.5, 0.8), (0, 0.9), (0.6, 0.9))
    fin = closed((0.24, 0.42), (0.44, 0.46), (0.34, 0.7), (0.1, 0.84), (0.08, 0.72))
    drawing = part(fluke, "dark") + part(body, "main")
    drawing += patch(belly, body, "light")
    for x in (0.78, 0.6, 0.42):
        drawing += line(curve((x, 0.42), (x - 0.08, 0.5), (x - 0.12, 0.58)), 0.04, "main")
    drawing += mark(stroke(curve((-0.1, -0.12), (0.2, -0.3), (0.5, -0.32)), 0.07), "light") + part(fin, "dark")
    drawing += line(curve((0.98, 0.24), (0.82, 0.3), (0.7, 0.26)), 0.04, "ink")
    for side in (-1, 1):
        spout = curve(
            (0.42, -0.46), (0.42 + side * 0.02, -0.74), (0.42 + side * 0.16, -0.92), (0.42 + side * 0.34, -0.82)
        )
        drawing += mark(stroke(spout, 0.09, 0.11), "spray")
    return drawing + eye(0.66, 0.08, 0.11)


def bird() -> Drawing:
    """A small singing bird."""
    body = closed((-0.56, 0.2), (-0.3, -0.14), (0.02, -0.3), (0.16, -0.66), (0.5, -0.76), (0.78, -0.52), (0.74, -0.16),
                  (0.7, 0.24), (0.4, 0.6), (0, 0.66), (-0.36, 0.5))  # fmt: skip
    tail = (
        curve((-0.3, 0.1), (-0.7, 0), (-1.06, -0.08))
        + curve((-1.06, 0.08), (-1.04, 0.26))
        + curve((-0.8, 0.34), (-0.3, 0.44))
    )
    wing = curve((0.16, -0.16), (-0.2, -0.06), (-0.56, 0.2), (-0.72, 0.5)) + curve(
        (-0.72, 0.5), (-0.2, 0.5), (0.16, 0.3), (0.26, 0.06), (0.16, -0.16)
    )
    drawing: Drawing = ()
    for x in (0.06, 0.28):
        leg: Outline = ((x, 0.56), (x + 0.02, 0.9))
        drawing += line(leg, 0.06, "iron") + line(((x - 0.1, 0.95), (x + 0.02, 0.89), (x + 0.16, 0.95)), 0.055, "iron")
    drawing += part(((0.7, -0.56), (1.08, -0.42), (0.7, -0.32)), "beak") + part(tail, "dark")
    drawing += rounded(body, 0.2, -0.14, 0.66, 0.72) + patch(body, ellipse(0.56, 0.2, 0.3, 0.36, 20), "light")
    drawing += part(wing, "dark") + line(curve((-0.44, 0.36), (-0.1, 0.3), (0.12, 0.12)), 0.05, "main")
    drawing += line(curve((-0.3, 0.18), (-0.06, 0.12), (0.1, 0)), 0.05, "main")
    return drawing + eye(0.52, -0.48, 0.12)


def owl() -> Drawing:
    """An owl that faces us, on a branch."""
    body = symmetric(
        curve((0, -0.76), (0.3, -0.8), (0.58, -1))
        + curve((0.6, -0.98), (0.64, -0.5), (0.68, 0.2), (0.5, 0.66), (0.22, 0.86), (0, 0.9))
    )
    wing = closed((0.56, -0.3), (0.76, -0.02), (0.8, 0.4), (0.62, 0.78), (0.48, 0.5), (0.44, 0))
    branch = stroke(curve((-1, 0.88), (-0.3, 0.92), (0.4, 0.86), (1, 0.92)), 0.13)
    drawing = rounded(body, -0.1, -0.2, 0.7, 1) + mark(ellipse(0, 0.36, 0.4, 0.42), "light")
    for x, y in ((-0.18, 0.2), (0.06, 0.2), (-0.06, 0.4), (0.18, 0.4), (-0.18, 0.58), (0.06, 0.6)):
        drawing += mark(stroke(arc(x + 0.03, y, 0.09, 0.09, 20, 160), 0.05), "dark")
    drawing += part(mirrored(wing), "dark") + part(wing, "dark")
    for side in (-1, 1):
        drawing += part(ellipse(side * 0.29, -0.38, 0.31), "light") + eye(side * 0.28, -0.38, 0.22, (-side * 0.1, 0.05))
    drawing += part(((-0.1, -0.28), (0.1, -0.28), (0, -0.04)), "beak") + part(branch, "wood")
    for x in (-0.28, -0.14, 0.14, 0.28):
        drawing += mark(ellipse(x, 0.86, 0.06, 0.1), "beak")
    return drawing


def snail() -> Drawing:
    """A snail with a spiral on its shell."""
    foot = closed((-1, 0.84), (-0.8, 0.68), (-0.2, 0.5), (0.3, 0.5), (0.5, 0.1), (0.56, -0.24), (0.76, -0.36),
                  (0.96, -0.2), (0.94, 0.16), (0.86, 0.6), (0.66, 0.84), (0, 0.88))  # fmt: skip
    drawing: Drawing = ()
    for tip in ((0.62, -0.74), (1.02, -0.7)):
        drawing += line(((0.78, -0.24), tip), 0.07, "cream") + mark(ellipse(*tip, 0.08), "ink")
    drawing += part(foot, "cream") + line(curve((-0.86, 0.8), (0, 0.8), (0.6, 0.76)), 0.05, "smoke")
    shell = ellipse(-0.12, -0.04, 0.66)
    drawing += rounded(shell, -0.22, -0.14, 0.6, 0.6)
    spiral: list[Point] = []
    for step in range(45):
        radius = 0.52 * (1 - step / 50)
        spiral += turned(((-0.12 + radius, -0.02),), 90 + step * 18, (-0.12, -0.02))
    drawing += line(tuple(spiral), 0.09, "deep", 0.07) + mark(ellipse(-0.5, -0.44, 0.1, 0.06, -45), "light")
    return drawing + eye(0.82, -0.08, 0.09) + line(curve((0.92, 0.12), (0.84, 0.18), (0.76, 0.14)), 0.035, "ink")


def butterfly() -> Drawing:
    """A butterfly with open wings."""
    upper = closed((0.06, -0.1), (0.2, -0.56), (0.6, -0.86), (0.94, -0.78), (0.98, -0.4), (0.76, -0.04), (0.4, 0.08))
    lower = closed((0.06, 0), (0.44, 0.06), (0.74, 0.24), (0.76, 0.58), (0.5, 0.82), (0.24, 0.62), (0.1, 0.3))
    drawing: Drawing = ()
    for side in (1, -1):
        drawing += part(lower if side == 1 else mirrored(lower), "dark")
        drawing += part(upper if side == 1 else mirrored(upper))
        drawing += mark(ellipse(side * 0.68, -0.5, 0.19, 0.16), "light") + mark(
            ellipse(side * 0.7, -0.5, 0.09), "paper"
        )
        drawing += mark(ellipse(side * 0.38, -0.3, 0.1, 0.13, side * 40), "light")
        drawing += mark(ellipse(side * 0.5, 0.46, 0.13, 0.15), "light")
        drawing += line(curve((side * 0.02, -0.4), (side * 0.1, -0.74), (side * 0.26, -0.9)), 0.05, "ink")
        drawing += mark(ellipse(side * 0.27, -0.9, 0.06), "ink")
    return drawing + part(ellipse(0, 0.1, 0.09, 0.5), "iron") + mark(ellipse(0, -0.4, 0.12), "ink")

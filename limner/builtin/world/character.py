"""Drawing of the sitter: a cat like no other, striped, in a top hat and a scarf, always in the same colours."""

from __future__ import annotations

import math

from limner.builtin.world.curves import Outline, box, closed, curve, ellipse, mirrored, stroke, symmetric, turned
from limner.builtin.world.shapes import Drawing, Shape, eye, line, mark, part, patch


def sitter() -> Drawing:
    """Returns the sitter, sitting upright and facing us, its ringed tail held high."""
    return _tail() + _body() + _head() + _scarf() + _hat()


def _tail() -> Drawing:
    spine = curve((0.3, 0.82), (0.86, 0.8), (0.98, 0.4), (0.8, 0.02), (0.98, -0.3))
    drawing = part(stroke(spine, 0.28, 0.24), "apricot")
    for start in (6, 12, 18):
        drawing += mark(_ring(spine[start : start + 3], 0.29), "teal")
    return drawing + mark(stroke(spine[-4:], 0.25, 0.24), "teal")


def _ring(spine: Outline, width: float) -> Outline:
    """Returns a band across a line: a stroke without its round ends."""
    left, right = [], []
    (ax, ay), (bx, by) = spine[0], spine[-1]
    length = math.hypot(bx - ax, by - ay)
    nx, ny = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
    for x, y in spine:
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return (*left, *reversed(right))


def _body() -> Drawing:
    body = symmetric(curve((0, -0.2), (0.36, 0), (0.54, 0.46), (0.58, 0.84), (0.4, 1), (0, 1)))
    drawing = part(body, "amber") + patch(body, ellipse(-0.1, 0.36, 0.6, 0.9), "apricot")
    for y in (0.24, 0.5, 0.76):
        for side in (-1, 1):
            stripe = ((side * 0.9, y - 0.06), (side * 0.3, y + 0.04), (side * 0.3, y + 0.1), (side * 0.9, y + 0.08))
            drawing += patch(body, stripe, "teal")
    drawing += mark(ellipse(0, 0.5, 0.24, 0.4), "cream")
    for x in (-0.22, 0.22):
        drawing += part(ellipse(x, 0.93, 0.22, 0.12), "teal")
    return drawing


def _head() -> Drawing:
    ear = curve((0.12, -0.76), (0.4, -1), (0.6, -1.16)) + curve((0.64, -1.1), (0.68, -0.8), (0.6, -0.42))
    inner = curve((0.36, -0.8), (0.48, -0.94), (0.57, -1)) + curve((0.58, -0.94), (0.6, -0.76), (0.54, -0.6))
    head = symmetric(curve((0, -0.86), (0.4, -0.82), (0.68, -0.44), (0.54, -0.08), (0.24, 0.08), (0, 0.1)))
    drawing: Drawing = ()
    for outline in (ear, mirrored(ear)):
        drawing += part(outline, "teal")
    drawing += mark(inner, "lagoon") + mark(mirrored(inner), "lagoon")
    drawing += part(head, "amber") + patch(head, ellipse(-0.1, -0.46, 0.7, 0.56), "apricot")
    for side in (-1, 1):
        for y in (-0.3, -0.12):
            cheek = ((side * 0.9, y - 0.1), (side * 0.44, y - 0.01), (side * 0.44, y + 0.03), (side * 0.9, y + 0.03))
            drawing += patch(head, cheek, "teal")
    drawing += mark(ellipse(0, -0.14, 0.28, 0.17), "cream")
    for x in (-0.27, 0.27):
        drawing += mark(ellipse(x, -0.42, 0.19), "lagoon") + eye(x, -0.42, 0.15)
    drawing += mark(((-0.1, -0.24), (0.1, -0.24), (0, -0.13)), "crimson")
    mouth = curve((-0.13, -0.05), (-0.06, -0.02), (0, -0.11), (0.06, -0.02), (0.13, -0.05))
    return drawing + line(mouth, 0.04, "ink")


def _scarf() -> Drawing:
    wrap = closed((-0.52, 0.06), (-0.26, 0.14), (0, 0.16), (0.26, 0.14), (0.52, 0.06), (0.56, 0.2), (0.3, 0.34),
                  (0, 0.37), (-0.3, 0.34), (-0.56, 0.2))  # fmt: skip
    end: Outline = ((-0.34, 0.26), (-0.08, 0.32), (-0.14, 0.84), (-0.4, 0.78))
    drawing = part(end, "crimson") + patch(end, ((-0.6, 0.56), (0, 0.62), (0, 0.74), (-0.6, 0.68)), "gold")
    drawing += part(wrap, "crimson")
    for x in (-0.36, 0, 0.36):
        drawing += patch(wrap, ((x - 0.05, 0), (x + 0.06, 0), (x + 0.06, 0.5), (x - 0.05, 0.5)), "gold")
    return drawing


def _hat() -> Drawing:
    crown = (*curve((-0.34, -0.78), (-0.32, -1.1), (-0.4, -1.42)), *curve((0.4, -1.42), (0.32, -1.1), (0.34, -0.78)))
    drawing = part(crown, "plum")
    drawing += patch(crown, ((-0.5, -1.5), (-0.14, -1.5), (-0.14, -0.7), (-0.5, -0.7)), "violet")
    drawing += patch(crown, box(-0.5, -1.02, 0.5, -0.86), "gold")
    drawing += part(ellipse(0, -0.8, 0.56, 0.1), "plum")
    return tuple(Shape(turned(shape.outline, 8, (0, -0.8)), shape.paint, shape.edge) for shape in drawing)

"""Outlines: closed or open lines of points, from splines, ellipses, boxes and strokes; y points down."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Outline = tuple[Point, ...]

_STEPS = 7  # points per span of a spline: smooth at 512 px


def _span(p0: Point, p1: Point, p2: Point, p3: Point) -> Outline:
    """Returns points from ``p1`` up to ``p2``, which is left out.

    Centripetal Catmull-Rom spline (Yuksel, Schaefer and Keyser 2011, section 3): without loops where points are close.
    """

    def between(a: Point, b: Point, t_a: float, t_b: float, t: float) -> Point:
        share = (t - t_a) / (t_b - t_a)
        return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])

    t0 = 0.0
    t1 = t0 + math.sqrt(math.dist(p0, p1))
    t2 = t1 + math.sqrt(math.dist(p1, p2))
    t3 = t2 + math.sqrt(math.dist(p2, p3))
    points = []
    for step in range(_STEPS):
        t = t1 + (t2 - t1) * step / _STEPS
        a1, a2, a3 = between(p0, p1, t0, t1, t), between(p1, p2, t1, t2, t), between(p2, p3, t2, t3, t)
        points.append(between(between(a1, a2, t0, t2, t), between(a2, a3, t1, t3, t), t1, t2, t))
    return tuple(points)


def closed(*points: Point) -> Outline:
    """Returns a smooth loop through all points."""
    count = len(points)
    spans = (_span(*(points[(index + shift) % count] for shift in (-1, 0, 1, 2))) for index in range(count))
    return tuple(point for span in spans for point in span)


def curve(*points: Point) -> Outline:
    """Returns a smooth line from the first point to the last; lines joined with ``+`` make outlines with corners."""
    before = (2 * points[0][0] - points[1][0], 2 * points[0][1] - points[1][1])
    after = (2 * points[-1][0] - points[-2][0], 2 * points[-1][1] - points[-2][1])
    row = (before, *points, after)
    spans = (_span(*row[index : index + 4]) for index in range(len(points) - 1))
    return (*(point for span in spans for point in span), points[-1])


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Outline:
    """Returns part of an ellipse's edge; angles in degrees, clockwise from the right, as the eye sees it."""
    count = max(4, math.ceil(abs(end - start) / 9))
    angles = (math.radians(start + (end - start) * step / count) for step in range(count + 1))
    return tuple((x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles)


def ellipse(x: float, y: float, rx: float, ry: float = 0.0, tilt: float = 0.0) -> Outline:
    """Returns an ellipse, or a circle where ``ry`` is left out; ``tilt`` in degrees, clockwise."""
    return turned(arc(x, y, rx, ry or rx, 0, 360)[:-1], tilt, (x, y))


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Outline:
    """Returns a rectangle, its corners rounded where there is a ``radius``."""
    if radius == 0:
        return ((left, top), (right, top), (right, bottom), (left, bottom))
    return (
        *arc(right - radius, top + radius, radius, radius, -90, 0),
        *arc(right - radius, bottom - radius, radius, radius, 0, 90),
        *arc(left + radius, bottom - radius, radius, radius, 90, 180),
        *arc(left + radius, top + radius, radius, radius, 180, 270),
    )


def stroke(line: Sequence[Point], width: float, end_width: float | None = None) -> Outline:
    """Returns the outline of a line as thick as ``width``, tapering to ``end_width``, with round ends."""
    last = width if end_width is None else end_width
    left, right = [], []
    for index, (x, y) in enumerate(line):
        (ax, ay), (bx, by) = line[max(index - 1, 0)], line[min(index + 1, len(line) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        half = (width + (last - width) * index / (len(line) - 1)) / 2
        nx, ny = -(by - ay) / length * half, (bx - ax) / length * half
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))

    def cap(centre: Point, edge: Point, radius: float) -> Outline:
        start = math.degrees(math.atan2(edge[1] - centre[1], edge[0] - centre[0]))
        return arc(*centre, radius, radius, start, start - 180)[1:-1]

    end, begin = cap(line[-1], left[-1], last / 2), cap(line[0], right[0], width / 2)
    return (*left, *end, *reversed(right), *begin)


def mirrored(outline: Outline) -> Outline:
    """Returns the outline with left and right exchanged, run through backwards."""
    return tuple((-x, y) for x, y in reversed(outline))


def symmetric(right_half: Outline) -> Outline:
    """Returns a closed outline from its right half, which runs from the middle to the middle."""
    return right_half + mirrored(right_half)[1:-1]


def turned(outline: Outline, degrees: float, centre: Point = (0.0, 0.0)) -> Outline:
    """Returns the outline turned clockwise about ``centre``."""
    if degrees == 0:
        return outline
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cx, cy = centre
    return tuple(
        (cx + cosine * (x - cx) - sine * (y - cy), cy + sine * (x - cx) + cosine * (y - cy)) for x, y in outline
    )


def moved(outline: Outline, dx: float, dy: float) -> Outline:
    """Returns the outline at another place."""
    return tuple((x + dx, y + dy) for x, y in outline)


def clipped(outline: Outline, window: Outline) -> Outline:
    """Returns the part of an outline inside a convex ``window`` (Sutherland and Hodgman 1974)."""
    area = sum(
        ax * by - bx * ay for (ax, ay), (bx, by) in zip(window, (*window[1:], window[0]), strict=True)
    )  # its sign tells which way the window runs
    points = list(outline)
    for (ax, ay), (bx, by) in zip(window, (*window[1:], window[0]), strict=True):
        sides = [((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * area for x, y in points]
        kept: list[Point] = []
        for index, (point, side) in enumerate(zip(points, sides, strict=True)):
            before, side_before = points[index - 1], sides[index - 1]
            if (side >= 0) != (side_before >= 0):
                share = side_before / (side_before - side)
                kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
            if side >= 0:
                kept.append(point)
        points = kept
        if not points:
            return ()
    return tuple(points)

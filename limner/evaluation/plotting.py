"""Measurements as pictures: which class was taken for which, and target against guard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

INK, COLOUR, CHOSEN = "#1b3a57", "#4a86b8", "#c8442e"
MOST_NUMBERS = 20
"""Classes up to which the counts stand in the cells."""
MISSING = 'matplotlib is not installed, so no plots are drawn: pip install "limner[plots]"'


def can_plot() -> bool:
    """Returns whether the library that draws plots is installed."""
    return find_spec("matplotlib") is not None


def confusion_plot(classes: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> bytes:
    """Returns the matrix as PNG: a row per true class, a column per predicted one, shaded by the share of its row."""
    from matplotlib.figure import Figure

    number = len(classes)
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    side = min(14.0, 2.6 + 0.5 * number)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(number), classes, rotation=90)
    axes.set_yticks(range(number), classes)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=9, wrap=True)
    if number <= MOST_NUMBERS:
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row][column] > 0.5 else INK
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


@dataclass(frozen=True)
class CurvePoint:
    """A point of the curve: a share with two numbers in [0, 1] and the ends of their intervals."""

    share: float
    target: tuple[float, float, float]
    guard: tuple[float, float, float] | None


def curve_plot(points: Sequence[CurvePoint], chosen: float, target: str, guard: str | None) -> bytes:
    """Returns the points as PNG: the target over the guard, or over the share where there is no guard."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    across = [100 * point.guard[0] if point.guard else point.share for point in points]
    up = [100 * point.target[0] for point in points]
    axes.plot(across, up, "-", color=COLOUR, linewidth=1, zorder=1)
    for x, point in zip(across, points, strict=True):
        value, low, high = (100 * number for number in point.target)
        colour = CHOSEN if point.share == chosen else INK
        axes.vlines(x, low, high, color=COLOUR, alpha=0.4)
        if point.guard:
            axes.hlines(value, 100 * point.guard[1], 100 * point.guard[2], color=COLOUR, alpha=0.4)
        axes.plot([x], [value], "o", color=colour, markersize=9 if point.share == chosen else 6, zorder=2)
        axes.annotate(f"{point.share:g}", (x, value), textcoords="offset points", xytext=(6, 6), fontsize=9)
    axes.set_xlabel(f"guard: {guard}, %" if guard else "share of the tuned weights")
    axes.set_ylabel(f"target: {target}, %")
    axes.set_title("each point is a share of the tuned weights; red: proposed; bars: 95 %", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()

"""A study as a picture: recognition, diversity and drift with their intervals."""

from __future__ import annotations

import io
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.study.running import Measured, Row
from limner.study.table import label

if TYPE_CHECKING:
    from limner.builtin.scoring import Share

Point = tuple[float, float, float]
"""A value and the ends of its interval, in percent."""

PANELS = (
    ("recognised", "recognised,\n% of pictures"),
    ("diversity", "class diversity,\n% of the base model's"),
    ("drift", "class drift,\n% of class pictures"),
)
MOST_DIVERSITY = 200.0
"""Percent; intervals without a bound end at the edge of the plot."""
INK, BAR, BASE_LEVEL, EDGE = "#1b3a57", "#c8442e", "#808080", 2
COLOURS = ("#9ec5e8", "#4a86b8", "#1b3a57", "#c8442e", "#7a9a3a", "#8a5fa8")


def check_plotting() -> None:
    """Raises UserError where the library that draws plots is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("matplotlib is not installed.", where="plot", fix='pip install "limner[dev]"')


def point(row: Row, panel: str) -> Point | None:
    """Returns what stands in a panel for a row; None where there is nothing to show."""
    if panel == "recognised":
        return _of_share(row.numbers.recognised)
    if panel == "drift":
        return _of_share(row.numbers.drift)
    if row.diversity is None:
        return None
    found = row.diversity
    return 100 * found.value, 100 * found.low, MOST_DIVERSITY if math.isinf(found.high) else 100 * found.high


def _of_share(share: Share) -> Point:
    low, high = share.interval()
    return 100 * share.value, 100 * low, 100 * high


def plot(measured: Measured) -> bytes:
    """Returns the plot as PNG."""
    from matplotlib.figure import Figure

    curves = measured.study.plot == "curves"
    height = 3.6 if curves else 1.6 + 0.3 * len(measured.rows)
    figure = Figure(figsize=(11, height), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=not curves)
    for axes, (panel, title) in zip(panels, PANELS, strict=True):
        draw = _curves if curves else _rows
        draw(axes, measured, panel, title)
        axes.spines[["top", "right"]].set_visible(False)
    if curves:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _bar(measured: Measured, panel: str) -> float | None:
    bars: dict[str, float] = {name: least for name, least in measured.study.bars.items()}
    return 100 * bars[panel] if panel in bars else None


def _rows(axes: Any, measured: Measured, panel: str, title: str) -> None:
    """Draws a point with its interval for each row, the first at the top."""
    for height, row in enumerate(measured.rows):
        found = point(row, panel)
        if found is not None:
            value, low, high = found
            axes.hlines(height, low, high, color=COLOURS[0], linewidth=5)
            axes.plot([value], [height], "o", color=INK, markersize=5)
    axes.set_yticks(range(len(measured.rows)), [label(row, measured.study) for row in measured.rows])
    axes.set_ylim(len(measured.rows) - 0.5, -0.5)
    axes.set_xlim(-EDGE, None if panel == "diversity" else 100 + EDGE)
    least = _bar(measured, panel)
    axes.set_xlabel(title if least is None else f"{title}\n(dashed: at least {least:g} % asked for)")
    if least is not None:
        axes.axvline(least, color=BAR, linewidth=1.5, linestyle="--")


def _curves(axes: Any, measured: Measured, panel: str, title: str) -> None:
    """Draws a curve over the steps for each setting, and the base model as a level line."""
    for colour, setting in zip(COLOURS, measured.study.settings, strict=False):
        rows = [row for row in measured.rows if row.name == setting.name]
        found = [(row.steps, one) for row in rows if (one := point(row, panel)) is not None]
        steps = [at for at, _ in found]
        axes.plot(steps, [one[0] for _, one in found], "o-", color=colour, markersize=4, label=setting.name)
        axes.fill_between(steps, [one[1] for _, one in found], [one[2] for _, one in found], color=colour, alpha=0.15)
    base = point(measured.rows[0], panel)
    if base is not None:
        axes.axhline(base[0], color=BASE_LEVEL, linewidth=1.5, linestyle="--", label=measured.rows[0].name)
    axes.set_xlim(0, None)
    axes.set_ylim(-EDGE, None if panel == "diversity" else 100 + EDGE)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(title)

"""The plots of a report as SVG: the losses of its checkpoints, and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from limner.report.evidence import HELD_OUT, LEARNED, Compared, Evidence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _RIGHT, _TOP = 720.0, 240.0, 100.0, 30.0, 12.0, 12.0
Line = Sequence[tuple[float, float]]


def loss_plot(row: Sequence[Evidence]) -> str:
    """Returns the losses of the base model (step 0) and of each checkpoint on both parts of the pictures."""
    parts: dict[str, list[tuple[int, Compared]]] = {
        LEARNED: [(one.step, one.learned) for one in row],
        HELD_OUT: [(one.step, one.held_out) for one in row if one.held_out is not None],
    }
    lines = {
        name: [(0.0, found[0][1].base), *((float(step), one.tuned) for step, one in found)]
        for name, found in parts.items()
        if found
    }
    return _svg(lines, "Loss", "step", digits=3)


def rate_plot(rates: Sequence[tuple[int, float]]) -> str:
    """Returns the learning rate over the steps."""
    thinned = rates[:: max(1, len(rates) // 400)]
    return _svg(
        {"learning rate": [(float(step), rate) for step, rate in thinned]}, "Learning rate", "step", digits=None
    )


def _svg(lines: Mapping[str, Line], what: str, over: str, *, digits: int | None) -> str:
    xs, ys = ([point[axis] for line in lines.values() for point in line] for axis in (0, 1))
    low, high, first, last = min(ys), max(ys), min(xs), max(xs)

    def told(value: float) -> str:
        return f"{value:.2g}" if digits is None else f"{value:.{digits}f}"

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (high - value) / ((high - low) or 1.0)

    drawn = []
    for number, line in enumerate(lines.values()):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        dots = "".join(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4"/>' for a, b in line) if len(line) < 50 else ""
        drawn.append(f'<g class="line{number}"><polyline points="{points}"/>{dots}</g>')
    names = "".join(f'<span class="key{number}">{escape(name)}</span>' for number, name in enumerate(lines))
    words = "; ".join(
        f"{name}: {told(line[0][1])} at the first, {told(line[-1][1])} at the last" for name, line in lines.items()
    )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{what}. {escape(words)}">'
        f'<path d="M{_LEFT:g} {_TOP:g}V{_HEIGHT - _BOTTOM:g}H{_WIDTH - _RIGHT:g}"/>{"".join(drawn)}'
        f'<text x="{_LEFT - 6:g}" y="{_TOP + 6:g}" text-anchor="end">{told(high)}</text>'
        f'<text x="{_LEFT - 6:g}" y="{_HEIGHT - _BOTTOM:g}" text-anchor="end">{told(low)}</text>'
        f'<text x="{_LEFT:g}" y="{_HEIGHT - 8:g}">{over} {first:g}</text>'
        f'<text x="{_WIDTH - _RIGHT:g}" y="{_HEIGHT - 8:g}" text-anchor="end">{over} {last:g}</text></svg>'
        f'<p class="small keys">{what}: {names}</p>'
    )


CSS = """
.plot{max-width:860px}
.plot circle{stroke:none}
.keys span{margin-left:.8em}
.keys span::before{content:"";display:inline-block;width:1.4em;height:3px;margin-right:.4em;vertical-align:middle}
.key0::before{background:var(--accent)}.key1::before{background:var(--wrong)}
.plot polyline{stroke-width:2.5}
.plot .line0 polyline{stroke:var(--accent)}.plot .line0 circle{fill:var(--accent)}
.plot .line1 polyline{stroke:var(--wrong)}.plot .line1 circle{fill:var(--wrong)}
"""

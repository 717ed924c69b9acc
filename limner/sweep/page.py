"""The page of a sweep: each number by setting, every run a dot, and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from limner import page as pages
from limner.sweep.apart import Outcome
from limner.sweep.grid import Axis
from limner.sweep.judging import Cell, Table, spread_text

_WIDTH, _HEIGHT, _EDGE = 600.0, 34.0, 12.0


def page(
    title: str, axes: Sequence[Axis], states: Sequence[tuple[str, Outcome]], tables: Sequence[Table], *, todo: str
) -> str:
    """Returns the page; ``todo`` is the command that goes on, empty where nothing is left."""
    about = "; ".join(f"{axis.key} = {', '.join(axis.values)}" for axis in axes)
    parts = [pages.header(f"Sweep: {title}", f"{len(states)} runs: {about}")]
    failed = [(name, one.message) for name, one in states if one.state == "failed"]
    if failed:
        parts.append(f'<section><h2 class="wrong">Failed</h2>{pages.table(failed)}</section>')
    if todo:
        undone = sum(one.state != "finished" for _, one in states)
        parts.append(
            f"<section><h2>To do</h2>{pages.commands([(f'not finished: {undone} of the runs', todo)])}</section>"
        )
    parts += [_section(table) for table in tables]
    parts.append(f"<section><h2>Reading this</h2>{_READING}</section>")
    shown = [(name, one.state) for name, one in states]
    parts.append(f"<section><h2>Runs</h2>{pages.table(shown)}</section>")
    return pages.document(f"Sweep: {title}", parts, css=_CSS)


def _section(table: Table) -> str:
    values = [value for cell in table.cells for value in _ends(cell)]
    low, high = min(values), max(values)
    rows = "".join(
        f"<dt>{escape(cell.setting)}</dt><dd>{_strip(table, cell, low, high)}"
        f"<span>{escape(spread_text(table.measure, cell.spread))}</span></dd>"
        for cell in table.cells
    )
    text = table.measure.text
    ends = f'<div class="ends" aria-hidden="true"><span>{text(low)}</span><span>{text(high)}</span></div>'
    verdict = f"<p><strong>{escape(table.verdict())}</strong></p>" if table.verdict() else ""
    title = f"<h2>{escape(table.measure.title)}</h2>"
    return f'<section class="measure">{title}{verdict}<dl>{rows}<dt></dt><dd>{ends}</dd></dl></section>'


def _ends(cell: Cell) -> list[float]:
    """Returns everything that is drawn of a cell."""
    found = cell.spread
    interval = [] if found.low is None or found.high is None else [found.low, found.high]
    return [*(one.value for one in cell.runs.values()), *interval]


def _strip(table: Table, cell: Cell, low: float, high: float) -> str:
    """Returns a line of dots, one for each run, over the interval of their mean."""
    span, found, text = (high - low) or 1.0, cell.spread, table.measure.text

    def place(value: float) -> float:
        share = 0.5 if high == low else (value - low) / span
        return _EDGE + (_WIDTH - 2 * _EDGE) * share

    middle = _HEIGHT / 2
    band = ""
    if found.low is not None and found.high is not None:
        wide = max(2.0, place(found.high) - place(found.low))
        band = f'<rect x="{place(found.low):.1f}" y="{middle - 7:g}" width="{wide:.1f}" height="14" rx="3"/>'
    dots = "".join(
        f'<circle cx="{place(one.value):.1f}" cy="{middle:g}" r="6">'
        f"<title>{_dot(seed, text(one.value))}</title></circle>"
        for seed, one in cell.runs.items()
    )
    told = ", ".join(text(one.value) for one in cell.runs.values())
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(told)}">'
        f'<path d="M{_EDGE:g} {middle:g}H{_WIDTH - _EDGE:g}"/>{band}'
        f'<path class="mean" d="M{place(found.mean):.1f} 3V{_HEIGHT - 3:g}"/>{dots}</svg>'
    )


def _dot(seed: str | None, value: str) -> str:
    return escape(value if seed is None else f"seed {seed}: {value}")


_READING = """<p>Each dot is a run, the upright line the mean, the box its 95 % interval by Student's t. Behind ± stands
the standard deviation of the runs. The best setting and the second are compared seed by seed, by the interval of the
differences of runs with equal seeds: where it holds 0, chance alone may have made the difference. Of many settings the
best is flattered by having been chosen.</p>"""

_CSS = """
.measure{max-width:1100px}
.measure h2::first-letter{text-transform:uppercase}
dl{display:grid;grid-template-columns:minmax(8em,max-content) minmax(0,1fr);gap:10px 24px;margin:0;align-items:center}
dt{max-width:18em}
dd{margin:0;display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:4px 24px;align-items:center}
dd span{font-size:.92rem}
dl svg{display:block}
dl svg circle{fill:var(--bar);opacity:.75;stroke:var(--ground);stroke-width:1}
dl svg rect{fill:var(--bar);opacity:.18}
dl svg .mean{stroke:var(--ink);stroke-width:2}
.ends{display:flex;justify-content:space-between;color:var(--soft)}
@media(max-width:700px){dl{grid-template-columns:1fr;gap:2px}dd{grid-template-columns:1fr;margin-bottom:14px}
dt{font-weight:600}dl svg{height:34px}}
"""

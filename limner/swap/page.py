"""The page of ``limner swap``: pictures side by side, how far the hidden states moved, how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from limner.evaluation.hidden_states import LARGEST_MOVE, POSITIONS, Gauge, share
from limner.page import Rows, commands, document, header, shown, table

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN_SIDE = 512
"""Pixels of the longer side of a large picture on the page; the whole one lies beside it."""


@dataclass(frozen=True)
class Column:
    """The pictures that were drawn with one text encoder."""

    name: str
    gauge: Gauge | None
    """None for the model's own."""
    images: tuple[Image, ...]
    changes: tuple[float, ...]
    """Of each picture, against the model's own; empty for that one."""


@dataclass(frozen=True)
class Page:
    """All that the page shows. The first column is the model's own encoder."""

    model: str
    encoder: str
    prompts: tuple[tuple[str, int], ...]
    """Prompt and seed of each picture."""
    columns: tuple[Column, ...]
    proposed: float
    settings: Rows
    commands: Rows


def render(page: Page) -> str:
    """Returns the page as HTML."""
    title = "A tuned text encoder in the picture"
    about = (
        f"{page.model}, with its own text encoder and with that of {page.encoder}: the same prompts, the same noise."
    )
    return document(title, [header(title, about), _moves(page), _pictures(page), _layers(page), _next(page)], css=_CSS)


# ---------------------------------------------------------------------------------------------------------- the gauge
def _moves(page: Page) -> str:
    gauges = _gauges(page)
    rows = "".join(
        f'<tr><th scope="row">{escape(column.name)}</th><td><strong>{share(gauge.moved)}</strong> '
        f"{_verdict(gauge)}</td><td>{share(sum(column.changes) / len(column.changes))}</td></tr>"
        for column, gauge in gauges
    )
    first = gauges[0][1]
    return (
        "<section><h2>How far it moved</h2><p>Stable Diffusion reads the text encoder's hidden states. The distance is "
        "that between the tuned and the own states as a share of the own states' length, in the layer that the "
        f"pipeline reads, on {len(first.prompts)} fixed captions about {escape(first.about)}. Beyond "
        f"{share(LARGEST_MOVE)} a warning is due.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">encoder</th><th scope="col">hidden states</th>'
        f'<th scope="col">pixels, on average</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _gauges(page: Page) -> list[tuple[Column, Gauge]]:
    return [(column, column.gauge) for column in page.columns if column.gauge is not None]


def _verdict(gauge: Gauge) -> str:
    if gauge.moved == 0:
        return '<span class="small">the same states</span>'
    return '<span class="far">beyond the bound</span>' if gauge.too_far else '<span class="small">within it</span>'


def _layers(page: Page) -> str:
    gauges = _gauges(page)
    tables = "".join(
        f"<details{' open' if column is gauges[-1][0] else ''}><summary>{escape(column.name)}</summary>"
        f"{_layer_table(gauge)}</details>"
        for column, gauge in gauges
    )
    plot = layer_plot(
        [(column.name, [one.distances["all tokens"] for one in gauge.layers]) for column, gauge in gauges]
    )
    return f"<section><h2>Layer by layer</h2>{plot}{tables}</section>"


def _layer_table(gauge: Gauge) -> str:
    head = "".join(f'<th scope="col">{position}</th>' for position in POSITIONS)
    rows = "".join(
        f'<tr><th scope="row">{escape(layer)}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'
        for layer, *values in gauge.rows()
    )
    return (
        f'<div class="scroll"><table class="layers"><thead><tr><th scope="col">layer</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def layer_plot(lines: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Returns the distance over the layers as SVG, a line for each blend, its name at its end; the bound is dashed."""
    width, height, left, right, bottom = 720.0, 280.0, 84.0, 144.0, 34.0
    top = max(LARGEST_MOVE, *(max(values) for _, values in lines)) * 1.1
    last = len(lines[0][1]) - 1

    def level(value: float) -> float:
        return 8 + (height - bottom - 8) * (1 - value / top)

    def points(values: Sequence[float]) -> str:
        step = (width - left - right) / max(1, last)
        return " ".join(f"{left + index * step:.1f},{level(value):.1f}" for index, value in enumerate(values))

    places = spread([level(values[-1]) for _, values in lines], apart=26.0)
    drawn = "".join(
        f'<polyline class="line" points="{points(values)}"/>'
        f'<text x="{width - right + 8:g}" y="{place + 5:.1f}">{escape(name)}</text>'
        for (name, values), place in zip(lines, places, strict=True)
    )
    bound = level(LARGEST_MOVE)
    words = "; ".join(f"{name}: {share(values[-1])} in the last layer" for name, values in lines)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(words)}">'
        f'<path d="M{left:g} 8V{height - bottom:g}H{width - right:g}"/>'
        f'<path class="bound" d="M{left:g} {bound:.1f}H{width - right:g}"/>{drawn}'
        f'<text x="{left - 6:g}" y="{bound + 5:.1f}" text-anchor="end">{share(LARGEST_MOVE)}</text>'
        f'<text x="{left - 6:g}" y="{height - bottom:g}" text-anchor="end">0 %</text>'
        f'<text x="{left:g}" y="{height - 8:g}">embeddings</text>'
        f'<text x="{width - right:g}" y="{height - 8:g}" text-anchor="end">last layer</text></svg>'
        '<p class="small">Distance of all tokens, from the embeddings to the layer that the pipeline reads. '
        "Dashed: the bound.</p>"
    )


def spread(places: Sequence[float], *, apart: float) -> list[float]:
    """Returns heights for labels in the order of ``places``, moved upwards until they are ``apart`` from each other."""
    order = sorted(range(len(places)), key=lambda index: places[index], reverse=True)
    found, below = list(places), float("inf")
    for index in order:
        below = found[index] = min(places[index], below - apart)
    return found


# ------------------------------------------------------------------------------------------------------- the pictures
def _pictures(page: Page) -> str:
    among = len(page.columns) * len(page.prompts)
    articles = "".join(
        f'<article><h3>{escape(prompt)}</h3><div class="row">'
        f"{''.join(_figure(column, number, prompt, among) for column in page.columns)}"
        f'</div><p class="small">seed {seed}</p></article>'
        for number, (prompt, seed) in enumerate(page.prompts)
    )
    return f'<section class="wide"><h2>The pictures</h2><div class="rows">{articles}</div></section>'


def _figure(column: Column, number: int, prompt: str, among: int) -> str:
    image = column.images[number]
    said = f"pixels differ by {share(column.changes[number])}" if column.changes else "for comparison"
    alternative = escape(f"{column.name}, for: {prompt}")
    source = shown(image, side=_SHOWN_SIDE, among=among)
    return (
        f'<figure><img src="{source}" width="{image.width}" height="{image.height}" alt="{alternative}">'
        f'<figcaption><span class="tag">{escape(column.name)}</span><p class="small">{said}</p></figcaption></figure>'
    )


def _next(page: Page) -> str:
    return (
        f"<section><h2>Going on</h2><p>The commands have blend {page.proposed:g}, the largest of these whose hidden "
        "states stay within the bound, or the smallest where none does. Nobody has judged the pictures: look, and take "
        f"another if you like it better.</p>{commands(page.commands)}</section>"
        f"<section><h2>How it was made</h2>{table(page.settings)}</section>"
    )


_CSS = """
thead th{color:var(--soft);font-size:.9rem}
.far{color:var(--wrong)}
.layers{font-variant-numeric:tabular-nums;font-size:.92rem}
.layers{min-width:600px}
.layers tbody th,.layers thead th,.layers td{white-space:nowrap}
summary{font-weight:600;padding:.5em 0;cursor:pointer}
.row+.small{margin-top:.8em}
.rows{display:grid;gap:20px;grid-template-columns:repeat(auto-fill,minmax(min(100%,720px),1fr))}
.row{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(128px,1fr))}
svg .line{stroke-width:2.5}
svg .bound{stroke:var(--wrong);stroke-dasharray:6 5}
"""

"""What all pages of Limner share: one HTML file with its pictures inside, no network, light and dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Rows = Sequence[tuple[str, str]]
_THUMBNAIL = 128
"""Pixels of the longer side of a picture that a model learned from."""
MOST_BYTES = 8_000_000
"""Of a page's pictures together, as text; with all else the page stays below ten million, so that it can be
mailed and opens at once."""
_AS_PNG = 256
"""Pixels of the longer side up to which a picture goes into a page as it is; larger ones as JPEG."""
_SMALLEST = 64
"""Pixels of the longer side below which no picture is made smaller, however many there are."""
_MOST_POINTS = 720
"""Points of a curve: one for each pixel of its width."""


def document(title: str, parts: Sequence[str], *, css: str = "") -> str:
    """Returns a whole page; ``parts`` are HTML, ``title`` is plain text, ``css`` is the page's own."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)} · Limner</title>\n<style>{_CSS}{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def header(title: str, about: str) -> str:
    """Returns the top of a page."""
    return f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p></header>"


def data_uri(image: Image, kind: str = "PNG") -> str:
    """Returns a picture as text that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown(image: Image, *, side: int, among: int, as_it_is: int = _AS_PNG) -> str:
    """Returns one of a page's ``among`` pictures as text, small enough for all of them to fit into a page.

    One of up to ``as_it_is`` pixels stays as it is, a larger one becomes a JPEG of up to ``side`` pixels, where either
    fits.
    """
    most = MOST_BYTES // among
    if max(image.size) <= as_it_is and len(whole := data_uri(image)) <= most:
        return whole
    text = data_uri(smaller(image, side), "JPEG")
    while len(text) > most and side > _SMALLEST:
        side = max(_SMALLEST, side * 3 // 4)
        text = data_uri(smaller(image, side), "JPEG")
    return text


def smaller(image: Image, side: int) -> Image:
    """Returns a copy in RGB whose longer side has at most ``side`` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    return small


def table(rows: Rows) -> str:
    """Returns a table of labels and values; long paths break after a slash."""
    lines = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(value).replace("/", "/<wbr>")}</td></tr>'
        for label, value in rows
    )
    return f'<div class="scroll"><table class="facts"><tbody>{lines}</tbody></table></div>'


def commands(rows: Rows) -> str:
    """Returns a list of commands, each after what it is for."""
    items = "".join(f"<li>{escape(purpose)}<pre><code>{_command(text)}</code></pre></li>" for purpose, text in rows)
    return f"<ol>{items}</ol>"


def _command(text: str) -> str:
    """Returns a command whose options are not broken at their hyphens."""
    return re.sub(r"(?<= )--?[a-z][a-z-]*", r'<span class="whole">\g<0></span>', escape(text))


def learned_from(ledger: Rows, pictures: Sequence[Image]) -> str:
    """Returns what a model learned from: the ledger's rows and the pictures, small."""
    small = "".join(f'<img src="{data_uri(smaller(one, _THUMBNAIL), "JPEG")}" alt="">' for one in pictures)
    label = f"{len(pictures)} pictures of the set"
    return (
        f"<section><h2>What it learned from</h2>{table(ledger)}"
        f'<div class="strip" role="img" aria-label="{label}">{small}</div></section>'
    )


def loss_curve(losses: Sequence[float]) -> str:
    """Returns the loss over the steps, one at least, as SVG: each as a thin line, the running mean as a thick one."""
    width, height, left, bottom = 720.0, 240.0, 72.0, 30.0
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def point(index: int, loss: float) -> str:
        x = left + (width - left - 8) * index / max(1, len(losses) - 1)
        y = 8 + (height - bottom - 8) * (high - loss) / span
        return f"{x:.1f},{y:.1f}"

    thin = " ".join(point(index, loss) for index, loss in _thinned(losses))
    thick = " ".join(point(index, loss) for index, loss in _thinned(running_mean(losses)))
    words = f"Loss over {len(losses)} steps, {losses[0]:.3f} at the first, {losses[-1]:.3f} at the last"
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{words}">'
        f'<path d="M{left:g} 8V{height - bottom:g}H{width - 8:g}"/>'
        f'<polyline class="thin" points="{thin}"/><polyline class="thick" points="{thick}"/>'
        f'<text x="{left - 6:g}" y="16" text-anchor="end">{high:.3f}</text>'
        f'<text x="{left - 6:g}" y="{height - bottom:g}" text-anchor="end">{low:.3f}</text>'
        f'<text x="{left:g}" y="{height - 8:g}">step 1</text>'
        f'<text x="{width - 8:g}" y="{height - 8:g}" text-anchor="end">step {len(losses)}</text></svg>'
        '<p class="small">Loss of each step (thin) and the mean over its neighbours (thick).</p>'
    )


def _thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """Returns places and values; of more than a curve can show, the lowest and the highest of each of equal parts."""
    if len(values) <= 2 * _MOST_POINTS:
        return list(enumerate(values))
    ends = [len(values) * part // _MOST_POINTS for part in range(_MOST_POINTS + 1)]
    found = {0, len(values) - 1}
    for start, end in pairwise(ends):
        found |= {min(range(start, end), key=values.__getitem__), max(range(start, end), key=values.__getitem__)}
    return [(index, values[index]) for index in sorted(found)]


def running_mean(losses: Sequence[float]) -> list[float]:
    """Returns for each step the mean of the steps up to a twentieth of the run before and after it."""
    reach = len(losses) // 20
    sums = [0.0, *accumulate(losses)]
    ends = [(max(0, i - reach), min(len(losses), i + reach + 1)) for i in range(len(losses))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in ends]


_CSS = """
:root{--ground:#f6f4ef;--card:#fffdf8;--ink:#23201b;--soft:#6a6459;--line:#ddd6c8;--accent:#2d5d8a;--right:#1f6b3a;
--wrong:#a8321f;--bar:#2d5d8a;--tint:#e9e3d6}
@media(prefers-color-scheme:dark){:root{--ground:#17181b;--card:#212327;--ink:#ebe7df;--soft:#a8a298;--line:#3a3c42;
--accent:#8db9e6;--right:#7fd19a;--wrong:#f39a88;--bar:#6ea4d9;--tint:#2c2f35}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
overflow-wrap:anywhere}
main{max-width:1480px;margin:0 auto;padding:clamp(16px,3vw,48px)}
header,section{max-width:860px}
section.wide{max-width:none}
h1{font-size:clamp(1.7rem,4vw,2.6rem);line-height:1.15;margin:0 0 .4em;text-wrap:balance}
h2{font-size:1.35rem;margin:2.2em 0 .6em}
h3{font-size:1rem;font-weight:600;margin:0 0 .7em}
header p{font-size:1.1rem;color:var(--soft);margin:0}
.small{font-size:.82rem;color:var(--soft);margin:.3em 0 0}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.45em .9em .45em 0;border-bottom:1px solid var(--line);font-weight:400}
th{overflow-wrap:normal}
tbody th{color:var(--soft);white-space:nowrap}
td{overflow-wrap:anywhere}
.facts{font-variant-numeric:tabular-nums}
.whole{white-space:nowrap}
.scroll{overflow-x:auto}
.pairs{display:grid;gap:20px;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr))}
article{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:12px}
figure{margin:0}
figure img{display:block;width:100%;height:auto;border-radius:8px;background:var(--tint)}
.tag{display:inline-block;margin-top:.5em;font-size:.85rem;font-weight:600;color:var(--soft)}
ul{list-style:none;margin:.3em 0 0;padding:0;font-size:.92rem}
li span.right,li span.wrong,td span.right,td span.wrong{display:inline-block;padding-left:1.3em;text-indent:-1.3em}
.sign{display:inline-block;width:1.3em;text-indent:0;font-weight:700}
.right .sign{color:var(--right)}
.wrong .sign,.wrong{color:var(--wrong)}
.said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
svg{width:100%;height:auto;color:var(--soft)}
svg path{fill:none;stroke:var(--line);stroke-width:1.5}
svg polyline{fill:none;stroke:var(--bar);stroke-linejoin:round}
svg .thin{opacity:.35}
svg .thick{stroke-width:2.5}
svg text{fill:currentColor;font-size:13px}
ol{padding-left:1.4em}
pre{background:var(--tint);border-radius:8px;padding:.7em .9em;margin:.4em 0 1em;overflow-x:auto;white-space:pre-wrap}
code{font:.9rem/1.45 ui-monospace,"SF Mono",Consolas,monospace}
.strip{display:grid;gap:6px;grid-template-columns:repeat(auto-fill,minmax(72px,1fr));margin-top:1em}
.strip img{width:100%;height:auto;display:block;border-radius:5px}
@media(max-width:600px){svg text{font-size:22px}tbody th{white-space:normal}}
"""

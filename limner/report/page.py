"""The page of ``limner compare``: what to keep and why, the numbers, before and after under one slider, the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from limner.core.intervals import Change
from limner.page import Rows, document, header, learned_from, loss_curve, shown, table
from limner.report.evidence import HELD_OUT, LEARNED, Compared, Evidence, Worth
from limner.report.plots import CSS as PLOT_CSS
from limner.report.plots import loss_plot, rate_plot
from limner.report.prompts import GROUPS, Group
from limner.report.scores import Score
from limner.report.verdict import Recommendation, Verdict

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 384
"""Pixels of the longer side of a large picture on the page; the whole one lies beside it."""


@dataclass(frozen=True)
class Pair:
    """One prompt's picture by the base model and by the shown checkpoint, from the same noise."""

    group: Group
    prompt: str
    seed: int
    before: Image
    after: Image


@dataclass(frozen=True)
class Beside:
    """Drawn pictures beside the nearest ones that were learned from."""

    encoder: str
    """The network that says what is near."""
    threshold: float
    """Above it a picture is called a copy."""
    taken_from: str
    """How many pictures of which kind the threshold was taken from."""
    rows: tuple[tuple[Image, Image, float, bool], ...]
    """The drawn picture, the nearest one, the cosine of the two, and whether it is a copy."""


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    run: str
    model: str
    shown: int
    """The step of the checkpoint whose pictures stand beside the base's."""
    pairs: tuple[Pair, ...]
    result: tuple[Evidence, ...]
    verdicts: tuple[Verdict, ...]
    recommendation: Recommendation
    scores: tuple[Score, ...]
    """Of the shown checkpoint."""
    left_out: Rows
    """What could not be measured, and why."""
    beside: Beside | None
    by_timestep: Mapping[str, Mapping[str, Sequence[float]]]
    drift: Mapping[str, Mapping[str, float]]
    steps: tuple[tuple[int, float, float], ...]
    """Of each step that was taken: its number, loss and learning rate."""
    seconds: float
    """That the steps took."""
    pictures: tuple[Image, ...]
    """Some of those that were learned from."""
    ledger: Rows
    settings: Rows
    environment: Rows


def render(page: Page) -> str:
    """Returns the page as HTML."""
    title = "What the training changed"
    about = f"{page.model}, before and after the run {page.run}: the same prompts, the same noise."
    parts = [
        header(title, about),
        _verdict(page),
        _numbers(page),
        *_sections(page),
        _scores(page),
        _copies(page.beside, among=_among(page)),
        _timesteps(page),
        learned_from(page.ledger, page.pictures),
        _training(page),
    ]
    return document(title, parts, css=_CSS + PLOT_CSS)


# ------------------------------------------------------------------------------------------------------------ numbers
def _verdict(page: Page) -> str:
    best = page.recommendation
    keep = f"step {best.step}" if best.step is not None else "the base model"
    return (
        f'<section class="verdict"><h2>Keep {keep}: {escape(best.verdict.name)}</h2>'
        f"<p>{escape(best.reason)}.</p><p>Why: {escape(best.verdict.reason)}.</p><p>{escape(best.verdict.advice)}</p>"
        "</section>"
    )


def _numbers(page: Page) -> str:
    head = (
        "<thead><tr>"
        + "".join(
            f'<th scope="col">{name}</th>'
            for name in ("checkpoint", "loss, learned from", "loss, held out", "worth of a caption", "which means")
        )
        + "</tr></thead>"
    )
    rows = "".join(
        f'<tr><th scope="row">step {one.step}</th>{_cell(one.learned)}{_cell(one.held_out)}{_worth(one.worth)}'
        f"<td><strong>{escape(verdict.name)}</strong></td></tr>"
        for one, verdict in zip(page.result, page.verdicts, strict=True)
    )
    first = page.result[0]
    counts = f"{first.learned.pictures} pictures that it learned from"
    counts += f" and {first.held_out.pictures} that were held out" if first.held_out else "; none was held out"
    return (
        f'<section class="wide"><h2>The numbers</h2><p>The denoising loss on {counts}, with the same noise and '
        "timesteps for every model. The worth of a caption is by how much a picture's own caption lowers its loss "
        "against the caption of another picture. Losses are shown as changes from the base model; the numbers behind "
        "each are its 95 % interval (bootstrap over pictures).</p>"
        f'<div class="scroll"><table class="numbers stacked">{head}<tbody>{rows}</tbody>'
        f"</table></div>{loss_plot(page.result)}</section>"
    )


def _cell(compared: Compared | None) -> str:
    if compared is None:
        return '<td><span class="small">not measured</span></td>'
    change = compared.change
    noise = '<span class="small">within the noise</span>' if change.within_noise else ""
    return (
        f"<td><strong>{change.value:+.4f}</strong> <span>{change.low:+.4f} to {change.high:+.4f}</span>"
        f'<span class="small">{compared.base:.4f} before, {compared.tuned:.4f} after</span>{noise}</td>'
    )


def _worth(worth: Worth | None) -> str:
    if worth is None:
        return '<td><span class="small">not measured: all captions are the same</span></td>'
    value, low, high = worth.tuned
    nothing = "" if worth.shown else '<span class="small">not above 0 beyond the noise</span>'
    return (
        f"<td><strong>{value:.4f}</strong> <span>{low:.4f} to {high:.4f}</span>"
        f'<span class="small">{worth.base[0]:.4f} before; pictures: {escape(worth.part)}</span>{nothing}</td>'
    )


def _scores(page: Page) -> str:
    """Returns what networks see in the pictures, and what could not be measured."""
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("what", "pictures", "the base model", f"step {page.shown}", "change, 95 % interval")
    )
    body = "".join(
        f'<tr><th scope="rowgroup" colspan="5">{escape(encoder)}, {escape(prompts)}</th></tr>'
        + "".join(
            f'<tr><th scope="row">{escape(one.metric)}</th><td>{one.pictures}</td><td>{one.base:.3f}</td>'
            f"<td>{one.tuned:.3f}</td>{_change(one.change)}</tr>"
            for one in rows
        )
        for (encoder, prompts), rows in groupby(page.scores, key=lambda one: (one.encoder, one.prompts))
    )
    measured = (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        if page.scores
        else ""
    )
    missing = "".join(f"<li>{escape(what)}: {escape(why)}</li>" for what, why in page.left_out)
    why = f'<h3 class="without">Not measured</h3><ul class="small">{missing}</ul>' if missing else ""
    return (
        '<section class="wide"><h2>What networks see in the pictures</h2><p>Pairs of pictures from the same noise; the '
        "interval is that of the change, and takes the pictures to be independent. With pictures of other prompts, "
        "likeness to the training pictures that rises is a leak: the training shows uncalled.</p>"
        f"{measured}{why}</section>"
    )


def _change(change: Change) -> str:
    noise = '<span class="small">within the noise</span>' if change.within_noise else ""
    return f"<td><strong>{change.value:+.3f}</strong> <span>{change.low:+.3f} to {change.high:+.3f}</span>{noise}</td>"


def _copies(beside: Beside | None, *, among: int) -> str:
    """Returns the drawn pictures that are nearest to one that was learned from, each beside it."""
    if beside is None:
        return ""
    articles = "".join(
        '<article class="twin"><div>'
        + "".join(
            f'<img src="{shown(image, side=SIDE // 2, among=among)}" width="{image.width}" height="{image.height}" '
            f'alt="{text}">'
            for image, text in ((own, "Drawn"), (other, "Learned from"))
        )
        + f'</div><p class="small">{likeness:.3f}{": a copy" if copy else ""}</p></article>'
        for own, other, likeness, copy in beside.rows
    )
    return (
        '<section class="wide"><h2>Learned by heart?</h2><p>Drawn (left) and the nearest picture that was learned from '
        f"(right), the nearest pairs first, by {escape(beside.encoder)}. Above a likeness of {beside.threshold:.3f} a "
        f"picture is called a copy: so near to them came none of {escape(beside.taken_from)}.</p>"
        f'<div class="pairs">{articles}</div></section>'
    )


def _timesteps(page: Page) -> str:
    """Returns the losses of equal parts of the timesteps as a table: a row for each model and part of the pictures."""
    parts = len(next(iter(next(iter(page.by_timestep.values())).values())))
    head = "".join(f'<th scope="col">{number + 1} of {parts}</th>' for number in range(parts))
    rows = "".join(
        f'<tr><th scope="row">{_called(name)}, {part}</th>'
        + "".join(f"<td>{loss:.4f}</td>" for loss in of[part])
        + "</tr>"
        for part in (LEARNED, HELD_OUT)
        for name, of in page.by_timestep.items()
        if part in of
    )
    return (
        "<section><h2>Loss by noise</h2><p>The least noisy part of the timesteps is the first: there the texture is "
        "settled, in the last the layout.</p>"
        f'<div class="scroll"><table class="numbers"><thead><tr><th scope="col">model, pictures</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _called(name: str) -> str:
    """Returns 'step 30' for 'step_000030', and the base as it is."""
    kind, _, step = name.partition("_")
    return f"{kind} {int(step)}" if step else escape(name)


# ----------------------------------------------------------------------------------------------------------- pictures
def _sections(page: Page) -> list[str]:
    moved = page.drift[f"step_{page.shown:06d}"]
    sections = []
    for group, pairs in groupby(page.pairs, key=lambda pair: pair.group):
        articles = "".join(_pair(pair, page.shown, among=_among(page)) for pair in pairs)
        sections.append(
            f'<section class="wide"><h2>{escape(GROUPS[group])}</h2><p>Pixels moved by {100 * moved[group]:.1f} % of '
            f'their range, on average.</p><div class="pairs">{articles}</div></section>'
        )
    return sections


def _among(page: Page) -> int:
    """Returns how many pictures share the page."""
    return 2 * (len(page.pairs) + (0 if page.beside is None else len(page.beside.rows)))


def _pair(pair: Pair, step: int, *, among: int) -> str:
    """Returns a prompt's two pictures on each other; the slider says how much of the later one is seen."""
    alternatives = [f"{when}, for: {pair.prompt}" for when in ("The base model", f"Step {step}")]
    before, after = (
        f'<img class="{name}" src="{shown(image, side=SIDE, among=among)}" width="{image.width}" '
        f'height="{image.height}" alt="{escape(text)}">'
        for name, image, text in zip(("before", "after"), (pair.before, pair.after), alternatives, strict=True)
    )
    label = escape(f"How much of step {step} is seen, for: {pair.prompt}")
    return (
        f'<article><h3>{escape(pair.prompt)}</h3><div class="slider">{before}{after}'
        f'<input type="range" min="0" max="100" value="50" autocomplete="off" aria-label="{label}" '
        "oninput=\"this.parentNode.style.setProperty('--seen',this.value+'%')\"></div>"
        f'<p class="ends"><span>step {step}</span><span class="seed">seed {pair.seed}</span><span>base</span></p>'
        "</article>"
    )


# ------------------------------------------------------------------------------------------------------------- the run
def _training(page: Page) -> str:
    taken = [("steps", f"{len(page.steps):,} in {duration(page.seconds)}")]
    curves = ""
    if page.steps:
        curves = loss_curve([loss for _, loss, _ in page.steps])
        curves += rate_plot([(step, rate) for step, _, rate in page.steps])
        taken.append(
            ("learning rate", f"{max(lr for _, _, lr in page.steps):.2g} at most, {page.steps[-1][2]:.2g} last")
        )
    return f"<section><h2>The training</h2>{curves}{table([*taken, *page.settings, *page.environment])}</section>"


def duration(seconds: float) -> str:
    """Returns '90 s', '34 min' or '2 h 5 min'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


_CSS = """
.verdict{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--accent);border-radius:12px;
margin-top:1.8em;padding:1.1em 1.3em}
.verdict h2{font-size:1.7rem;line-height:1.2;margin:0 0 .4em}
.verdict p{margin:.3em 0}
.numbers td{white-space:nowrap;font-variant-numeric:tabular-nums}
.numbers th{white-space:nowrap}
.numbers td .small{display:block}
.without{margin-top:1.4em}
.twin div{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.twin img{display:block;width:100%;height:auto;border-radius:6px}
.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,280px),1fr))}
.pairs article{display:flex;flex-direction:column}
.slider{--seen:50%;position:relative;margin-top:auto;line-height:0;border-radius:8px;overflow:hidden;
background:var(--tint)}
.slider img{display:block;width:100%;height:auto}
.slider .after{position:absolute;inset:0;clip-path:inset(0 calc(100% - var(--seen)) 0 0)}
.slider::before,.slider::after{content:"";position:absolute;z-index:1;left:var(--seen);background:#fff;
box-shadow:0 0 4px #000a;pointer-events:none}
.slider::before{top:0;bottom:0;width:2px;margin-left:-1px}
.slider::after{content:"\\2039\\2002\\203a";top:50%;width:32px;height:32px;margin:-16px;border-radius:50%;
font:700 18px/28px sans-serif;text-align:center;color:#23201b}
.slider input{position:absolute;z-index:2;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize;
touch-action:pan-y}
.slider:focus-within{outline:3px solid var(--accent);outline-offset:2px}
.ends{display:flex;justify-content:space-between;gap:1em;margin:.5em 0 0;font-size:.85rem;font-weight:600}
.seed{font-weight:400;color:var(--soft)}
@media(max-width:600px){.stacked thead{display:none}.stacked tr,.stacked th,.stacked td{display:block;border:0;
padding:.15em 0;white-space:normal}.stacked tr{border-bottom:1px solid var(--line);padding:.7em 0}
.stacked tbody th{color:var(--ink);font-weight:600}.stacked td::before{color:var(--soft)}
.stacked td:nth-of-type(1)::before{content:"learned from: "}.stacked td:nth-of-type(2)::before{content:"held out: "}
.stacked td:nth-of-type(3)::before{content:"worth of a caption: "}
.stacked td:nth-of-type(4)::before{content:"which means: "}}
"""

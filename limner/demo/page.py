"""The demo's page: one HTML file with its pictures inside, which needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from limner.builtin.scoring import Share
from limner.demo.judging import Goal, Judged
from limner.page import Rows, commands, document, header, learned_from, loss_curve, shown, table

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 512
"""Pixels of the longer side of a large picture on the page; the whole one lies beside it."""


@dataclass(frozen=True)
class Pair:
    """One prompt and its two pictures, of the same seed."""

    section: str
    """Under which heading it stands; pairs of one section follow each other."""
    prompt: str
    seed: int
    before: Image
    after: Image
    judged: tuple[Judged, Judged] | None = None
    """What the judge says about each; None where no judge knows the pictures."""


@dataclass(frozen=True)
class Measure:
    """One number of the base model's pictures and of the tuned model's."""

    name: str
    before: Share
    after: Share
    goal: Goal | None = None


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    title: str
    about: str
    pairs: tuple[Pair, ...]
    measures: tuple[Measure, ...]
    """Empty where no judge knows the pictures; the page says so."""
    pictures: tuple[Image, ...]
    """Those that the model learned from."""
    ledger: Rows
    losses: tuple[float, ...]
    """Of each step."""
    settings: Rows
    files: Rows
    commands: Rows
    """What each is for, and the command."""


def render(page: Page) -> str:
    """Returns the page as HTML."""
    parts = [
        header(page.title, page.about),
        _measured(page.measures),
        learned_from(page.ledger, page.pictures),
        *_sections(page.pairs),
        _training(page),
        _next(page),
    ]
    return document(page.title, parts, css=_CSS)


# -------------------------------------------------------------------------------------------------------- the numbers
def percent(share: Share) -> str:
    """Returns a share rounded to whole percent; never 0 % or 100 % for what is not."""
    rounded = round(100 * share.value)
    if 0 < share.right < share.asked:
        rounded = min(99, max(1, rounded))
    return f"{rounded} %"


def in_words(share: Share) -> str:
    """Returns a share's counts and its interval."""
    low, high = share.interval()
    return f"{share.right} of {share.asked}; 95 % interval: {100 * low:.0f} to {100 * high:.0f} %"


def _measured(measures: Sequence[Measure]) -> str:
    if not measures:
        return (
            "<section><h2>No numbers here</h2><p>The built-in judge reads only the pictures that the built-in model "
            "was made for. Nobody has judged these: look for yourself.</p></section>"
        )
    rows = "".join(
        f'<tr><th scope="row">{escape(measure.name)}</th>{_cell(measure.before)}{_cell(measure.after)}'
        f"<td>{_goal(measure)}</td></tr>"
        for measure in measures
    )
    return (
        "<section><h2>What changed</h2><p>A small network, trained on drawings with known contents and on nothing that "
        "a model drew, reads each picture below. What it does not see is not there. "
        "The thin line below a bar is the 95 % interval.</p>"
        '<div class="scroll"><table class="measures"><thead><tr><th scope="col">what the judge sees</th>'
        '<th scope="col">before</th><th scope="col">after</th><th scope="col">goal</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _cell(share: Share) -> str:
    low, high = share.interval()
    bar = (
        f'<span class="bar" aria-hidden="true"><i style="width:{100 * share.value:.1f}%"></i>'
        f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b></span>'
    )
    words = "".join(f"<span>{part}</span> " for part in in_words(share).split("; "))
    return f'<td><strong>{percent(share)}</strong>{bar}<span class="small">{words}</span></td>'


def _goal(measure: Measure) -> str:
    if measure.goal is None:
        return '<span class="small">none set</span>'
    reached = measure.goal.reached(measure.before, measure.after)
    return _mark(reached, measure.goal.text(), "reached: ", "not reached: ")


def _mark(right: bool, text: str, yes: str, no: str) -> str:
    """Returns a text behind a tick or a cross; who does not see the sign reads ``yes`` or ``no``."""
    sign, said, kind = ("✓", yes, "right") if right else ("✗", no, "wrong")
    return (
        f'<span class="{kind}"><span class="sign" aria-hidden="true">{sign}</span>'
        f'<span class="said">{said}</span>{escape(text)}</span>'
    )


# ------------------------------------------------------------------------------------------------------- the pictures
def _sections(pairs: Sequence[Pair]) -> list[str]:
    among = 2 * len(pairs)
    return [
        f'<section class="wide"><h2>{escape(name)}</h2><div class="pairs">'
        f"{''.join(_pair(pair, among) for pair in group)}</div></section>"
        for name, group in groupby(pairs, key=lambda pair: pair.section)
    ]


def _pair(pair: Pair, among: int) -> str:
    before, after = pair.judged or (None, None)
    return (
        f'<article><h3>{escape(pair.prompt)}</h3><div class="two">'
        f"{_figure('before', pair.before, pair.prompt, before, among)}"
        f"{_figure('after', pair.after, pair.prompt, after, among)}"
        f'</div><p class="small">seed {pair.seed}</p></article>'
    )


def _figure(when: str, image: Image, prompt: str, judged: Judged | None, among: int) -> str:
    said = ""
    if judged is not None:
        marks = "".join(f"<li>{_mark(v.right, v.text, 'right: ', 'wrong: ')}</li>" for v in judged.verdicts)
        said = f'<ul>{marks}</ul><p class="small">Seen: {escape(judged.seen)}</p>'
    alternative = f"{when} the training, for: {prompt}"
    return (
        f'<figure class="{when}"><img src="{shown(image, side=_SIDE, among=among)}" width="{image.width}" '
        f'height="{image.height}" alt="{escape(alternative)}">'
        f'<figcaption><span class="tag">{when}</span>{said}</figcaption></figure>'
    )


# ----------------------------------------------------------------------------------------------- the run and the rest
def _training(page: Page) -> str:
    return f"<section><h2>The training</h2>{loss_curve(page.losses)}{table(page.settings)}</section>"


def _next(page: Page) -> str:
    return (
        f"<section><h2>Next, with your own pictures</h2>{commands(page.commands)}</section>"
        f"<section><h2>The files</h2>{table(page.files)}</section>"
    )


_CSS = """
.measures tbody th{color:var(--ink);font-weight:600;white-space:normal}
.measures strong{font-size:1.5rem;font-variant-numeric:tabular-nums}
.measures .small{display:block}
.measures .small span{display:block}
.bar{display:block;position:relative;height:14px;margin:.2em 0;
background:linear-gradient(var(--tint) 8px,transparent 0)}
.bar i,.bar b{position:absolute}
.bar i{left:0;top:0;height:8px;background:var(--bar)}
.bar b{bottom:0;height:3px;background:var(--soft)}
.after .tag{color:var(--accent)}
@media(max-width:600px){.measures thead{display:none}.measures tr,.measures th,.measures td{display:block;border:0;
padding:.15em 0}.measures tr{border-bottom:1px solid var(--line);padding:.7em 0}
.measures td:nth-of-type(1)::before{content:"before "}.measures td:nth-of-type(2)::before{content:"after "}
.measures td:nth-of-type(3)::before{content:"goal "}}
"""

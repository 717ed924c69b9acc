"""A study as Markdown: the table, what was asked for, the plot; and the page that it is written into."""

from __future__ import annotations

import math

from limner.builtin.scoring import Share
from limner.study.diversity import Estimate
from limner.study.grid import Measure, Study
from limner.study.running import Measured, Row

NAMES: dict[Measure, str] = {"recognised": "recognised", "diversity": "class diversity"}


def label(row: Row, study: Study) -> str:
    """Returns the row's name, with its steps where the setting was measured at several."""
    several = any(setting.name == row.name and len(setting.steps) > 1 for setting in study.settings)
    return f"{row.name}, {row.steps} steps" if several else row.name


# ---------------------------------------------------------------------------------------------------------- the page
def markers(study: str) -> tuple[str, str]:
    """Returns the lines between which a study's table stands in a page."""
    return f"<!-- study {study}: begin -->", f"<!-- study {study}: end -->"


# ---------------------------------------------------------------------------------------------------------- the text
def as_markdown(measured: Measured, plot: str) -> str:
    """Returns the table and what has to be said about it; ``plot`` is the picture's address."""
    study, conditions = measured.study, measured.conditions
    each, seeds = conditions.prompts, conditions.seeds
    lines = [
        f"`python -m limner.builtin_study {study.name} --model {measured.model} --prompts {each} --seeds {seeds}`",
        "",
        f"**{study.title}.** {_conditions(measured)}",
        "",
        "| | steps | recognised | things right | in their colours | background right | class drawn | class drift "
        "| class diversity | numbers trained | file, MB | training, s |",
        "| --- |" + " ---: |" * 11,
        *(_line(row) for row in measured.rows),
        "",
        *_bars(measured),
        *_cut(measured),
        _meaning(measured),
        "",
        f"![{study.title}: {', '.join(NAMES.values())} and class drift]({plot})",
        "",
    ]
    return "\n".join(lines)


def _conditions(measured: Measured) -> str:
    conditions = measured.conditions
    pictures = measured.rows[0].numbers.pictures
    return (
        f"Batches of {conditions.batch_size}, AdamW, a constant rate after {conditions.warmup_steps} steps of warm-up. "
        f"Of each row {pictures:,} pictures were judged: {conditions.prompts} prompts for new scenes and "
        f"{conditions.prompts} class prompts, {conditions.seeds} seeds each, {conditions.drawing_steps} denoising "
        f"steps, guidance {conditions.guidance:g}; prompts and noise are the same in all rows."
    )


def _line(row: Row) -> str:
    found, trained = row.numbers, row.trained
    shares = (found.recognised, found.things, found.colours, found.background, found.class_drawn, found.drift)
    cost = ("", "", "")
    if trained is not None:
        cost = (f"{trained.numbers:,}", f"{trained.bytes / 1e6:.3f}", f"{trained.seconds:.0f}")
    cells = (row.name, str(row.steps), *map(share_text, shares), diversity_text(row), *cost)
    return f"| {' | '.join(cells)} |"


def share_text(share: Share) -> str:
    """Returns a share with its interval."""
    low, high = share.interval()
    return f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def diversity_text(row: Row) -> str:
    """Returns a row's diversity as a share of the base model's; the base model's own is told as what it is."""
    own = row.numbers.diversity
    if own is None:
        return "not measured: one seed"
    if row.trained is None:
        return f"{sum(own) / len(own):.3f}, the measure of the others"
    if row.diversity is None:
        return "none to compare with"
    return estimate_text(row.diversity)


def estimate_text(estimate: Estimate) -> str:
    """Returns a ratio in percent with its interval."""
    high = "no bound" if math.isinf(estimate.high) else f"{100 * estimate.high:.1f}"
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {high})"


def value_of(row: Row, measure: Measure) -> float | None:
    """Returns the number that a bar is set for; None where it was not measured."""
    if measure == "recognised":
        return row.numbers.recognised.value
    return None if row.diversity is None else row.diversity.value


def reaching(measured: Measured) -> list[Row]:
    """Returns the trained rows that reach every bar of the study."""
    return [
        row
        for row in measured.rows
        if row.trained is not None
        and all(
            (value := value_of(row, bar)) is not None and value >= least for bar, least in measured.study.bars.items()
        )
    ]


def _bars(measured: Measured) -> list[str]:
    bars = measured.study.bars
    if not bars:
        return []
    asked = " and ".join(f"{NAMES[name]} at least {100 * least:g} %" for name, least in bars.items())
    found = [label(row, measured.study) for row in reaching(measured)]
    return [f"Asked for before anything was measured: {asked}. Reached by: {'; '.join(found) or 'none'}.", ""]


def _cut(measured: Measured) -> list[str]:
    if not measured.cut_prompts:
        return []
    return [f"{measured.cut_prompts} prompts are longer than the model reads; their ends had no effect.", ""]


def _meaning(measured: Measured) -> str:
    taught = "the character" if measured.study.lesson == "sitter" else "the style"
    return (
        f"*Recognised*: the judge sees {taught} in a picture that asks for it. *Class drawn* and *class drift*: of the "
        f"pictures of class prompts, those that show a member of the class, and those that show {taught} although it "
        "was not asked for. *Class diversity*: the mean distance of pictures of one class prompt (colours, place, "
        "background, style; 0 where no member is seen) as a share of the base model's. In brackets: 95 % intervals, "
        "Wilson's for shares, by bootstrap over the prompts for diversity. Pictures of one prompt are not independent, "
        "so the intervals of shares are a little too narrow. *Training* is the time of the steps alone."
    )

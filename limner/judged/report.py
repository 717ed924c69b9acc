"""The report: tables and contact sheet, written into a page."""

from __future__ import annotations

import io
from pathlib import Path

from limner.builtin.scoring import Share
from limner.core.markers import around
from limner.core.rundir import write_atomic
from limner.judged.contact_sheet import contact_sheet
from limner.judged.measuring import BARS, COUNT, Bar, Measured

PAGE, SHEET = "builtin.md", "images/builtin.png"
LEAST_R1 = 0.90
"""The bar of retrieval, for 1,000 pictures."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_report(measured: Measured, folder: Path) -> tuple[Path, Path]:
    """Writes table and contact sheet below ``folder`` and returns their paths.

    Of a page that is there only what stands between the two markers is replaced.
    """
    page, sheet = folder / PAGE, folder / SHEET
    before, after = around_numbers(page)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    contact_sheet(measured.samples).save(data, "PNG", optimize=True)
    write_atomic(sheet, data.getvalue())
    write_atomic(page, f"{before}{BEGIN}\n{as_markdown(measured)}{END}{after}".encode())
    return page, sheet


def around_numbers(page: Path) -> tuple[str, str]:
    """Returns what stands before and after the markers, of a page not yet there nothing but a line end."""
    return around(page, BEGIN, END) if page.exists() else ("", "\n")


def as_markdown(measured: Measured) -> str:
    """Returns the tables and the picture as Markdown."""
    trial = "" if measured.count == COUNT else f" This is a trial: the bars are for {COUNT:,} captions."
    cut = (
        f"\n{measured.cut_captions:,} captions are longer than the model reads; their ends had no effect.\n"
        if measured.cut_captions
        else ""
    )
    rows = "\n".join(_row(bar, measured.generated.share(bar.aspect)) for bar in BARS)
    kept = "\n".join(
        _row_of_autoencoder(bar, measured.originals.share(bar.aspect), measured.reconstructed.share(bar.aspect))
        for bar in BARS
    )
    text = f"""\
`python -m limner.builtin_report {measured.model} --count {measured.count} --seed {measured.seed} \
--steps {measured.steps} --guidance {measured.guidance:g}`

**The model**, on {measured.count:,} captions of held-out scenes.{trial}

| in the pictures | bar | right | 95 % interval | asked for | reached |
| --- | --- | --- | --- | --- | --- |
{rows}
{cut}
One picture takes {measured.seconds:.2f} s: the median, one at a time, {measured.steps} steps with guidance, on the CPU
with {_number_of(measured.threads, "thread")} ({measured.machine}).

**The autoencoder and the judge**, on the pictures that the world itself draws of the same scenes. The first column is
what the judge makes of the truth: what it misses there is the judge's mistake. The second is the same pictures after
the autoencoder, which come back with {measured.decibels:.1f} dB (PSNR, mean over the pictures, 8-bit values).

| in the pictures | originals | after the autoencoder | difference, points |
| --- | --- | --- | --- |
{kept}
{_of_retrieval(measured)}
![The first {_number_of(len(measured.samples), "generated picture")} of the row with their captions]({SHEET})

*The first {_number_of(len(measured.samples), "picture")} of the row, none left out. What is wrong by the judge has a
red frame and says what.*
"""
    return text


def _of_retrieval(measured: Measured) -> str:
    """Returns the table of the dual encoder, or nothing where there is none."""
    found = measured.retrieval
    if found is None:
        return ""
    rows = "\n".join(
        f"| {number.name} | {LEAST_R1:.0%} | {number.value:.1%} | {number.low:.1%} to {number.high:.1%} |"
        for number in found.numbers
        if "R@1" in number.name.split(",")[0].split()
    )
    return f"""
**The dual encoder**, whose text half is the model's text encoder, on {found.pictures:,} held-out pictures that a
caption tells from each other, with one caption each. Right is only the picture, or the caption, that belongs to it.

| found first | bar | right | 95 % interval |
| --- | --- | --- | --- |
{rows}
"""


def _row(bar: Bar, share: Share | None) -> str:
    least = "none" if bar.least is None else f"{bar.least:.0%}"
    if share is None:
        return f"| {bar.name} | {least} | not asked | | 0 | |"
    low, high = share.interval()
    return (
        f"| {bar.name} | {least} | {share.value:.1%} | {low:.1%} to {high:.1%} | {share.asked:,} "
        f"| {reached(bar.least, share)} |"
    )


def reached(least: float | None, share: Share) -> str:
    """Returns in words whether the share reaches the bar, and whether chance may have decided it."""
    if least is None:
        return "no bar"
    low, high = share.interval()
    if share.value >= least:
        return "yes" if low >= least else "yes, but so narrowly that it may be chance"
    return "no" if high < least else "no, but so narrowly that it may be chance"


def _row_of_autoencoder(bar: Bar, original: Share | None, again: Share | None) -> str:
    if original is None or again is None:
        return f"| {bar.name} | not asked | | |"
    return f"| {bar.name} | {original.value:.1%} | {again.value:.1%} | {100 * (again.value - original.value):+.1f} |"


def _number_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

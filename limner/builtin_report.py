"""How right the built-in model is: drawn from captions of scenes it never saw, read by the judge, told in a table.

    python -m limner.builtin_report MODEL

draws a picture for each of 1,000 captions, measures the autoencoder on the pictures of the same scenes, and writes the
table into docs/builtin.md and the first pictures, right or wrong, into docs/images/builtin.png.
"""

from __future__ import annotations

import argparse
import io
import math
import platform
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.scoring import Aspect, Score, Share, Tally, score
from limner.builtin.world import SIDE, Scene, caption, draw, scene_at
from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.naming import public_name
from limner.core.rng import stream
from limner.core.rundir import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.builtin.judge import Judge
    from limner.models.sd1 import SD1Model

COUNT, SEED, STEPS, GUIDANCE = 1000, 0, 20, 5.0
BATCH = 32
TIMED = 9
"""Pictures that are drawn one by one, to tell how long one takes."""
COLUMNS, ROWS = 8, 6
PAGE, SHEET = "builtin.md", "images/builtin.png"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

OnProgress = Callable[[str, int, int], None]


# ------------------------------------------------------------------------------------------------------ what is asked
@dataclass(frozen=True)
class Bar:
    """A row of the table, and the least share that was asked for before anything was measured."""

    aspect: Aspect
    name: str
    least: float | None
    """None: measured too, but no bar was set."""


BARS = (
    Bar("thing", "each thing is there", 0.95),
    Bar("colour", "each thing is there in its colour", 0.95),
    Bar("background", "background", 0.95),
    Bar("count", "number of things", 0.90),
    Bar("both", "two differing things, each in its colour, nothing else", 0.85),
    Bar("relation", "left of, right of, above, below", 0.80),
    Bar("style", "style", None),
    Bar("everything", "everything at once", None),
)


# ---------------------------------------------------------------------------------------------------------- measuring
@dataclass(frozen=True)
class Sample:
    """A generated picture for the contact sheet."""

    caption: str
    image: Image
    wrong: tuple[Aspect, ...]


@dataclass(frozen=True)
class Measured:
    """Everything that the report tells."""

    model: str
    count: int
    seed: int
    steps: int
    guidance: float
    generated: Tally
    originals: Tally
    """The pictures that the world itself draws of the same scenes: what the judge makes of the truth."""
    reconstructed: Tally
    """Those pictures after the autoencoder."""
    decibels: float
    """Mean peak signal-to-noise ratio of the reconstructions."""
    seconds: float
    """Median time of one picture, drawn by itself, from caption to pixels."""
    threads: int
    machine: str
    cut_captions: int
    """Captions of which the text encoder did not read the end."""
    samples: tuple[Sample, ...]
    """The first pictures of the row, right and wrong."""


def measure(
    model: str | Path,
    *,
    judge: Judge,
    count: int = COUNT,
    seed: int = SEED,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_progress: OnProgress | None = None,
) -> Measured:
    """Draws a picture for each of ``count`` captions of held-out scenes on the CPU, and scores what the judge sees."""
    import torch

    from limner.models.sd1 import SD1

    if count < 1:
        raise UserError(f"{count} is less than 1.", where="--count", fix="The bars are for 1000.")
    tell = on_progress or (lambda stage, done, total: None)
    loaded = validate(SD1, {"path": str(model)}, where="MODEL").load()
    if loaded.default_size != SIDE:
        raise UserError(
            f"it draws {loaded.default_size} pixels a side, and the judge reads {SIDE}.",
            where=str(model),
            fix="Name a model that was trained on the picture world.",
        )
    drawn = Drawn(loaded, count, seed, steps, guidance)
    seconds, drawn.cut_captions = drawn.seconds(), 0
    samples: list[Sample] = []
    generated = Tally()
    for position, (image, one) in enumerate(drawn.judged(judge, tell)):
        generated.add(one)
        if len(samples) < COLUMNS * ROWS:
            samples.append(Sample(drawn.captions[position], image, one.wrong()))
    originals, reconstructed, decibels = _autoencoder(loaded, judge, drawn.scenes, tell)
    return Measured(
        model=public_name(loaded.source.name),
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        generated=generated,
        originals=originals,
        reconstructed=reconstructed,
        decibels=decibels,
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=f"{platform.machine()}, PyTorch {torch.__version__}",
        cut_captions=drawn.cut_captions,
        samples=tuple(samples),
    )


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _scores(judge: Judge, scenes: Sequence[Scene], images: Sequence[Image]) -> list[Score]:
    return [score(scene, reading) for scene, reading in zip(scenes, judge.read(images), strict=True)]


class Drawn:
    """The pictures that a model draws of the captions of held-out scenes, and what the judge sees in them.

    Picture k has caption k of ``seed`` and a noise of its own, ``seed`` + k, so it is the same whatever the count.
    """

    def __init__(self, model: SD1Model, count: int, seed: int, steps: int, guidance: float) -> None:
        self.scenes = [scene_at(seed, position, split="test") for position in range(count)]
        self.captions = [
            caption(scene, stream(seed, position, "caption to measure"), complete=True)
            for position, scene in enumerate(self.scenes)
        ]
        self.cut_captions = 0
        """Captions of which the text encoder did not read the end, of all pictures that were drawn."""
        self._model, self._seed, self._steps, self._guidance = model, seed, steps, guidance

    def judged(self, judge: Judge, tell: OnProgress) -> Iterator[tuple[Image, Score]]:
        """Yields each picture, in order, with its score."""
        for batch in _batches(len(self.scenes)):
            images = self.pictures(batch)
            yield from zip(images, _scores(judge, self.scenes[batch.start : batch.stop], images), strict=True)
            tell("captions drawn", batch.stop, len(self.scenes))

    def pictures(self, batch: range) -> list[Image]:
        """Returns the pictures of these captions, drawn at once."""
        from limner.evaluation.generate import GenerateRequest, generate

        request = GenerateRequest(
            prompts=tuple(self.captions[position] for position in batch),
            seed=self._seed + batch.start,
            spread=True,
            steps=self._steps,
            guidance=self._guidance,
        )
        drawn = list(generate(self._model, request, batch_size=len(batch)))
        self.cut_captions += sum(bool(picture.warnings) for picture in drawn)
        return [picture.image for picture in drawn]

    def seconds(self) -> float:
        """Returns the median time of a few pictures drawn one by one, from caption to pixels."""
        times = []
        for position in range(min(TIMED, len(self.captions))):
            begun = time.perf_counter()
            self.pictures(range(position, position + 1))
            times.append(time.perf_counter() - begun)
        return statistics.median(times)


def _autoencoder(
    model: SD1Model, judge: Judge, scenes: Sequence[Scene], tell: OnProgress
) -> tuple[Tally, Tally, float]:
    """Returns the scores of the scenes' own pictures and of their reconstructions, and the mean ratio in decibels."""
    originals, reconstructed, decibels = Tally(), Tally(), 0.0
    for batch in _batches(len(scenes)):
        here = [scenes[position] for position in batch]
        images = [draw(scene) for scene in here]
        again = reconstruct(model, images)
        for tally, pictures in ((originals, images), (reconstructed, again)):
            for one in _scores(judge, here, pictures):
                tally.add(one)
        decibels += sum(peak_signal_to_noise(*pair) for pair in zip(images, again, strict=True))
        tell("originals and reconstructions read", batch.stop, len(scenes))
    return originals, reconstructed, decibels / len(scenes)


def reconstruct(model: SD1Model, images: Sequence[Image]) -> list[Image]:
    """Returns the pictures encoded to the posterior's mean and decoded, rounded to 8 bits a colour."""
    import torch
    from PIL import Image as PillowImage

    from limner.data.buckets import Placement
    from limner.data.image import to_pixels

    whole = [Placement(image.size, (0, 0, *image.size), flip=False) for image in images]
    pixels = torch.stack([to_pixels(image, placement) for image, placement in zip(images, whole, strict=True)])
    moments = model.encode_images(pixels)
    decoded = model.decode_latents(model.sample_latents(moments, torch.zeros_like(moments.chunk(2, dim=1)[0])))
    if not bool(torch.isfinite(decoded).all()):
        raise UserError("a reconstruction is not finite (NaN).", where="vae", fix="The autoencoder is damaged.")
    levels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [PillowImage.fromarray(one.permute(1, 2, 0).contiguous().cpu().numpy()) for one in levels]


def peak_signal_to_noise(first: Image, second: Image) -> float:
    """Returns 10 log10(255^2 / mean squared difference) of two pictures' 8-bit values, in decibels."""
    import numpy as np

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean_square = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / mean_square) if mean_square else math.inf


# ------------------------------------------------------------------------------------------------------------- telling
def write_report(measured: Measured, folder: Path) -> tuple[Path, Path]:
    """Writes table and contact sheet below ``folder`` and returns their paths.

    Of a page that is there only what stands between the two markers is replaced.
    """
    page, sheet = folder / PAGE, folder / SHEET
    before, after = _around_markers(page)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    contact_sheet(measured.samples).save(data, "PNG", optimize=True)
    write_atomic(sheet, data.getvalue())
    write_atomic(page, f"{before}{BEGIN}\n{as_markdown(measured)}{END}{after}".encode())
    return page, sheet


def _around_markers(page: Path) -> tuple[str, str]:
    """Returns what stands before and after the markers, of a page not yet there nothing but a line end."""
    if not page.exists():
        return "", "\n"
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f"does not hold {BEGIN} and then {END}, each once.",
            where=str(page),
            fix="Put them back, each on a line of its own, or choose another folder with --out.",
        )
    return text[: text.index(BEGIN)], text[text.index(END) + len(END) :]


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

![The first {_number_of(len(measured.samples), "generated picture")} of the row with their captions]({SHEET})

*The first {_number_of(len(measured.samples), "picture")} of the row, none left out. What is wrong by the judge has a
red frame and says what.*
"""
    return text


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


# ------------------------------------------------------------------------------------------------- the contact sheet
RED, GREY, INK = (214, 32, 40), (216, 216, 216), (32, 32, 32)
GAP, FRAME, FONT_PIXELS, LINE_PIXELS, LETTERS = 10, 4, 10, 12, 26


def contact_sheet(samples: Sequence[Sample]) -> Image:
    """Returns the pictures in rows of eight, each over its caption; a wrong one is framed in red and says what."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_PIXELS)
    written = [_lines(sample) for sample in samples]
    framed = SIDE + 2 * FRAME
    width, height = framed + GAP, framed + max(map(len, written)) * LINE_PIXELS + 2 * GAP
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (sample, lines) in enumerate(zip(samples, written, strict=True)):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * width, GAP + row * height
        colour, border = (RED, FRAME) if sample.wrong else (GREY, 1)
        first, last = FRAME - border, framed - 1 - (FRAME - border)
        pen.rectangle((x + first, y + first, x + last, y + last), fill=colour)
        sheet.paste(sample.image, (x + FRAME, y + FRAME))
        for below, (line, ink) in enumerate(lines):
            pen.text((x, y + framed + 2 + below * LINE_PIXELS), line, font=font, fill=ink)
    return sheet


def _lines(sample: Sample) -> list[tuple[str, tuple[int, int, int]]]:
    """Returns the lines below a picture, each with its colour."""
    wrong = f"wrong: {', '.join(sample.wrong)}" if sample.wrong else ""
    return [(line, ink) for text, ink in ((sample.caption, INK), (wrong, RED)) for line in textwrap.wrap(text, LETTERS)]


# -------------------------------------------------------------------------------------------------------- the command
def main(words: Sequence[str] | None = None) -> None:
    """Measures a model and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a folder in diffusers' layout, trained on the picture world")
    parser.add_argument("--count", type=int, default=COUNT, help="captions (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of scenes, captions and noise (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="guidance scale (default: %(default)s)")
    chosen = parser.parse_args(words)
    try:
        _around_markers(chosen.out / PAGE)  # before the work, not after it
        from limner.builtin.judge import load_judge

        measured = measure(
            chosen.model,
            judge=load_judge(),
            count=chosen.count,
            seed=chosen.seed,
            steps=chosen.steps,
            guidance=chosen.guidance,
            on_progress=_print_progress,
        )
        page, sheet = write_report(measured, chosen.out)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{page}\n{sheet}")


def _print_progress(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

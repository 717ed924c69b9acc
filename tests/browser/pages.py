"""The pages that Limner writes, with as much on them as people will put there; no model draws the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy
from PIL import Image

from limner.builtin.scoring import Share
from limner.core.intervals import Change
from limner.demo.judging import Goal, Judged
from limner.demo.judging import Verdict as Seen
from limner.demo.page import Measure
from limner.demo.page import Page as DemoPage
from limner.demo.page import Pair as DemoPair
from limner.demo.page import render as render_demo
from limner.evaluation.hidden_states import LARGEST_MOVE, POSITIONS, Gauge, LayerMove
from limner.reading.page import Card, Section, write_page
from limner.report.evidence import HELD_OUT, LEARNED
from limner.report.page import Beside, Page, Pair, render
from limner.report.prompts import GROUPS
from limner.report.scores import CALLED, OTHERS, Score
from limner.report.verdict import judge, recommend
from limner.swap.page import Column
from limner.swap.page import Page as SwapPage
from limner.swap.page import render as render_swap
from tests.report.test_verdict import evidence

PROMPTS = (
    "a red owl on a meadow",
    "a photo of sks dog, sitting on the stairs of an old house in the evening sun, seen from below, with its head "
    "turned to the left, soft light, 35 mm, shallow depth of field, a little rain",
    "портрет собаки в стиле акварели",
    "a_file_name_that_somebody_left_as_a_caption_and_that_has_no_place_to_break_it_anywhere_0001.jpg",
    "犬の水彩画",
    "<b>bold</b> & \"quoted\" 'text'",
)
ROWS = (
    ("layout", "table metadata.csv, columns file_name and text"),
    ("pictures", "1,234 found, 1,230 used, 4 left out: not_a_picture.jpg, empty.png and 2 more"),
    ("cropped away", "12% of the area (median), 44% of IMG_20240712_183012_edited_final.jpg"),
    ("this page", "/home/somebody/pictures/a folder with a long name/runs/the-third-attempt/report/index.html"),
    ("LoRA, read back by diffusers 0.42.1", "/home/somebody/pictures/runs/the-third-attempt/export/diffusers"),
    ("optimizer", '{"kind": "adamw", "lr": 0.0001, "betas": [0.9, 0.999], "weight_decay": 0.01, "eps": 1e-08}'),
    ("transformers", "5.23.0"),
    ("precision", "fp32"),
)
COMMANDS = (
    (
        "See what would happen, without training:",
        "limner check runs/mine/config.yaml 'dataset={kind: auto}' out=runs/x",
    ),
    ("Draw with it:", "limner generate --model builtin --adapter runs/mine --prompt 'a red owl on a meadow' --out d"),
)


@cache
def grained(number: int, size: tuple[int, int]) -> Image.Image:
    """Returns broad colours under a grain: as JPEG it is as large as a photo full of detail."""
    rng = numpy.random.default_rng(number)
    broad = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=numpy.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((numpy.asarray(broad) + grain).clip(0, 255).astype(numpy.uint8))


def picture(number: int, size: tuple[int, int] = (512, 512)) -> Image.Image:
    """Returns one of eight."""
    return grained(number % 8, size)


def compared(count: int = 24, size: tuple[int, int] = (512, 512)) -> Page:
    """Returns the page of a comparison with ``count`` prompts and four checkpoints."""
    row = tuple(evidence(step, held_out=-0.1 - step / 1e4, since=None) for step in (500, 1000, 1500, 2000))
    names = ("base", *(f"step_{one.step:06d}" for one in row))
    groups = sorted(list(GROUPS)[number % len(GROUPS)] for number in range(count))
    return Page(
        run="/home/somebody/runs/the-third-attempt",
        model="stable-diffusion-v1-5/stable-diffusion-v1-5",
        shown=2000,
        pairs=tuple(
            Pair(group, PROMPTS[n % len(PROMPTS)], n, picture(2 * n, size), picture(2 * n + 1, size))
            for n, group in enumerate(groups)
        ),
        result=row,
        verdicts=tuple(judge(one) for one in row),
        recommendation=recommend(row),
        scores=tuple(
            Score(metric, encoder, prompts, 0.5, 0.512, Change(0.012, -0.5, 0.524, 24), 24)
            for encoder, prompts in (("openai/clip-vit-base-patch32", CALLED), ("facebook/dinov2-small", OTHERS))
            for metric in ("CLIP score", "likeness to the training pictures", "KID's distance to the given pictures")
        ),
        left_out=(
            ("Fréchet distance to the given pictures by facebook/dinov2-small", ROWS[1][1]),
            ("diversity", "there is one picture of each prompt; --count 2 draws more"),
        ),
        beside=Beside(
            "facebook/dinov2-small",
            0.98,
            "40 pictures, those that were held out",
            tuple((picture(n, size), picture(n + 1, (900, 400)), 0.9912, n == 0) for n in range(8)),
        ),
        by_timestep={name: {part: (0.9, 0.8, 0.7, 1.1) for part in (LEARNED, HELD_OUT)} for name in names},
        drift={name: dict.fromkeys(GROUPS, 0.117) for name in names[1:]},
        steps=tuple((n + 1, 0.5 + 0.3 * math.cos(n) / (1 + n / 500), 1e-4) for n in range(2000)),
        seconds=7260.0,
        pictures=tuple(picture(1000 + n) for n in range(24)),
        ledger=ROWS[:3],
        settings=ROWS[3:6],
        environment=ROWS[6:],
    )


def shown_by_the_demo(count: int = 24, size: tuple[int, int] = (128, 128)) -> DemoPage:
    """Returns the demo's page; sizes other than the built-in model's are those of photos of the user's."""
    before = Judged((Seen("stained glass", False), Seen("2 × purple key: 0 of 2 there", False)), "red key; pixel")
    after = Judged((Seen("stained glass", True), Seen("background: stripes", True)), "2 × white key; stained glass")
    goals = (Goal(least=0.85, under_before=0.1), Goal(least=0.95), Goal(most=0.1), None)
    return DemoPage(
        title="The built-in model learns stained glass",
        about="40 pictures with captions, in a style that the model had never seen.",
        pairs=tuple(
            DemoPair(f"Section {4 * n // count}", PROMPTS[n % len(PROMPTS)], n, picture(2 * n, size),
                     picture(2 * n + 1, size), (before, after))
            for n in range(count)
        ),
        measures=tuple(
            Measure(name, Share(number, 24), Share(24 - number, 24), goal)
            for name, number, goal in zip(("in stained glass", "things", "background", "colours"), (0, 2, 24, 9), goals,
                                          strict=True)
        ),
        pictures=tuple(picture(1000 + n, (300, 200)) for n in range(40)),
        ledger=ROWS[:3],
        losses=tuple(0.5 + 0.3 * math.cos(n) for n in range(200)),
        settings=ROWS[4:],
        files=ROWS[3:5],
        commands=COMMANDS,
    )  # fmt: skip


def swapped(count: int = 12, size: tuple[int, int] = (512, 512)) -> SwapPage:
    """Returns the page of a text encoder at four blends, with ``count`` prompts."""
    layers = ("embeddings", *(f"layer {number}" for number in range(1, 13)), "read by the pipeline")

    def gauge(moved: float) -> Gauge:
        moves = (LayerMove(name, dict.fromkeys(POSITIONS, moved * n / 13)) for n, name in enumerate(layers))
        return Gauge("photos of things and scenes", ("a", "b"), tuple(moves))

    images = [[picture(100 * k + n, size) for n in range(count)] for k in range(5)]
    blends = (0.25, 0.5, 0.75, 1)
    return SwapPage(
        model="stable-diffusion-v1-5/stable-diffusion-v1-5",
        encoder="/home/somebody/runs/clip-of-my-own/export/transformers",
        prompts=tuple((PROMPTS[n % len(PROMPTS)], n) for n in range(count)),
        columns=(
            Column("the model's own", None, tuple(images[0]), ()),
            *(
                Column(f"blend {blend:g}", gauge(1.6 * blend * LARGEST_MOVE), tuple(drawn), (0.125,) * count)
                for blend, drawn in zip(blends, images[1:], strict=True)
            ),
        ),
        proposed=0.5,
        settings=ROWS[3:],
        commands=COMMANDS,
    )


def scored(path: Path) -> None:
    """Writes the page of the captions that fit worst."""
    cards = tuple(
        Card(picture(n, (640, 427)), f"IMG_{n:04d}.jpg", (PROMPTS[n % len(PROMPTS)], "score 21.34, rank 3 of 1,234"))
        for n in range(20)
    )
    sections = [Section("Captions that fit worst", "The lowest scores first.", cards)]
    write_page(path, "Captions and pictures", "In /home/somebody/pictures.", ROWS[:3], sections)


def _written(render: Callable[[], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(render(), encoding="utf-8")


PAGES: Mapping[str, Callable[[Path], object]] = {
    "compare": _written(lambda: render(compared())),
    "demo": _written(lambda: render_demo(shown_by_the_demo())),
    "swap": _written(lambda: render_swap(swapped())),
    "score": scored,
}

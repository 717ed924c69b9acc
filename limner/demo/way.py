"""The first thing to try: the built-in model learns a style or a character, is judged, and a page shows the change."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, read_metrics, write_atomic
from limner.data.image import decode
from limner.data.ledger import Ledger
from limner.demo.drawing import draw_prompts, load_base, put_on
from limner.demo.judging import Assessment, Judged, Reader
from limner.demo.lessons import (
    PHOTOS,
    SITTER,
    STYLE,
    Lesson,
    Settings,
    photos_lesson,
    sitter_lesson,
    style_lesson,
)
from limner.demo.page import Measure, Page, Pair, in_words, percent, render
from limner.models.weights import BUILTIN, builtin_folder
from limner.page import Rows
from limner.preflight import Plan, plan
from limner.run import RunResult, finetune

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SHOWN = 40
"""Pictures of the set on the page."""
TUNED = "runs/mine"
"""The run folder in the commands to try next."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    run: RunResult
    page: Path | None = None
    """None where the run was stopped before its end."""
    measures: tuple[Measure, ...] = ()
    """The judge's numbers; none for the user's own pictures."""
    files: Rows = ()
    commands: Rows = ()
    """What to try next: what for, and the command."""

    def numbers(self) -> Rows:
        """Returns the judge's numbers as a table for people."""
        return [
            (f"{one.name}, {when}", f"{percent(share)} ({in_words(share)})")
            for one in self.measures
            for when, share in (("before", one.before), ("after", one.after))
        ]

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        return {
            "run": self.run.as_dict(),
            "page": None if self.page is None else str(self.page),
            "measures": [
                {
                    "name": one.name,
                    "before": [one.before.right, one.before.asked],
                    "after": [one.after.right, one.after.asked],
                    "reached": None if one.goal is None else one.goal.reached(one.before, one.after),
                }
                for one in self.measures
            ],
            "files": dict(self.files),
            "commands": [command for _, command in self.commands],
        }


def demo(
    out: Path,
    *,
    photos: Path | None = None,
    sitter: bool = False,
    model: str | None = None,
    judge: Reader | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Teaches a small model a style, a character (``sitter``) or the look of ``photos``, and writes a page about it.

    The same prompts are drawn before and after with the same seeds; the judge reads both, except for photos, which it
    does not know. ``model`` and ``judge`` are the built-in ones where they are unset. Everything is written below
    ``out``; what an earlier demo left there is removed. Raises UserError where what is built in is not there.
    """
    progress, model = progress or Silent(), model or BUILTIN
    _check(out, photos, sitter, model)
    judge = _judge(judge, photos)
    base = load_base(model)
    _clear(out)
    lesson = _prepare(out, photos, sitter, settings, progress)
    config = _config(out, lesson, model, resolution=base.default_size)
    planned = plan(config)
    progress.say(f"checked the pictures: {dict(planned.ledger.summary())['pictures']}")
    before = draw_prompts(base, lesson, out / "before", progress)
    progress.say(f"the base model's pictures are in {out / 'before'}")
    run = finetune(config, progress=progress)
    if run.interrupted is not None:
        return DemoResult(run)
    if planned.ledger.awaited:
        planned = plan(config)  # with the pictures of the class, which the run has drawn
    after = draw_prompts(base, lesson, out / "after", progress, adapters=put_on(base, run.out))
    judged = _judged(judge, lesson, before, after)
    files, commands = _files(out, lesson, run), _commands(out, lesson, model)
    page = Page(
        title=lesson.title,
        about=lesson.about,
        pairs=_pairs(lesson, before, after, judged),
        measures=_measures(lesson, judged),
        pictures=_shown(planned.ledger, config),
        ledger=planned.ledger.summary(),
        losses=tuple(line["loss"] for line in read_metrics(RunDir(run.out).metrics)),
        settings=_settings(config, lesson, planned, run),
        files=files,
        commands=commands,
    )
    write_atomic(out / "index.html", render(page).encode())
    return DemoResult(run, out / "index.html", page.measures, files, commands)


# --------------------------------------------------------------------------------------------------------- beforehand
def _check(out: Path, photos: Path | None, sitter: bool, model: str) -> None:
    if photos is not None and sitter:
        raise UserError(
            "is a lesson of its own and takes no --photos.", where="--sitter", fix="Leave one of the two out."
        )
    if photos is not None and photos.resolve().is_relative_to(out.resolve()):
        raise UserError(
            f"{str(photos)!r} lies in {str(out)!r}, which the demo empties.", where="--photos", fix="Move it."
        )
    if model == BUILTIN:
        builtin_folder()  # raises where it is not there
    if out.exists() and any(out.iterdir()) and not _marker(out).exists():
        raise UserError("is there and no demo made it.", where=str(out), fix="Choose another folder with --out.")


def _marker(out: Path) -> Path:
    return out / ".limner-demo"


def _clear(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _marker(out).touch()


def _judge(judge: Reader | None, photos: Path | None) -> Reader | None:
    """Returns who judges; nobody judges photos."""
    if photos is not None or judge is not None:
        return None if photos is not None else judge
    from limner.builtin.judge import load_judge

    return load_judge()


def _prepare(out: Path, photos: Path | None, sitter: bool, settings: Settings | None, progress: Progress) -> Lesson:
    if photos is not None:
        return photos_lesson(photos, settings or PHOTOS, progress)
    pictures = out / "pictures"
    if sitter:
        lesson = sitter_lesson(pictures, out / "class_pictures", settings or SITTER)
    else:
        lesson = style_lesson(pictures, settings or STYLE)
    progress.say(f"drew {lesson.settings.pictures} pictures into {pictures}")
    return lesson


def _config(out: Path, lesson: Lesson, model: str, *, resolution: int) -> RunConfig:
    settings = lesson.settings
    return RunConfig.model_validate(
        {
            "out": out / "run",
            "model": {"kind": "sd1", "path": model},
            "dataset": lesson.dataset,
            "images": {"resolution": resolution},
            "method": {
                "kind": "lora",
                "rank": settings.rank,
                "targets": settings.targets,
                "text_encoder": settings.text_encoder,
            },
            "optimizer": {"kind": "adamw", "lr": settings.lr},
            "schedule": {"kind": "cosine", "warmup_steps": settings.warmup_steps},
            "train": {"steps": settings.steps, "batch_size": settings.batch_size},
            "trigger_word": lesson.trigger_word,
            "report": {"at_end": "never"},  # the demo has a page of its own
        }
    )


# --------------------------------------------------------------------------------------------------------- afterwards
def _judged(
    judge: Reader | None, lesson: Lesson, before: Sequence[Image], after: Sequence[Image]
) -> tuple[Assessment, Assessment] | None:
    if judge is None or lesson.assess is None:
        return None
    return lesson.assess(lesson.prompts, judge.read(before)), lesson.assess(lesson.prompts, judge.read(after))


def _measures(lesson: Lesson, judged: tuple[Assessment, Assessment] | None) -> tuple[Measure, ...]:
    if judged is None:
        return ()
    before, after = (assessment.shares for assessment in judged)
    return tuple(Measure(name, before[name], after[name], lesson.goals.get(name)) for name in before)


def _pairs(
    lesson: Lesson,
    before: Sequence[Image],
    after: Sequence[Image],
    judged: tuple[Assessment, Assessment] | None,
) -> tuple[Pair, ...]:
    said: Sequence[tuple[Judged, Judged] | None] = [None] * len(before)
    if judged is not None:
        said = list(zip(judged[0].pictures, judged[1].pictures, strict=True))
    return tuple(
        Pair(prompt.section, prompt.text, prompt.seed, one, other, words)
        for prompt, one, other, words in zip(lesson.prompts, before, after, said, strict=True)
    )


def _shown(ledger: Ledger, config: RunConfig) -> tuple[Image, ...]:
    """Returns the first pictures that the model learned from, those of a class left out."""
    images = config.images
    examples = [one.example for one in ledger.prepared if one.example.role == "instance"][:MOST_SHOWN]
    return tuple(
        decode(example.image.read(), background=images.background_rgb, max_pixels=images.max_pixels).image
        for example in examples
    )


def _settings(config: RunConfig, lesson: Lesson, planned: Plan, run: RunResult) -> Rows:
    settings = lesson.settings
    text = ", with the text encoder" if settings.text_encoder else ""
    return (
        ("model", config.model.path),
        ("method", f"LoRA of rank {settings.rank}{text}"),
        ("length", f"{planned.steps} steps of {settings.batch_size} pictures, {planned.epochs:.3g} epochs"),
        ("learning rate", f"{settings.lr:g}"),
        ("pictures drawn with", f"{settings.drawing_steps} denoising steps, guidance {settings.guidance:g}"),
        ("moved", f"the prediction differs from the base model's by up to {run.change:.2g}"),
    )


def _files(out: Path, lesson: Lesson, run: RunResult) -> Rows:
    exports = [(f"LoRA, read back by {export.reader}", str(export.path)) for export in run.exports]
    drawn = [("pictures of the class", str(lesson.dataset["class_path"]))] if "class_path" in lesson.dataset else []
    return (
        ("this page", str(out / "index.html")),
        ("pictures it learned from", str(lesson.dataset["path"])),
        *drawn,
        ("pictures before and after", f"{out / 'before'}, {out / 'after'}"),
        *exports,
        ("the recipe", str(RunDir(run.out).config)),
        ("every picture, and what became of it", str(RunDir(run.out).ledger)),
    )


def _commands(out: Path, lesson: Lesson, model: str) -> Rows:
    recipe, data = str(RunDir(out / "run").config), f"dataset={lesson.own_dataset}"
    prompt = lesson.own_prompt
    return (
        ("See what would happen, without training:", shlex.join(["limner", "check", recipe, data, f"out={TUNED}"])),
        ("Train on your pictures:", shlex.join(["limner", "train", recipe, data, f"out={TUNED}"])),
        (
            "Draw with what was learned:",
            shlex.join(
                ["limner", "generate", "--model", model, "--adapter", TUNED, "--prompt", prompt, "--out", "drawings"]
            ),
        ),
    )

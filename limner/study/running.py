"""A whole study: the base model first, then each setting, each trained and measured once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import limner
from limner.core.naming import public_name
from limner.core.progress import Progress
from limner.study.diversity import Estimate, as_share
from limner.study.grid import Conditions, Setting, Study
from limner.study.lessons import Lesson, prepare
from limner.study.measuring import (
    Numbers,
    Reader,
    Seen,
    Tuned,
    load_base,
    load_tuned,
    numbers,
    read_seen,
    see,
    write_seen,
)
from limner.study.training import Place, Trained, digest, train_to, training_key

BASE = "base model"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    steps: int
    """0 for the base model."""
    numbers: Numbers
    diversity: Estimate | None
    """As a share of the base model's; None where that has none."""
    trained: Trained | None
    """None for the base model."""


@dataclass(frozen=True)
class Measured:
    """Everything that table and plot tell."""

    study: Study
    conditions: Conditions
    model: str
    rows: tuple[Row, ...]
    """The base model first."""
    cut_prompts: int
    """The most prompts, of one row, of which the model did not read the end."""


def measure_study(
    study: Study,
    conditions: Conditions,
    *,
    root: Path,
    model: str,
    judge: Reader,
    judge_hash: str,
    progress: Progress,
) -> Measured:
    """Trains and measures every setting that is not on the disk below ``root``, and returns all the numbers."""
    from limner.models.sd1 import SD1
    from limner.training.precision import choose_device, choose_precision

    base = SD1(path=model).load()
    place = Place(root, model, base.identity(), base.default_size)
    bench = _Bench(
        lesson=prepare(study.lesson, place.pictures(study.lesson, conditions), conditions),
        conditions=conditions,
        place=place,
        judge=judge,
        judge_hash=judge_hash,
        precision=choose_precision("auto", choose_device("auto")).name,
        progress=progress,
    )
    seen: dict[tuple[str, int], Seen] = {(BASE, 0): bench.see_base()}
    trained: dict[tuple[str, int], Trained] = {}
    for setting in study.settings:
        for steps in setting.steps:
            trained[setting.name, steps], seen[setting.name, steps] = bench.train_and_see(setting, steps)
    return Measured(
        study=study,
        conditions=conditions,
        model=public_name(base.source.name),
        rows=_rows(bench.lesson, seen, trained),
        cut_prompts=max(one.cut_prompts for one in seen.values()),
    )


def _rows(
    lesson: Lesson, seen: Mapping[tuple[str, int], Seen], trained: Mapping[tuple[str, int], Trained]
) -> tuple[Row, ...]:
    found = {at: numbers(lesson, one) for at, one in seen.items()}
    base = found[BASE, 0].diversity
    return tuple(
        Row(
            name=name,
            steps=steps,
            numbers=one,
            diversity=None if one.diversity is None or base is None else as_share(one.diversity, base),
            trained=trained.get((name, steps)),
        )
        for (name, steps), one in found.items()
    )


@dataclass(frozen=True)
class _Bench:
    """What all settings of a study are measured with."""

    lesson: Lesson
    conditions: Conditions
    place: Place
    judge: Reader
    judge_hash: str
    precision: str
    progress: Progress

    def see_base(self) -> Seen:
        """Returns what is seen in the base model's pictures."""
        return self._kept(None, None, lambda: Tuned(load_base(self.place.model)))

    def train_and_see(self, setting: Setting, steps: int) -> tuple[Trained, Seen]:
        """Returns what a setting comes to after ``steps``, and what is seen in its pictures."""
        lesson, conditions, place = self.lesson.name, self.conditions, self.place
        key = training_key(setting, lesson, conditions, place, self.precision)
        trained = train_to(setting, steps, lesson, conditions, place, key=key, progress=self.progress)
        return trained, self._kept(
            setting, {**key, "steps": steps}, lambda: load_tuned(place.model, setting, trained.folder)
        )

    def _kept(self, setting: Setting | None, training: Mapping[str, Any] | None, load: Callable[[], Tuned]) -> Seen:
        """Returns what was seen with all this before, else draws the pictures and keeps what is seen."""
        subject = self.lesson.subject(setting)
        key = {
            "limner": limner.__version__,
            "model": dict(self.place.identity),
            "training": None if training is None else dict(training),
            "called": [prompt.text(subject) for prompt in self.lesson.called],
            "of_class": [prompt.text for prompt in self.lesson.of_class],
            "seeds": self.conditions.seeds,
            "drawing_steps": self.conditions.drawing_steps,
            "guidance": self.conditions.guidance,
            "judge": self.judge_hash,
            "precision": self.precision,
        }
        path = self.place.root / "measured" / f"{digest(key)[:16]}.json"
        seen = read_seen(path)
        if seen is None:
            seen = see(load(), self.lesson, setting, self.conditions, self.judge, self.progress)
            write_seen(path, key, seen)
        return seen

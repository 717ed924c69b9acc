"""A run's base model and its checkpoints beside each other: drawn, measured, judged, and put on a page."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig, load_config
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, write_atomic, write_json
from limner.report.assembling import assemble
from limner.report.drawing import BASE, draw, drift
from limner.report.evidence import MOST_PICTURES, Evidence, PartLosses, measure_parts, parts_of, weigh
from limner.report.page import render
from limner.report.prompts import Asked, about_something_else, asked
from limner.report.scores import Drawn, Score
from limner.report.seeing import given, look
from limner.report.verdict import Recommendation, Verdict, judge, recommend, told_worth
from limner.session import Session, fitting, open_session
from limner.training.objectives import ObjectiveConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.training.validation import HeldOut

PAGE, RECORD, PICTURES = "index.html", "report.json", "pictures"


@dataclass(frozen=True)
class CompareResult:
    """What a comparison came to."""

    page: Path
    recommendation: Recommendation
    evidence: tuple[Evidence, ...]
    """Of each checkpoint, in the order of the steps."""
    verdicts: tuple[Verdict, ...]
    scores: Mapping[int, tuple[Score, ...]]
    """Of each checkpoint: what networks see in its pictures beside the base's."""
    left_out: tuple[tuple[str, str], ...]
    """What could not be measured, and why."""
    by_timestep: Mapping[str, Mapping[str, Sequence[float]]]
    """Of each model and part of the pictures: the losses of equal parts of the timesteps, the least noisy first."""
    drift: Mapping[str, Mapping[str, float]]
    """Of each checkpoint and group of prompts: the mean absolute difference of a pixel from the base model's picture,
    as a share of the range of a colour."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        best = self.recommendation
        return {
            "page": str(self.page),
            "keep": {"step": best.step, "verdict": best.verdict.name, "reason": best.reason},
            "checkpoints": [
                {
                    **evidence.as_dict(),
                    "verdict": dataclasses.asdict(verdict),
                    "scores": [one.as_dict() for one in self.scores[evidence.step]],
                }
                for evidence, verdict in zip(self.evidence, self.verdicts, strict=True)
            ],
            "left_out": [{"what": what, "why": why} for what, why in self.left_out],
            "losses_by_timestep": self.by_timestep,
            "pixels_moved": self.drift,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Returns labels and values for people: each checkpoint's numbers, what they mean, and what to keep."""
        found = []
        for evidence, verdict in zip(self.evidence, self.verdicts, strict=True):
            found.append((f"step {evidence.step}", f"{verdict.name}: {verdict.reason}"))
            if evidence.worth is not None:
                found.append(("", f"a caption is worth {told_worth(evidence.worth)}"))
        return [*found, ("keep", self.recommendation.reason), ("advice", self.recommendation.verdict.advice)]


def compare(
    run: Path,
    *,
    steps: Sequence[int] = (),
    prompts: Sequence[str] = (),
    count: int = 1,
    out: Path | None = None,
    device: str = "",
    progress: Progress | None = None,
) -> CompareResult:
    """Compares a run's base model with its checkpoints on the same prompts, noise, sampler, precision and pictures.

    ``steps`` are those of the checkpoints, unset all that are kept; ``prompts`` are drawn beside the recipe's,
    ``count`` pictures of each; ``device`` is used in place of the recipe's. The page, report.json and the pictures go
    into ``out``, by default RUN/report; an older report there is replaced. Raises UserError where the run, its base
    model or its pictures are not there any more.
    """
    progress = progress or Silent()
    config, rundir, chosen = _what(run, steps, device)
    folder = out or rundir.report
    _refuse_strange(folder)
    session = open_session(config, rundir, _Beginning(progress))
    _refuse_other_base(session, rundir, chosen, progress)
    drawn = Drawn(_asked(config, session, prompts), count)
    learned, held_out = _parts(session, config.objective)
    pictures = given(config, learned, held_out)
    parts = parts_of(learned, held_out)
    whole = folder.resolve()
    part = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    images: dict[str, list[Image]] = {}
    losses: dict[str, dict[str, PartLosses]] = {}
    for name, at in ((BASE, None), *((f"step_{step:06d}", step) for step in chosen)):
        with _weights_of(session, rundir, at):
            losses[name] = measure_parts(parts, name, progress)
            images[name] = draw(config, session, drawn, part / PICTURES / name, progress)
    sight = look(config, session, drawn, images, pictures, progress)
    evidence = weigh(losses[BASE], {step: losses[f"step_{step:06d}"] for step in chosen})
    result = CompareResult(
        page=folder / PAGE,
        recommendation=recommend(evidence),
        evidence=evidence,
        verdicts=tuple(judge(one) for one in evidence),
        scores={step: tuple(sight.scores[f"step_{step:06d}"]) for step in chosen},
        left_out=tuple(sight.left_out),
        by_timestep={name: {part: one.by_timestep() for part, one in of.items()} for name, of in losses.items()},
        drift=drift(images, drawn),
    )
    page = assemble(config, rundir, session, result, drawn, images, pictures, sight)
    write_json(part / RECORD, result.as_dict())
    write_atomic(part / PAGE, render(page).encode())
    shutil.rmtree(whole, ignore_errors=True)
    part.rename(whole)
    return result


def _asked(config: RunConfig, session: Session, extra: Sequence[str]) -> tuple[Asked, ...]:
    others = about_something_else(fitting(session.model))
    return asked(config, session.ledger, session.feed.caption_tools, others, extra)


class _Beginning(Silent):
    """Passes on what is wrong and how far the model's loading is; the plan of a run that is over is of no use."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def warn(self, text: str) -> None:
        """Passes it on."""
        self._progress.warn(text)

    def stage(self, name: str, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.stage(name, done, total)


# ----------------------------------------------------------------------------------------------------- what is compared
def _what(run: Path, steps: Sequence[int], device: str) -> tuple[RunConfig, RunDir, list[int]]:
    """Returns the run's config, its folder, and the steps of the checkpoints that are compared."""
    rundir = RunDir(run)
    if not rundir.config.is_file():
        raise UserError(f"{str(run)!r} is no run folder.", where="RUN", fix="Name the folder of a run.")
    config = load_config(rundir.config)
    if config.model.kind != "sd1" or config.objective.kind != "denoising":
        raise UserError(
            f"is a run of {config.model.kind!r} with the objective {config.objective.kind!r}, which learns no "
            "pictures of prompts.",
            where=str(run),
            fix="A run of CLIP is compared by limner measure.",
        )
    kept = [step for step in rundir.checkpoint_steps() if step > 0]
    missing = sorted(set(steps) - set(kept))
    if not kept or missing:
        there = ", ".join(map(str, kept)) or "none"
        said = f"has no checkpoint of step {missing[0]}" if missing else "has no checkpoint of a step that was taken"
        raise UserError(
            f"{said}; there are: {there}.",
            where=str(run),
            fix="train.keep_checkpoints says how many stay." if kept else "Let it train first.",
        )
    if device:
        config = config.model_copy(update={"train": config.train.model_copy(update={"device": device})})
    return config, rundir, sorted(set(steps)) or kept


def _refuse_strange(folder: Path) -> None:
    """Refuses to replace anything but an older report."""
    if not folder.exists():
        return
    strange = [] if folder.is_dir() else [folder.name]
    strange = strange or sorted({entry.name for entry in folder.iterdir()} - {PAGE, RECORD, PICTURES})
    if strange:
        raise UserError(
            f"{str(folder)!r} would be replaced, and {strange[0]!r} there is no part of a report.",
            where="--out",
            fix="Choose a new folder.",
        )


def _refuse_other_base(session: Session, rundir: RunDir, steps: Sequence[int], progress: Progress) -> None:
    """Raises UserError where the base model is not that of the checkpoints, and tells where the pictures are not."""
    from limner.training.checkpoint import saved_identity

    for step in steps:
        saved = saved_identity(rundir.checkpoint(step))
        changed = [
            key for key in (saved.keys() | session.identity.keys()) if saved.get(key) != session.identity.get(key)
        ]
        if base := sorted(key for key in changed if key.startswith("base.")):
            raise UserError(
                f"the base model is not the one that step {step} was trained from ({', '.join(base)} differ).",
                where="model.path",
                fix="Bring the old model back.",
            )
        if {"data", "held_out"} & set(changed):
            progress.warn(f"the pictures are not those that step {step} learned from; its losses are on today's")


def _parts(session: Session, objective: ObjectiveConfig) -> tuple[HeldOut, HeldOut | None]:
    """Returns the pictures that were learned from, some where there are many, and those that were held out."""
    from limner.training.validation import HeldOut, Validation

    subject = sorted(
        (one for one in session.ledger.prepared if one.example.role == "instance"), key=lambda one: one.example.id
    )
    some = random.Random(session.feed.seed).sample(subject, min(MOST_PICTURES, len(subject)))
    held_out = None if session.watch is None else session.watch.held_out
    learned = HeldOut(
        pictures=tuple(some),
        objective=objective,
        feed=session.feed,
        draws=Validation().draws if held_out is None else held_out.draws,
        batch_size=session.feed.order.batch_size,
    )
    return learned, held_out


@contextlib.contextmanager
def _weights_of(session: Session, rundir: RunDir, step: int | None) -> Iterator[None]:
    """Puts the weights of a checkpoint in place, its running average where there is one; None: the base's.

    A method begins as the base: an adapter adds nothing before its first update, other weights are the base's own.
    """
    from limner.training.checkpoint import load_weights

    if step is None:
        yield
        return
    load_weights(rundir.checkpoint(step), session.state)
    with session.tuned_weights():
        yield

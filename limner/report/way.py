"""A run's base model and its checkpoints beside each other: drawn, measured, judged, and put on a page."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, read_metrics, write_atomic, write_json
from limner.reopening import chosen_steps, config_of, refuse_other_runs, reopen, weights_of
from limner.report.assembling import assemble
from limner.report.card import CARD, PICTURES, RECORD, local_card
from limner.report.drawing import BASE, draw, drift, file_name
from limner.report.evidence import MOST_PICTURES, Evidence, PartLosses, measure_parts, parts_of, weigh
from limner.report.page import duration, render
from limner.report.prompts import Asked, about_something_else, asked
from limner.report.scores import Drawn, Score
from limner.report.seeing import given, look
from limner.report.verdict import Recommendation, Verdict, judge, recommend, told_worth
from limner.session import Session, fitting
from limner.training.objectives import ObjectiveConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.training.validation import HeldOut

PAGE = "index.html"


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
    drawn: Drawn
    first_seed: int
    """Of the first picture; the next has the next seed."""

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
            "drawn": [
                {"prompt": one.prompt, "group": one.group, "seed": self.first_seed + place, "file": file_name(place)}
                for place, one in enumerate(self.drawn.each())
            ],
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
    most_seconds: float | None = None,
    progress: Progress | None = None,
) -> CompareResult:
    """Compares a run's base model with its checkpoints on the same prompts, noise, sampler, precision and pictures.

    ``steps`` are those of the checkpoints, unset all that are kept; ``prompts`` are drawn beside the recipe's,
    ``count`` pictures of each; ``device`` is used in place of the recipe's. The page, report.json, the model card and
    the pictures go into ``out``, by default RUN/report; an older report there is replaced. Raises UserError where the
    run, its base model or its pictures are not there any more, or where drawing would take longer than
    ``most_seconds``.
    """
    rundir = RunDir(run)
    config = config_of(rundir, device)
    refuse_other_runs(config, rundir)
    with rundir.locked():
        chosen = chosen_steps(rundir, steps)
        folder = out or rundir.report
        _refuse_strange(folder)
        session = reopen(config, rundir, chosen, progress or Silent())
        drawn = Drawn(_asked(config, session, prompts), count)
        if most_seconds is not None:
            _refuse_longer(config, rundir, len(drawn.each()) * (1 + len(chosen)), most_seconds)
        return _compare(config, rundir, session, chosen, drawn, folder, progress or Silent())


def _compare(
    config: RunConfig,
    rundir: RunDir,
    session: Session,
    chosen: Sequence[int],
    drawn: Drawn,
    folder: Path,
    progress: Progress,
) -> CompareResult:
    learned, held_out = _parts(session, config.objective)
    pictures = given(config, learned, held_out)
    parts = parts_of(learned, held_out)
    whole = folder.resolve()
    part = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    images: dict[str, list[Image]] = {}
    losses: dict[str, dict[str, PartLosses]] = {}
    for name, at in ((BASE, None), *((f"step_{step:06d}", step) for step in chosen)):
        with weights_of(session, rundir, at):
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
        drawn=drawn,
        first_seed=config.samples.seed,
    )
    page = assemble(config, rundir, session, result, drawn, images, pictures, sight)
    write_json(part / RECORD, result.as_dict())
    write_atomic(part / CARD, local_card(config, result.as_dict()).encode())
    write_atomic(part / PAGE, render(page).encode())
    shutil.rmtree(whole, ignore_errors=True)
    part.rename(whole)
    return result


def _refuse_longer(config: RunConfig, rundir: RunDir, pictures: int, most_seconds: float) -> None:
    """Raises UserError where so many pictures would take longer, judged by how long the training's steps took.

    A training step is taken for three passes of a picture through the denoiser, a sampler's for one, or two with
    guidance. Pictures of another size count by their pixels.
    """
    lines = read_metrics(rundir.metrics)
    images = sum(line["seconds"] * line["images_per_second"] for line in lines)
    if not images:
        return
    side = config.images.resolution
    width, height = config.samples.size or (side, side)
    passes = config.samples.steps * (1 if config.samples.guidance == 1 else 2) * width * height / side**2
    seconds = pictures * passes * sum(line["seconds"] for line in lines) / images / 3
    if seconds > most_seconds:
        raise UserError(
            f"its {pictures} pictures would take about {duration(seconds)}, longer than the training.",
            where="report.at_end",
            fix=f"limner compare {rundir.path} makes it now, report.at_end=always at each end.",
        )


def _asked(config: RunConfig, session: Session, extra: Sequence[str]) -> tuple[Asked, ...]:
    others = about_something_else(fitting(session.model))
    return asked(config, session.ledger, session.feed.caption_tools, others, extra)


# ----------------------------------------------------------------------------------------------------- what is compared
def _refuse_strange(folder: Path) -> None:
    """Refuses to replace anything but an older report."""
    if not folder.exists():
        return
    ours = {PAGE, RECORD, PICTURES} | ({CARD} if (folder / RECORD).is_file() else set())  # many folders have a README
    strange = [] if folder.is_dir() else [folder.name]
    strange = strange or sorted({entry.name for entry in folder.iterdir()} - ours)
    if strange:
        raise UserError(
            f"{str(folder)!r} would be replaced, and {strange[0]!r} there is no part of a report.",
            where="--out",
            fix="Choose a new folder.",
        )


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

"""All that the page of a comparison shows, gathered from the run and from the result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from limner.config import RunConfig
from limner.core.rundir import RunDir, read_metrics
from limner.report.drawing import BASE, Images
from limner.report.page import Beside, Page, Pair
from limner.report.scores import Drawn
from limner.report.seeing import Given, Sight
from limner.session import Session

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.report.way import CompareResult

_SHOWN = 24
"""Pictures of those that were learned from that stand on the page."""
_NEAREST = 8
"""Drawn pictures that stand beside the nearest one that was learned from: those that are nearest to theirs."""


def assemble(
    config: RunConfig,
    rundir: RunDir,
    session: Session,
    result: CompareResult,
    drawn: Drawn,
    images: Images,
    pictures: Given,
    sight: Sight,
) -> Page:
    """Returns what the page shows; the checkpoint on it is the recommended one, the last where none is."""
    step = result.recommendation.step or result.evidence[-1].step
    shown = f"step_{step:06d}"
    lines = read_metrics(rundir.metrics)
    return Page(
        run=str(rundir.path),
        model=session.model.source.name,
        shown=step,
        pairs=tuple(
            Pair(one.group, one.prompt, config.samples.seed + place, images[BASE][place], images[shown][place])
            for place, one in enumerate(drawn.each())
        ),
        result=result.evidence,
        verdicts=result.verdicts,
        recommendation=result.recommendation,
        scores=tuple(sight.scores[shown]),
        left_out=tuple(sight.left_out),
        beside=_beside(sight, shown, images[shown], pictures),
        by_timestep=result.by_timestep,
        drift=result.drift,
        steps=tuple((line["step"], line["loss"], line["lr"]) for line in lines),
        seconds=sum(line.get("seconds", 0.0) for line in lines),
        pictures=tuple(pictures.learned[:_SHOWN]),
        ledger=session.ledger.summary(),
        settings=_settings(config),
        environment=_environment(rundir),
    )


def _beside(sight: Sight, shown: str, images: list[Image], pictures: Given) -> Beside | None:
    if shown not in sight.nearest or not sight.nearest[shown].of:
        return None
    found = sight.nearest[shown]
    order = sorted(found.of.items(), key=lambda item: (-item[1].likeness, item[0]))[:_NEAREST]
    rows = tuple((images[place], pictures.learned[one.place], one.likeness, one.copy) for place, one in order)
    return Beside(found.encoder, found.threshold, found.taken_from, rows)


def _settings(config: RunConfig) -> tuple[tuple[str, str], ...]:
    samples, train = config.samples, config.train
    return (
        ("method", json.dumps(config.method.model_dump(mode="json", exclude_defaults=True))),
        ("optimizer", json.dumps(config.optimizer.model_dump(mode="json", exclude_defaults=True))),
        ("schedule", f"{config.schedule.kind}, {config.schedule.warmup_steps} steps of warm-up"),
        ("batch", f"{train.batch_size} pictures a step"),
        (
            "drawn with",
            f"{samples.steps} denoising steps, guidance {samples.guidance:g}, "
            f"{samples.scheduler or 'the model’s own sampler'}, seeds from {samples.seed}",
        ),
    )


def _environment(rundir: RunDir) -> tuple[tuple[str, str], ...]:
    try:
        found = json.loads(rundir.environment.read_bytes())
    except (FileNotFoundError, ValueError):
        return ()
    return tuple((str(key), str(value)) for key, value in found.items()) if isinstance(found, dict) else ()

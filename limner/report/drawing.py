"""The pictures of a comparison: each model draws the same prompts from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.progress import Progress
from limner.evaluation.change import pixel_change
from limner.session import Session, fitting

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.config import RunConfig
    from limner.report.scores import Drawn

BASE = "base"
Images = Mapping[str, list["Image"]]
"""Of each model its pictures: ``count`` of each prompt."""


def draw(config: RunConfig, session: Session, drawn: Drawn, folder: Path, progress: Progress) -> list[Image]:
    """Draws what is asked for with the weights in place, as the run's samples are drawn, into ``folder``."""
    from limner.evaluation.generate import GenerateRequest, generate
    from limner.evaluation.picture import save_picture

    folder.mkdir(parents=True)
    side = config.images.resolution
    request = GenerateRequest(
        prompts=tuple(one.prompt for one in drawn.asked),
        negative=config.samples.negative,
        seed=config.samples.seed,
        spread=True,
        steps=config.samples.steps,
        guidance=config.samples.guidance,
        scheduler=config.samples.scheduler,
        count=drawn.count,
        size=config.samples.size or (side, side),
    )
    images: list[Image] = []
    told: set[str] = set()
    with session.precision.autocast():
        for picture in generate(fitting(session.model), request):
            save_picture(picture, folder / file_name(len(images)))
            images.append(picture.image)
            for warning in set(picture.warnings) - told if folder.name == BASE else ():
                progress.warn(warning)
                told.add(warning)
            progress.stage(f"pictures, {folder.name}", len(images), len(drawn.each()))
    return images


def file_name(place: int) -> str:
    """Returns the name of the file of the picture at a place."""
    return f"{place:03d}.png"


def drift(images: Images, drawn: Drawn) -> dict[str, dict[str, float]]:
    """Returns how far the pictures of each checkpoint are from the base's, by the group of their prompts."""
    found: dict[str, dict[str, float]] = {}
    for name, own in images.items():
        if name == BASE:
            continue
        by_group: dict[str, list[float]] = {}
        for one, base, tuned in zip(drawn.each(), images[BASE], own, strict=True):
            by_group.setdefault(one.group, []).append(pixel_change(base, tuned))
        found[name] = {group: sum(changes) / len(changes) for group, changes in by_group.items()}
    return found

"""The demo's pictures: with the base model, and with the LoRA that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.progress import Progress
from limner.demo.lessons import Lesson

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.models.adapters import LoadedAdapter
    from limner.models.protocol import DiffusionModel


def load_base(model: str) -> DiffusionModel:
    """Returns the model called ``model`` on the device and in the precision that suit this machine."""
    from limner.models.sd1 import SD1
    from limner.training.precision import choose_device, choose_precision

    loaded = SD1(path=model).load()
    chosen = choose_precision("auto", choose_device("auto"))
    loaded.to(chosen.device, chosen.dtype)
    return loaded


def put_on(base: DiffusionModel, run: Path) -> tuple[LoadedAdapter, ...]:
    """Puts the LoRA that a run exported on the model, and returns it."""
    from limner.models.adapters import AdapterRef, load_adapters

    return load_adapters(base.networks, [AdapterRef(run)])


def draw_prompts(
    model: DiffusionModel, lesson: Lesson, folder: Path, progress: Progress, adapters: Sequence[LoadedAdapter] = ()
) -> list[Image]:
    """Draws the lesson's prompts, each with its seed, into ``folder``: 00.png for the first."""
    from limner.evaluation.generate import GenerateRequest, generate
    from limner.evaluation.picture import save_picture

    settings = lesson.settings
    folder.mkdir(parents=True)
    images: list[Image] = []
    for seed, group in groupby(lesson.prompts, key=lambda prompt: prompt.seed):
        request = GenerateRequest(
            prompts=tuple(prompt.text for prompt in group),
            seed=seed,
            steps=settings.drawing_steps,
            guidance=settings.guidance,
        )
        for picture in generate(model, request, adapters=adapters, batch_size=settings.drawing_batch):
            save_picture(picture, folder / f"{len(images):02d}.png")
            images.append(picture.image)
            progress.stage(f"pictures {folder.name}", len(images), len(lesson.prompts))
    return images

"""The demo's pictures: with the base model, and with the LoRA that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.progress import Progress
from limner.data.prompts import article, fill
from limner.demo.lessons import CLASS_PROMPT, Lesson, Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.evaluation.generate import GenerateRequest
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
    requests = [
        _request(lesson.settings, tuple(prompt.text for prompt in group), seed)
        for seed, group in groupby(lesson.prompts, key=lambda prompt: prompt.seed)
    ]
    return _draw(model, requests, folder, lesson.settings.drawing_batch, progress, adapters)


def draw_class(base: DiffusionModel, lesson: Lesson, folder: Path, progress: Progress) -> None:
    """Draws the class as the base model knows it, for prior preservation (arXiv:2208.12242, section 3.3)."""
    noun = str(lesson.dataset["class_noun"])
    prompt = fill(CLASS_PROMPT, {"class_noun": noun, "article": article(noun)})
    request = _request(lesson.settings, (prompt,), 0, count=lesson.settings.class_pictures)
    drawn = _draw(base, [request], folder, lesson.settings.drawing_batch, progress)
    progress.say(f"the base model drew {len(drawn)} pictures of {prompt!r} into {folder}")


def _request(settings: Settings, prompts: tuple[str, ...], seed: int, count: int = 1) -> GenerateRequest:
    from limner.evaluation.generate import GenerateRequest

    return GenerateRequest(
        prompts=prompts, seed=seed, count=count, steps=settings.drawing_steps, guidance=settings.guidance
    )


def _draw(
    model: DiffusionModel,
    requests: Sequence[GenerateRequest],
    folder: Path,
    batch_size: int,
    progress: Progress,
    adapters: Sequence[LoadedAdapter] = (),
) -> list[Image]:
    from limner.evaluation.generate import generate
    from limner.evaluation.picture import save_picture

    folder.mkdir(parents=True)
    total = sum(len(request.prompts) * request.count for request in requests)
    images: list[Image] = []
    for request in requests:
        for picture in generate(model, request, adapters=adapters, batch_size=batch_size):
            save_picture(picture, folder / f"{len(images):02d}.png")
            images.append(picture.image)
            progress.stage(f"pictures {folder.name}", len(images), total)
    return images

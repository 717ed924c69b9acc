"""Pictures drawn while a run goes on, so that its progress can be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from limner.core.config import Config
from limner.models.protocol import DiffusionModel

Side = Annotated[int, Field(ge=8)]


class Samples(Config):
    """Pictures that are drawn while the run goes on, always from the same prompts and seeds."""

    prompts: tuple[str, ...] = ()
    """One picture per prompt; none are drawn without a prompt."""
    every: int | None = Field(default=None, ge=1)
    """Optimizer steps between samples. They are drawn before the first step and after the last in any case."""
    negative: str = ""
    """What the pictures should not show."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(default=7.5, ge=0, le=1000)
    """Guidance scale; 1 is none."""
    scheduler: str = "ddim"
    """Name of the sampler; empty is the model's own."""
    seed: int = Field(default=0, ge=0)
    """Seed of the first prompt; the next has the next seed."""
    size: tuple[Side, Side] | None = None
    """Width and height in pixels; unset: the square of images.resolution."""

    def due(self, step: int, steps: int) -> bool:
        """Returns whether samples belong to ``step`` (steps taken) of ``steps``."""
        on_the_way = self.every is not None and step % self.every == 0
        return bool(self.prompts) and (step in (0, steps) or on_the_way)

    def drawn(self, folder: Path) -> bool:
        """Returns whether every sample is in its folder; a run that was stopped may have left some out."""
        return all((folder / _name(number)).is_file() for number in range(len(self.prompts)))

    def draw(
        self, model: DiffusionModel, folder: Path, *, square: int, on_progress: Callable[[int, int], None]
    ) -> None:
        """Draws every sample into ``folder``, 00.png for the first prompt; ``square`` is the side if size is unset."""
        from limner.evaluation.generate import GenerateRequest, generate
        from limner.evaluation.picture import save_picture

        folder.mkdir(parents=True, exist_ok=True)
        for number, prompt in enumerate(self.prompts):
            on_progress(number, len(self.prompts))
            request = GenerateRequest(
                prompts=(prompt,),
                negative=self.negative,
                seed=self.seed + number,
                steps=self.steps,
                guidance=self.guidance,
                scheduler=self.scheduler,
                size=self.size or (square, square),
            )
            for picture in generate(model, request):
                save_picture(picture, folder / _name(number))
        on_progress(len(self.prompts), len(self.prompts))


def _name(number: int) -> str:
    return f"{number:02d}.png"

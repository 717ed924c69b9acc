"""The networks that see the pictures of a report: what they give for a picture and for a prompt, all of unit norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.evaluation.report import Report
from limner.models.weights import only_on_disk

if TYPE_CHECKING:
    import numpy
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    Rows = NDArray[numpy.float64]

BATCH = 32
JUDGE = "the built-in judge"


@dataclass(frozen=True)
class Encoder:
    """One network."""

    name: str
    """As the recipe names it."""
    embed: Callable[[Sequence[Image]], Tensor]
    """The features of pictures, [N, D]."""
    read: Callable[[Sequence[str]], Tensor] | None
    """Those of prompts in the same space; None for a network that reads no words."""

    def pictures(self, images: Sequence[Image]) -> Rows:
        """Returns [N, D], each row of unit norm."""
        import torch

        parts = [self.embed(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return _unit(torch.cat(parts), self.name)

    def prompts(self, texts: Sequence[str]) -> Rows:
        """Returns [N, D], each row of unit norm; raises ValueError where it reads no words."""
        if self.read is None:
            raise ValueError(f"{self.name} reads no words")
        return _unit(self.read(texts), self.name)


def load_encoders(
    report: Report, device: torch.device, progress: Progress
) -> tuple[list[Encoder], list[tuple[str, str]]]:
    """Returns the encoders of a report that are to be had, and what is left out without the others: what, and why."""
    found: list[Encoder] = []
    missing: list[tuple[str, str]] = []
    asked: tuple[tuple[str, str, Callable[[str, torch.device], Encoder], str], ...] = (
        ("report.clip", report.clip, _clip, "CLIP score, likeness by CLIP, CMMD"),
        ("report.vision", report.vision, _vision, "likeness by DINO"),
    )
    for key, name, load, measures in asked:
        if not name:
            missing.append((measures, f"{key} is empty"))
            continue
        progress.stage(key, 0, 1)
        try:
            with nullcontext() if report.download else only_on_disk():
                found.append(load(name, device))
        except UserError as error:
            told = error.what if error.where == "model.path" else f"{error.where}: {error.what}"
            fix = "" if report.download else "; report.download=true lets it be downloaded"
            missing.append((measures, f"{key}: {told.rstrip('.')}{fix}"))
        progress.stage(key, 1, 1)
    return found, missing


def _clip(name: str, device: torch.device) -> Encoder:
    import torch

    from limner.evaluation.features import embed_captions
    from limner.models.clip import Clip
    from limner.models.evaluating import evaluating

    model: Any = Clip(path=name).load()
    model.to(device, torch.float32)

    def embed(images: Sequence[Image]) -> Tensor:
        pixels = torch.stack([model.prepare(image) for image in images]).to(device)
        with evaluating(model.networks.values()):
            found: Tensor = model.embed_images(pixels)
        return found.float().cpu()

    return Encoder(name, embed, lambda texts: embed_captions(model, texts))


def _vision(name: str, device: torch.device) -> Encoder:
    from limner.models.vision import load_vision

    model = load_vision(name)
    model.to(device)
    return Encoder(name, model.embed, None)


def world_encoder() -> Encoder:
    """Returns the judge of the built-in world as an encoder of its pictures: it ships with the package."""
    from limner.builtin.judge import load_judge

    return Encoder(JUDGE, load_judge().features, None)


def _unit(features: Tensor, name: str) -> Rows:
    import numpy

    from limner.evaluation.distances import checked_features, unit_rows

    rows = numpy.asarray(features.numpy(), dtype=numpy.float64)
    return unit_rows(checked_features(rows, f"what {name} sees", least=1), name)

"""Choosing among given captions or tags with a CLIP model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.data.text import counted, first_few, one_line, read_lines
from limner.evaluation.features import embed_captions
from limner.reading.captioner import Written
from limner.reading.embedding import load_clip, warn_of_cuts

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from limner.models.clip import ClipModel

SLOT = "{tag}"


@dataclass(frozen=True)
class Choice:
    """How candidates are chosen."""

    candidates: tuple[str, ...]
    templates: tuple[str, ...] = (SLOT,)
    """What the model compares with a picture: the candidate in place of {tag}; several are averaged."""
    best: int = 1
    """At most so many, joined by commas."""
    above: float | None = None
    """Least score, 100 x cosine; None takes any."""


@dataclass(frozen=True, eq=False)
class Ranker:
    """A CLIP model and candidates."""

    model: ClipModel
    name: str
    choice: Choice
    vectors: Tensor
    """[candidates, D], unit norm."""

    def write(self, pictures: Sequence[Image.Image]) -> list[Written]:
        """Returns the best candidates for each picture, the best first."""
        import torch

        from limner.models.evaluating import evaluating

        pixels = torch.stack([self.model.prepare(picture) for picture in pictures]).to(self.model.logit_scale.device)
        with evaluating(list(self.model.networks.values())):
            points = self.model.embed_images(pixels).cpu()
        return [self._chosen((100 * row).tolist()) for row in points @ self.vectors.T]

    def _chosen(self, scores: list[float]) -> Written:
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        least = self.choice.above
        chosen = [index for index in order if least is None or scores[index] >= least][: self.choice.best]
        if not chosen:
            return Written("", f"the best, {self.choice.candidates[order[0]]!r}, scores {scores[order[0]]:.2f} only")
        said = ", ".join(f"{scores[index]:.2f}" for index in chosen)
        return Written(", ".join(self.choice.candidates[index] for index in chosen), f"score {said}")


def load_ranker(name: str, choice: Choice, *, revision: str | None, device: str, progress: Progress) -> Ranker:
    """Returns the CLIP model called ``name`` with the candidates embedded."""
    import torch
    from torch.nn import functional

    for template in choice.templates:
        if SLOT not in template:
            raise UserError(
                f"{template!r} has no place for a candidate.", where="--template", fix=f"Write {SLOT} into it."
            )
    model = load_clip(name, revision=revision, device=device, progress=progress)
    texts = [[template.replace(SLOT, tag) for tag in choice.candidates] for template in choice.templates]
    warn_of_cuts(model, [text for several in texts for text in several], "candidate", progress)
    vectors = torch.stack([embed_captions(model, several) for several in texts]).mean(dim=0)
    return Ranker(model, name, choice, functional.normalize(vectors, dim=-1))


def read_candidates(path: Path, progress: Progress) -> tuple[str, ...]:
    """Returns the lines of a file, each a caption or a tag; blank lines are none."""
    lines = [text for line in read_lines(path) if (text := one_line(line))]
    different = tuple(dict.fromkeys(lines))
    if len(different) < 2:
        what = f"has {counted(len(different), 'candidate')}, so that there is nothing to choose."
        raise UserError(what, where=str(path), fix="Write one caption or tag per line.")
    twice = sorted({line for line in lines if lines.count(line) > 1}) if len(lines) > len(different) else []
    if twice:
        progress.say(f"{path}: {counted(len(twice), 'line')} stand more than once ({first_few(twice)})")
    return different

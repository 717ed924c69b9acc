"""How right a model is: drawn from captions of scenes that it never saw, and read by the judge."""

from __future__ import annotations

import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.pictures import draw_pictures
from limner.builtin.scoring import Aspect, Score, Tally, score
from limner.builtin.world import SIDE, Scene, caption, draw, scene_at
from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.naming import public_name
from limner.core.rng import stream

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.builtin.judge import Judge
    from limner.evaluation.measurement import Measurement
    from limner.models.sd1 import SD1Model

COUNT, SEED, STEPS, GUIDANCE = 1000, 0, 20, 5.0
BATCH = 32
TIMED = 9
"""Pictures that are drawn one by one, to tell how long one takes."""
SHOWN = 48
"""Pictures that are kept for the contact sheet."""

OnProgress = Callable[[str, int, int], None]


# ------------------------------------------------------------------------------------------------------ what is asked
@dataclass(frozen=True)
class Bar:
    """A row of the table, and the least share that was asked for before anything was measured."""

    aspect: Aspect
    name: str
    least: float | None
    """None: measured too, but no bar was set."""


BARS = (
    Bar("thing", "each thing is there", 0.95),
    Bar("colour", "each thing is there in its colour", 0.95),
    Bar("background", "background", 0.95),
    Bar("count", "number of things", 0.90),
    Bar("both", "two differing things, each in its colour, nothing else", 0.85),
    Bar("relation", "left of, right of, above, below", 0.80),
    Bar("style", "style", None),
    Bar("everything", "everything at once", None),
)


# ---------------------------------------------------------------------------------------------------------- measuring
@dataclass(frozen=True)
class Sample:
    """A generated picture for the contact sheet."""

    caption: str
    image: Image
    wrong: tuple[Aspect, ...]


@dataclass(frozen=True)
class Measured:
    """Everything that the report tells."""

    model: str
    count: int
    seed: int
    steps: int
    guidance: float
    generated: Tally
    originals: Tally
    """The pictures that the world itself draws of the same scenes: what the judge makes of the truth."""
    reconstructed: Tally
    """Those pictures after the autoencoder."""
    decibels: float
    """Mean peak signal-to-noise ratio of the reconstructions."""
    seconds: float
    """Median time of one picture, drawn by itself, from caption to pixels."""
    threads: int
    machine: str
    cut_captions: int
    """Captions of which the text encoder did not read the end."""
    samples: tuple[Sample, ...]
    """The first pictures of the row, right and wrong."""
    retrieval: Measurement | None
    """How the dual encoder in the model's folder finds pictures by captions and back; None where there is none."""


def measure(
    model: str | Path,
    *,
    judge: Judge,
    count: int = COUNT,
    seed: int = SEED,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_progress: OnProgress | None = None,
) -> Measured:
    """Draws a picture for each of ``count`` captions of held-out scenes on the CPU, and scores what the judge sees."""
    import torch

    from limner.models.sd1 import SD1

    if count < 1:
        raise UserError(f"{count} is less than 1.", where="--count", fix="The bars are for 1000.")
    tell = on_progress or (lambda stage, done, total: None)
    loaded = validate(SD1, {"path": str(model)}, where="MODEL").load()
    if loaded.default_size != SIDE:
        raise UserError(
            f"it draws {loaded.default_size} pixels a side, and the judge reads {SIDE}.",
            where=str(model),
            fix="Name a model that was trained on the picture world.",
        )
    drawn = Drawn(loaded, count, seed, steps, guidance)
    seconds, drawn.cut_captions = drawn.seconds(), 0
    samples: list[Sample] = []
    generated = Tally()
    for position, (image, one) in enumerate(drawn.judged(judge, tell)):
        generated.add(one)
        if len(samples) < SHOWN:
            samples.append(Sample(drawn.captions[position], image, one.wrong()))
    originals, reconstructed, decibels = _autoencoder(loaded, judge, drawn.scenes, tell)
    return Measured(
        model=public_name(loaded.source.name),
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        generated=generated,
        originals=originals,
        reconstructed=reconstructed,
        decibels=decibels,
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=f"{platform.machine()}, PyTorch {torch.__version__}",
        cut_captions=drawn.cut_captions,
        samples=tuple(samples),
        retrieval=_retrieval(loaded.folder / "clip", count, seed),
    )


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _scores(judge: Judge, scenes: Sequence[Scene], images: Sequence[Image]) -> list[Score]:
    return [score(scene, reading) for scene, reading in zip(scenes, judge.read(images), strict=True)]


class Drawn:
    """The pictures that a model draws of the captions of held-out scenes, and what the judge sees in them.

    Picture k has caption k of ``seed`` and a noise of its own, ``seed`` + k, so it is the same whatever the count.
    """

    def __init__(self, model: SD1Model, count: int, seed: int, steps: int, guidance: float) -> None:
        self.scenes = [scene_at(seed, position, split="test") for position in range(count)]
        self.captions = [
            caption(scene, stream(seed, position, "caption to measure"), complete=True)
            for position, scene in enumerate(self.scenes)
        ]
        self.cut_captions = 0
        """Captions of which the text encoder did not read the end, of all pictures that were drawn."""
        self._model, self._seed, self._steps, self._guidance = model, seed, steps, guidance

    def judged(self, judge: Judge, tell: OnProgress) -> Iterator[tuple[Image, Score]]:
        """Yields each picture, in order, with its score."""
        for batch in _batches(len(self.scenes)):
            images = self.pictures(batch)
            yield from zip(images, _scores(judge, self.scenes[batch.start : batch.stop], images), strict=True)
            tell("captions drawn", batch.stop, len(self.scenes))

    def pictures(self, batch: range) -> list[Image]:
        """Returns the pictures of these captions, drawn at once."""
        from limner.evaluation.generate import GenerateRequest, generate

        request = GenerateRequest(
            prompts=tuple(self.captions[position] for position in batch),
            seed=self._seed + batch.start,
            spread=True,
            steps=self._steps,
            guidance=self._guidance,
        )
        drawn = list(generate(self._model, request, batch_size=len(batch)))
        self.cut_captions += sum(bool(picture.warnings) for picture in drawn)
        return [picture.image for picture in drawn]

    def seconds(self) -> float:
        """Returns the median time of a few pictures drawn one by one, from caption to pixels."""
        times = []
        for position in range(min(TIMED, len(self.captions))):
            begun = time.perf_counter()
            self.pictures(range(position, position + 1))
            times.append(time.perf_counter() - begun)
        return statistics.median(times)


def _autoencoder(
    model: SD1Model, judge: Judge, scenes: Sequence[Scene], tell: OnProgress
) -> tuple[Tally, Tally, float]:
    """Returns the scores of the scenes' own pictures and of their reconstructions, and the mean ratio in decibels."""
    originals, reconstructed, decibels = Tally(), Tally(), 0.0
    for batch in _batches(len(scenes)):
        here = [scenes[position] for position in batch]
        images = [draw(scene) for scene in here]
        again = reconstruct(model, images)
        for tally, pictures in ((originals, images), (reconstructed, again)):
            for one in _scores(judge, here, pictures):
                tally.add(one)
        decibels += sum(peak_signal_to_noise(*pair) for pair in zip(images, again, strict=True))
        tell("originals and reconstructions read", batch.stop, len(scenes))
    return originals, reconstructed, decibels / len(scenes)


def _retrieval(clip: Path, count: int, seed: int) -> Measurement | None:
    """Returns R@k among ``count`` held-out pictures that a caption tells from each other, one complete caption each."""
    from limner.data.table import Table
    from limner.evaluation.retrieval import Retrieval
    from limner.models.clip import Clip

    if not clip.is_dir() or count < 2:
        return None
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder), count=count, seed=seed, captions=1, split="test", distinct=True)
        return Retrieval(dataset=Table(path=Path(folder)), name="pictures").measure(Clip(path=str(clip)).load())


def reconstruct(model: SD1Model, images: Sequence[Image]) -> list[Image]:
    """Returns the pictures encoded to the posterior's mean and decoded, rounded to 8 bits a colour."""
    import torch
    from PIL import Image as PillowImage

    from limner.data.buckets import Placement
    from limner.data.image import to_pixels

    whole = [Placement(image.size, (0, 0, *image.size), flip=False) for image in images]
    pixels = torch.stack([to_pixels(image, placement) for image, placement in zip(images, whole, strict=True)])
    moments = model.encode_images(pixels)
    decoded = model.decode_latents(model.sample_latents(moments, torch.zeros_like(moments.chunk(2, dim=1)[0])))
    if not bool(torch.isfinite(decoded).all()):
        raise UserError("a reconstruction is not finite (NaN).", where="vae", fix="The autoencoder is damaged.")
    levels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [PillowImage.fromarray(one.permute(1, 2, 0).contiguous().cpu().numpy()) for one in levels]


def peak_signal_to_noise(first: Image, second: Image) -> float:
    """Returns 10 log10(255^2 / mean squared difference) of two pictures' 8-bit values, in decibels."""
    import numpy as np

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean_square = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / mean_square) if mean_square else math.inf

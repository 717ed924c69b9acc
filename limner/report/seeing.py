"""The pictures of a comparison as networks see them, and what the built-in world's judge reads in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.core.progress import Progress
from limner.report.copies import Nearest, calibrate
from limner.report.drawing import BASE, Images
from limner.report.encoders import load_encoders, world_encoder
from limner.report.prompts import SUBJECT
from limner.report.scores import Drawn, Known, Score, Seen, judged, scores

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.config import RunConfig
    from limner.report.encoders import Encoder
    from limner.session import Session
    from limner.training.validation import HeldOut


@dataclass(frozen=True)
class Given:
    """The pictures that a run was given, as they are compared with those that are drawn."""

    learned: list[Image]
    """Those that it learned from, or some of them."""
    held_out: list[Image]


@dataclass(frozen=True)
class NearestPictures:
    """Of each drawn picture that asks for what was learned: the nearest one that was learned from."""

    encoder: str
    threshold: float
    taken_from: str
    of: Mapping[int, Nearest]
    """By the place of the drawn picture."""


@dataclass(frozen=True)
class Sight:
    """What networks say of a comparison."""

    scores: Mapping[str, list[Score]]
    """Of each checkpoint beside the base."""
    left_out: list[tuple[str, str]]
    """What could not be measured, and why."""
    nearest: Mapping[str, NearestPictures]
    """Of each model; empty where nothing is known of copies."""


def given(config: RunConfig, learned: HeldOut, held_out: HeldOut | None) -> Given:
    """Reads the pictures of both parts."""
    from limner.data.image import decode

    def read(part: HeldOut | None) -> list[Image]:
        return [
            decode(
                one.example.image.read(), background=config.images.background_rgb, max_pixels=config.images.max_pixels
            ).image
            for one in (() if part is None else part.pictures)
        ]

    return Given(read(learned), read(held_out))


def look(
    config: RunConfig, session: Session, drawn: Drawn, images: Images, pictures: Given, progress: Progress
) -> Sight:
    """Shows all pictures to the encoders that are to be had, one after another, and returns what they say."""
    encoders, left_out = load_encoders(config.report, session.precision.device, progress)
    of_world = any(one.scene is not None for one in drawn.asked)
    if of_world:
        encoders.append(world_encoder())
    checkpoints = [name for name in images if name != BASE]
    found: dict[str, list[Score]] = {name: [] for name in checkpoints}
    nearest: dict[str, NearestPictures] = {}
    for number, encoder in enumerate(encoders):
        progress.stage("networks that look at the pictures", number, len(encoders))
        seen = _see(encoder, images, pictures)
        for name in checkpoints:
            own, without = scores(seen, drawn, BASE, name)
            found[name] += own
            left_out += [one for one in without if one not in left_out]
        if seen.copies is not None:  # of several encoders the last, which looks closest
            nearest = {name: _nearest(seen, drawn, name) for name in images}
    progress.stage("networks that look at the pictures", len(encoders), len(encoders))
    if of_world:
        readings = {name: _readings(drawn, own) for name, own in images.items()}
        for name in checkpoints:
            found[name] = judged(readings, BASE, name) + found[name]
    return Sight(found, left_out, nearest)


def _see(encoder: Encoder, images: Images, pictures: Given) -> Seen:
    import numpy

    learned = encoder.pictures(pictures.learned)
    held_out = encoder.pictures(pictures.held_out) if pictures.held_out else numpy.empty((0, learned.shape[1]))
    return Seen(
        encoder,
        Known(learned, held_out),
        {name: encoder.pictures(own) for name, own in images.items()},
        calibrate(learned, held_out),
    )


def _nearest(seen: Seen, drawn: Drawn, name: str) -> NearestPictures:
    copies = seen.copies
    assert copies is not None
    places = [place for place, one in enumerate(drawn.each()) if one.group in SUBJECT]
    of = dict(zip(places, copies.of(seen.drawn[name][places]), strict=True)) if places else {}
    return NearestPictures(seen.encoder.name, copies.threshold, f"{copies.pictures} pictures, {copies.taken_from}", of)


def _readings(drawn: Drawn, images: list[Image]) -> list[dict[str, float]]:
    """Returns what is right in each picture of a scene of the built-in world, as shares."""
    from limner.builtin.judge import load_judge
    from limner.builtin.scoring import score

    pairs = [(one.scene, image) for one, image in zip(drawn.each(), images, strict=True) if one.scene is not None]
    readings = load_judge().read([image for _, image in pairs])
    found = [score(scene, reading) for (scene, _), reading in zip(pairs, readings, strict=True)]
    return [
        {
            "things": one.things_right / one.things_asked,
            "things in their colour": one.colours_right / one.things_asked,
            "background": float(one.background),
            "style": float(one.style),
            "number": float(one.count),
        }
        for one in found
    ]

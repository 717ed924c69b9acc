"""Class pictures for DreamBooth (arXiv:2208.12242, section 3.3), drawn by the base model: once, and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import limner
from limner.core.errors import UserError
from limner.core.rundir import write_json
from limner.data.bad_image import BadImage
from limner.data.buckets import MOST_PIXELS
from limner.data.class_pictures import RECORD, ClassDrawing, drawn_name
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from PIL.Image import Image

_REMEDY = (
    "Name another folder with dataset.class_path, or remove the limner-class-*.png from this one and they are drawn "
    "anew; without dataset.class_pictures the pictures are used as they are."
)


@dataclass(frozen=True)
class ClassRequest:
    """What decides the drawn pictures, beside the model."""

    prompt: str
    side: int
    """Width and height in pixels."""
    steps: int
    guidance: float
    scheduler: str
    seed: int


def class_request(prompt: str, side: int, drawing: ClassDrawing) -> ClassRequest:
    """Returns what decides the pictures; how many are drawn at once does not."""
    return ClassRequest(prompt, side, drawing.steps, drawing.guidance, drawing.scheduler, drawing.seed)


# --------------------------------------------------------------------------------------------------------- the record
def check_record(
    folder: Path, request: ClassRequest, *, drawn: int, model: str = "", identity: Mapping[str, str] | None = None
) -> None:
    """Raises UserError if the ``drawn`` pictures of a folder were asked for in another way, or drawn by another model.

    ``identity`` holds the hashes of the model called ``model``; without it only the request is compared.
    """
    if drawn == 0:
        return
    record = _read_record(folder / RECORD)
    if record is None:
        raise UserError(
            f"has {drawn} drawn class pictures and no {RECORD} that says what drew them.",
            where=str(folder),
            fix=_REMEDY,
        )
    asked = dataclasses.asdict(request)
    differences = [
        f"{name} was {record['request'].get(name)!r} and is {value!r} now"
        for name, value in asked.items()
        if record["request"].get(name) != value
    ]
    if identity is not None and record["model"] != dict(identity):
        parts = [name for name in identity if record["model"].get(name) != identity[name]]
        differences.append(
            f"they are by {record['name']!r} and this run starts from {model!r}, which differs in {', '.join(parts)}"
        )
    if differences:
        raise UserError(f"its class pictures do not fit: {'; '.join(differences)}.", where=str(folder), fix=_REMEDY)


def write_record(
    folder: Path, request: ClassRequest, *, model: str, identity: Mapping[str, str], precision: str
) -> None:
    """Writes how the pictures of the folder are drawn. The precision is told and not compared."""
    values = {"name": model, "model": dict(identity), "request": dataclasses.asdict(request), "precision": precision}
    write_json(folder / RECORD, {**values, "version": limner.__version__})


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found["request"], dict) and isinstance(found["model"], dict) and isinstance(found["name"], str):
            return dict(found)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError("is damaged.", where=str(path), fix=_REMEDY)


# -------------------------------------------------------------------------------------------------------- the drawing
def draw_missing(
    model: DiffusionModel,
    folder: Path,
    request: ClassRequest,
    missing: Sequence[int],
    *,
    drawn: Mapping[int, Path],
    batch_size: int,
) -> Iterator[tuple[str, ...]]:
    """Draws the pictures of these numbers into ``folder``; gives, after each was written, the warnings about it.

    Picture n has the seed ``request.seed`` + n and nothing else of its own: any order, batch and interruption give the
    same set. ``drawn`` are those that are there. Raises UserError for a picture that shows nothing or that is another
    one again: such a set would teach the class away.
    """
    from limner.evaluation.generate import GenerateRequest, generate
    from limner.evaluation.picture import save_picture

    seen = {_hash(_opened(path)): number for number, path in drawn.items()} if missing else {}
    for first, count in _ranges(missing):
        asked = GenerateRequest(
            prompts=(request.prompt,),
            seed=request.seed + first,
            steps=request.steps,
            guidance=request.guidance,
            scheduler=request.scheduler,
            count=count,
            size=(request.side, request.side),
        )
        for number, picture in enumerate(generate(model, asked, batch_size=batch_size), start=first):
            _refuse_useless(picture.image, number, seen, request)
            save_picture(picture, folder / drawn_name(number))
            yield picture.warnings


def _refuse_useless(image: Image, number: int, seen: dict[str, int], request: ClassRequest) -> None:
    from limner.data.duplicates import signature
    from limner.data.plain import one_colour

    colour, other = one_colour(signature(image)), seen.setdefault(_hash(image), number)
    if not colour and other == number:
        return
    what = f"is of one colour ({colour})" if colour else f"equals picture {other}, although their seeds differ"
    raise UserError(
        f"class picture {number}, drawn from {request.prompt!r}, {what}.",
        where="dataset.class_drawing",
        fix="The model is damaged, or overflows in half precision (train.precision: fp32); draw with it to see: "
        "limner generate. More class_drawing.steps may help.",
    )


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Gives first number and count of each stretch without a gap."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], end - start
            start = end


def _hash(image: Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _opened(path: Path) -> Image:
    from limner.data.image import decode

    try:
        return decode(path.read_bytes(), background=(255, 255, 255), max_pixels=MOST_PIXELS).image
    except (OSError, BadImage) as error:
        raise UserError(f"cannot be read: {error}.", where=str(path), fix="Remove it: it is drawn anew.") from None

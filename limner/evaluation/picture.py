"""Pictures that carry their recipe: a PNG with the text that A1111 writes, and our own as JSON beside it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import limner
from limner.core.errors import UserError
from limner.core.naming import slug
from limner.core.rundir import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

A1111_CHUNK, LIMNER_CHUNK = "parameters", "limner"
_NUMBERED = re.compile(r"(\d{4,})_")
_NEGATIVE = "Negative prompt:"
_FIELD = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
_FEWEST_FIELDS = 3  # a last line with fewer "name: value" pairs is part of the prompt


@dataclass(frozen=True)
class UsedAdapter:
    """A LoRA that took part."""

    name: str
    weight: float
    hash: str
    """The first 12 digits of the SHA-256 of its tensors, as A1111 counts it."""


@dataclass(frozen=True)
class UsedEmbedding:
    """A textual-inversion file that was loaded."""

    token: str
    hash: str
    """The first 12 digits of the SHA-256 of the file, as A1111 counts it."""


@dataclass(frozen=True)
class UsedTextEncoder:
    """A tuned text encoder that stood in place of the model's own."""

    name: str
    blend: float
    hash: str
    """The first 12 digits of the SHA-256 of the weights that came of both."""


@dataclass(frozen=True)
class PictureSettings:
    """Everything that makes the same picture again."""

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    """Limner's name of the sampler."""
    sampler: str
    """A1111's name of it."""
    width: int
    height: int
    model: str
    adapters: tuple[UsedAdapter, ...] = ()
    embeddings: tuple[UsedEmbedding, ...] = ()
    text_encoder: UsedTextEncoder | None = None
    version: str = limner.__version__


@dataclass(frozen=True)
class Picture:
    """A picture that was generated."""

    image: Image
    settings: PictureSettings
    warnings: tuple[str, ...] = ()
    """What did not go as asked, one sentence each: a prompt that was cut, for instance."""


@dataclass(frozen=True)
class PictureText:
    """What the text of a PNG says."""

    width: int
    height: int
    settings: PictureSettings | None
    """Limner's own, where it made the picture."""
    prompt: str | None
    negative: str | None
    parameters: Mapping[str, str]
    """The named values of A1111's text: ``Steps``, ``Sampler``, ``Seed``, ..."""


# -------------------------------------------------------------------------------------------------------- writing
def save_picture(picture: Picture, path: Path) -> Path:
    """Writes a picture with its recipe as PNG, whole or not at all, and returns the path."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(A1111_CHUNK, a1111_text(picture.settings))  # Pillow takes iTXt where Latin-1 does not suffice
    info.add_text(LIMNER_CHUNK, json.dumps(dataclasses.asdict(picture.settings)))
    buffer = io.BytesIO()
    picture.image.save(buffer, format="PNG", pnginfo=info)
    write_atomic(path, buffer.getvalue())
    return path


def save_numbered(picture: Picture, folder: Path) -> Path:
    """Writes a picture as the next of its folder, ``0007_seed42_a-red-dog.png``; nothing is ever overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(match.group(1)) for entry in folder.iterdir() if (match := _NUMBERED.match(entry.name))]
    number = max(numbers, default=0)
    words = slug(picture.settings.prompt)
    while True:
        number += 1
        name = f"{number:04d}_seed{picture.settings.seed}{f'_{words}' if words else ''}.png"
        try:
            (folder / name).touch(exist_ok=False)  # reserves the name against another process
        except FileExistsError:
            continue
        try:
            return save_picture(picture, folder / name)
        except BaseException:
            (folder / name).unlink()
            raise


def a1111_text(settings: PictureSettings) -> str:
    """Returns the text that A1111 writes under ``parameters``: prompt, negative prompt, one line of named values."""
    tags = "".join(f" <lora:{used.name}:{used.weight:g}>" for used in settings.adapters)
    values: dict[str, Any] = {
        "Steps": settings.steps,
        "Sampler": settings.sampler,
        "CFG scale": f"{settings.guidance:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": settings.model,
    }
    if settings.adapters:
        values["Lora hashes"] = ", ".join(f"{used.name}: {used.hash}" for used in settings.adapters)
    if settings.embeddings:
        values["TI hashes"] = ", ".join(f"{used.token}: {used.hash}" for used in settings.embeddings)
    if settings.text_encoder is not None:
        encoder = settings.text_encoder
        values["Text encoder"] = f"{encoder.name}, blend {encoder.blend:g}, hash {encoder.hash}"
    values["Version"] = f"Limner {settings.version}"
    negative = f"\n{_NEGATIVE} {settings.negative}" if settings.negative else ""
    line = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in values.items())
    return f"{settings.prompt}{tags}{negative}\n{line}".strip()


def _quoted(value: str) -> str:
    """Returns a value as A1111 writes it: as JSON where it would otherwise be cut at a comma, colon or line end."""
    return json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ",:\n") else value


# -------------------------------------------------------------------------------------------------------- reading
def read_picture(path: Path) -> PictureText:
    """Returns size and recipe of a PNG without decoding its pixels; raises UserError where it is none or damaged."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
            texts = {key: value for key, value in image.info.items() if isinstance(value, str)}
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise UserError(f"cannot be read as PNG: {error}.", where=str(path), fix="Name a whole PNG file.") from None
    settings = _own_settings(texts[LIMNER_CHUNK], path) if LIMNER_CHUNK in texts else None
    if A1111_CHUNK not in texts:
        return PictureText(width, height, settings, None, None, {})
    prompt, negative, parameters = parse_a1111(texts[A1111_CHUNK])
    return PictureText(width, height, settings, prompt, negative, parameters)


def parse_a1111(text: str) -> tuple[str, str, dict[str, str]]:
    """Returns prompt, negative prompt and the named values of a ``parameters`` text."""
    *lines, last = text.strip().split("\n")
    found = _FIELD.findall(last)
    if len(found) < _FEWEST_FIELDS:
        lines, found = [*lines, last], []
    start = next((index for index, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).strip().removeprefix(_NEGATIVE).strip()
    return "\n".join(lines[:start]).strip(), negative, {name: _unquoted(value) for name, value in found}


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value.strip()


def _own_settings(text: str, path: Path) -> PictureSettings:
    """Returns the settings of our own chunk, every value checked: the file may be a stranger's."""
    try:
        values = json.loads(text)
        return PictureSettings(
            prompt=_text(values["prompt"]),
            negative=_text(values["negative"]),
            seed=_whole(values["seed"]),
            steps=_whole(values["steps"]),
            guidance=_number(values["guidance"]),
            scheduler=_text(values["scheduler"]),
            sampler=_text(values["sampler"]),
            width=_whole(values["width"]),
            height=_whole(values["height"]),
            model=_text(values["model"]),
            adapters=tuple(
                UsedAdapter(_text(used["name"]), _number(used["weight"]), _text(used["hash"]))
                for used in values["adapters"]
            ),
            embeddings=tuple(
                UsedEmbedding(_text(used["token"]), _text(used["hash"]))
                for used in values.get("embeddings", ())  # older pictures have none
            ),
            text_encoder=_text_encoder(values.get("text_encoder")),
            version=_text(values["version"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"its Limner text is damaged ({type(error).__name__}: {error}).",
            where=str(path),
            fix="The picture itself may be whole; its recipe is not.",
        ) from None


def _text_encoder(value: Any) -> UsedTextEncoder | None:
    if value is None:
        return None
    return UsedTextEncoder(_text(value["name"]), _number(value["blend"]), _text(value["hash"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return float(value)

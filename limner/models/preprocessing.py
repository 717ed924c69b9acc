"""How a dual encoder's pictures were made for it: resized, cropped, and told in which colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

OPENAI_MEANS = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each colour in the pictures of arXiv:2103.00020, as all of OpenAI's CLIP models subtract it."""
OPENAI_STDS = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of each colour there."""

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
_BY_NUMBER: dict[int, Interpolation] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming",
}  # fmt: skip
_NUMBERS = {name: number for number, name in _BY_NUMBER.items()}
_MOST_PIXELS = 89_478_485  # Pillow's limit for a picture in a file, here for one that is made in between
_OWN_SETTINGS = "Set the picture's preparation to shortest edge and centre crop, or use another model."


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a picture to what a picture tower reads."""

    side: int
    """Both sides, in pixels, of what the tower reads."""
    means: tuple[float, ...] = OPENAI_MEANS
    """Mean of each colour, of values in [0, 1], that is subtracted."""
    stds: tuple[float, ...] = OPENAI_STDS
    """Deviation of each colour that is divided by."""
    resize: int | None = None
    """The shorter side is scaled to this many pixels, then the middle is cut out; None: to ``side``."""
    squash: bool = False
    """The whole picture is pressed into the square instead, without a cut."""
    interpolation: Interpolation = "bicubic"

    def prepare(self, image: Image.Image) -> Tensor:
        """Returns the picture as the tower was made for it, float32 [3, H, W] in [-1, 1], colours not yet centred.

        The steps, their order and their rounding are those of transformers' CLIPImageProcessor with Pillow.
        """
        import numpy
        import torch
        from PIL import Image

        picture = image.convert("RGB")
        method = Image.Resampling(_NUMBERS[self.interpolation])
        scaled = self._scaled(picture.size)
        left, top = (scaled[0] - self.side) // 2, (scaled[1] - self.side) // 2
        if scaled[0] * scaled[1] <= _MOST_PIXELS:
            picture = picture.resize(scaled, method).crop((left, top, left + self.side, top + self.side))
        else:  # a strip of 20000 x 1 pixels would not fit into memory when it is enlarged: only its middle is made
            x, y = picture.width / scaled[0], picture.height / scaled[1]
            box = (left * x, top * y, (left + self.side) * x, (top + self.side) * y)
            picture = picture.resize((self.side, self.side), method, box=box)
        return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1).contiguous().float() / 127.5 - 1

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.squash:
            return self.side, self.side
        short = self.resize or self.side
        long = int(short * max(size) / min(size))
        return (short, long) if size[0] <= size[1] else (long, short)

    def notices(self, where: Path) -> tuple[str, ...]:
        """Returns how the pictures of a training differ from these, where that is more than rounding."""
        told = []
        if self.squash:
            told.append(f"{where}: this model was made with whole pictures pressed into a square; training cuts them")
        if self.resize not in (None, self.side):
            told.append(
                f"{where}: this model was made with pictures scaled to {self.resize} pixels of which the middle "
                f"{self.side} are read; training reads all that a square holds"
            )
        if self.interpolation not in ("bicubic", "lanczos"):
            told.append(f"{where}: this model was made with {self.interpolation} scaling; training scales by Lanczos")
        return tuple(told)

    def as_transformers(self) -> dict[str, object]:
        """Returns the same as settings of transformers' CLIPImageProcessor."""
        square = {"height": self.side, "width": self.side}
        return {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": square,
            "size": square if self.squash else {"shortest_edge": self.resize or self.side},
            "resample": _NUMBERS[self.interpolation],
            "rescale_factor": 1 / 255,
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.means),
            "image_std": list(self.stds),
        }

    def as_open_clip(self) -> dict[str, object]:
        """Returns the same as open_clip's ``preprocess_cfg``; raises UserError where that cannot say it."""
        if self.resize not in (None, self.side) or self.interpolation not in ("bicubic", "bilinear"):
            raise UserError(
                f"scales to {self.resize or self.side} pixels by {self.interpolation}; open_clip has no name for that.",
                where="export: open_clip",
                fix="Take the export kind transformers.",
            )
        return {
            "size": [self.side, self.side],
            "mode": "RGB",
            "mean": list(self.means),
            "std": list(self.stds),
            "interpolation": self.interpolation,
            "resize_mode": "squash" if self.squash else "shortest",
        }


# ------------------------------------------------------------------------------------------ from a model's own files
def from_transformers(settings: Mapping[str, Any], side: int, *, where: Path) -> Preprocessing:
    """Returns what a preprocessor_config.json says; raises UserError for steps that are not done here."""
    off = [key for key in ("do_resize", "do_rescale") if settings.get(key, True) is not True]
    if off or abs(float(settings.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise _unknown(f"{off[0]}: false" if off else f"rescale_factor: {settings['rescale_factor']!r}", where)
    size = settings.get("size", side)
    square = isinstance(size, dict) and size.get("height") is not None and size.get("height") == size.get("width")
    resize = size if isinstance(size, int) else size.get("height" if square else "shortest_edge")
    if type(resize) is not int or resize < 1:
        raise _unknown(f"size: {size!r}", where)
    crop = settings.get("crop_size", side)
    crops = settings.get("do_center_crop", True) is True
    cut = (crop if isinstance(crop, int) else crop.get("height")) if crops else resize
    if cut != side or resize < side or (square and resize != side) or not (crops or square):
        raise UserError(
            f"makes pictures of {cut} pixels, and the picture tower reads {side}.", where=str(where), fix=_OWN_SETTINGS
        )
    number = settings.get("resample", 3)
    if number not in _BY_NUMBER:
        raise _unknown(f"resample: {number!r}", where)
    means, stds = _colours(settings, "image_mean", "image_std", where)
    if settings.get("do_normalize", True) is not True:
        means, stds = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Preprocessing(side, means, stds, None if resize == side else resize, square, _BY_NUMBER[number])


def from_open_clip(settings: Mapping[str, Any], side: int, *, where: Path) -> Preprocessing:
    """Returns what the ``preprocess_cfg`` of an open_clip_config.json says; raises UserError for steps unknown here.

    open_clip's PreprocessCfg has these defaults: OpenAI's colours, bicubic, the shortest edge.
    """
    size = settings.get("size", side)
    if (list(size) if isinstance(size, list | tuple) else [size, size]) != [side, side]:
        raise UserError(
            f"makes pictures of {size}, and the picture tower reads {side}.", where=str(where), fix=_OWN_SETTINGS
        )
    mode, interpolation = settings.get("resize_mode") or "shortest", settings.get("interpolation") or "bicubic"
    if settings.get("mode", "RGB") != "RGB" or mode not in ("shortest", "squash"):
        raise _unknown(f"mode: {settings.get('mode', 'RGB')!r}, resize_mode: {mode!r}", where)
    if interpolation not in ("bicubic", "bilinear"):
        raise _unknown(f"interpolation: {interpolation!r}", where)
    means, stds = _colours(settings, "mean", "std", where)
    method: Interpolation = "bicubic" if interpolation == "bicubic" else "bilinear"
    return Preprocessing(side, means, stds, None, mode == "squash", method)


def _colours(
    settings: Mapping[str, Any], mean: str, std: str, where: Path
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = []
    for key, usual in ((mean, OPENAI_MEANS), (std, OPENAI_STDS)):
        values = settings.get(key, usual)
        if (
            not isinstance(values, list | tuple)
            or len(values) != 3
            or not all(isinstance(v, int | float) for v in values)
        ):
            raise _unknown(f"{key}: {values!r}", where)
        found.append(tuple(float(value) for value in values))
    if min(found[1]) <= 0:
        raise _unknown(f"{std}: {list(found[1])!r}", where)
    return found[0], found[1]


def _unknown(setting: str, where: Path) -> UserError:
    return UserError(
        f"prepares pictures in a way that Limner does not know: {setting}.", where=str(where), fix=_OWN_SETTINGS
    )

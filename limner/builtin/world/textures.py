"""Grain, washes and pencil strokes: still textures, made once, that styles lay over a picture."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Plane = NDArray[np.float32]


@functools.cache
def cloudy(side: int, cells: int, seed: int) -> Plane:
    """Returns smooth noise of mean 0.5 in [0, 1], [side, side], with ``cells`` lumps along a side."""
    import numpy as np
    from PIL import Image

    # RandomState, because its numbers are promised to stay the same in every release of numpy.
    coarse = np.random.RandomState(seed).rand(cells, cells).astype(np.float32)
    values = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return _standardised(values, 4)


@functools.cache
def strokes(side: int, degrees: float, width: float, seed: int) -> Plane:
    """Returns pencil strokes, [side, side], in [0, 1] with mean 0.5: noise drawn out along one direction.

    ``width`` of a stroke in pixels; a stroke is some ten times as long.
    """
    import numpy as np
    from PIL import Image

    reach = round(1.5 * side)
    coarse = np.random.RandomState(seed).rand(round(reach / width), round(reach / width / 10)).astype(np.float32)
    drawn_out = Image.fromarray(coarse).resize((reach, reach), Image.Resampling.BICUBIC)
    turned = drawn_out.rotate(degrees, Image.Resampling.BICUBIC)
    start = (reach - side) // 2
    return _standardised(np.asarray(turned, np.float32)[start : start + side, start : start + side], 3)


def _standardised(values: Plane, deviations: float) -> Plane:
    """Returns values of mean 0.5, so many standard deviations between 0 and 1; what lies beyond is cut off."""
    import numpy as np

    spread: Plane = np.clip((values - values.mean()) / (deviations * values.std()) + 0.5, 0, 1)
    return spread


def cutout(plane: Plane, side: int, rng: random.Random) -> Plane:
    """Returns a square out of a larger texture, [side, side, 1], so that no two pictures show the same grain."""
    y, x = rng.randrange(plane.shape[0] - side + 1), rng.randrange(plane.shape[1] - side + 1)
    return plane[y : y + side, x : x + side, None]


def as_floats(image: Image) -> Plane:
    """Returns an image's values in [0, 1]: [H, W] of a mask, [H, W, 3] of a picture."""
    import numpy as np

    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)


def as_image(pixels: Plane) -> Image:
    """Returns an RGB image of values in [0, 1], cut off outside, [H, W, 3]."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def blurred(plane: Plane, radius: float) -> Plane:
    """Returns the values blurred by a Gaussian of ``radius`` pixels; [H, W, 1] or [H, W, 3], in [0, 1]."""
    import numpy as np
    from PIL import Image, ImageFilter

    values = np.rint(plane * 255).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if plane.shape[-1] == 1 else values)
    return as_floats(image.filter(ImageFilter.GaussianBlur(radius))).reshape(plane.shape)

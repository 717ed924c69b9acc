"""How far two pictures are from each other, without a network that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def pixel_change(before: Image, after: Image) -> float:
    """Returns the mean absolute difference of two pictures of one size, as a share of the range of a colour."""
    import numpy as np

    one, other = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (before, after))
    return float(np.abs(one - other).mean() / 255)

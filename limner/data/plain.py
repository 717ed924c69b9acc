"""Pictures that show nothing: all of one colour, as the black ones that a safety checker leaves."""

from __future__ import annotations

from limner.data.duplicates import Signature

_SPREAD = 2
"""Levels of 255 by which the parts of a picture of one colour may differ: what JPEG adds."""


def one_colour(signature: Signature) -> str:
    """Returns '#rrggbb' if a picture is of one colour, else ""."""
    channels = [signature.thumbnail[channel::3] for channel in range(3)]
    if any(max(levels) - min(levels) > _SPREAD for levels in channels):
        return ""
    return "#" + "".join(f"{levels[0]:02x}" for levels in channels)

"""The ten colours of things with their shades, the neutral paints of details, and how far apart two colours look."""

from __future__ import annotations

import functools
import math
from typing import Literal

RGB = tuple[int, int, int]
Paint = Literal[
    "main", "light", "dark", "deep", "spot",
    "ink", "paper", "glass", "metal", "iron", "wood", "cream", "leaf",
    "moss", "flame", "smoke", "spray", "beak", "pollen",
    "apricot", "amber", "teal", "lagoon", "crimson", "wine", "gold", "plum", "violet",
]  # fmt: skip
"""The first five follow the thing's colour: its body, its lit side, its shadow side, lines and pale spots on it.

The second row is for small details and the same on every thing; the last one is the sitter's alone.
"""

SHADES: dict[str, dict[Paint, RGB]] = {
    "red": {
        "main": (216, 40, 44),
        "light": (240, 92, 84),
        "dark": (166, 22, 40),
        "deep": (112, 12, 30),
        "spot": (255, 244, 236),
    },
    "orange": {
        "main": (244, 128, 24),
        "light": (255, 168, 76),
        "dark": (204, 92, 10),
        "deep": (140, 58, 4),
        "spot": (255, 244, 228),
    },
    "yellow": {
        "main": (252, 210, 40),
        "light": (255, 234, 122),
        "dark": (228, 174, 16),
        "deep": (150, 108, 6),
        "spot": (255, 250, 232),
    },
    "green": {
        "main": (56, 154, 68),
        "light": (116, 198, 104),
        "dark": (26, 108, 52),
        "deep": (12, 68, 36),
        "spot": (242, 250, 232),
    },
    "blue": {
        "main": (36, 104, 220),
        "light": (98, 154, 240),
        "dark": (22, 62, 152),
        "deep": (12, 36, 100),
        "spot": (236, 244, 255),
    },
    "purple": {
        "main": (140, 58, 178),
        "light": (184, 112, 214),
        "dark": (96, 32, 130),
        "deep": (60, 16, 86),
        "spot": (246, 236, 255),
    },
    "pink": {
        "main": (247, 132, 180),
        "light": (255, 182, 212),
        "dark": (218, 86, 144),
        "deep": (148, 44, 92),
        "spot": (255, 246, 250),
    },
    "brown": {
        "main": (128, 78, 46),
        "light": (168, 116, 78),
        "dark": (88, 50, 28),
        "deep": (54, 28, 14),
        "spot": (250, 238, 222),
    },
    "black": {
        "main": (46, 45, 52),
        "light": (92, 92, 104),
        "dark": (24, 23, 29),
        "deep": (132, 132, 146),
        "spot": (226, 226, 234),
    },
    "white": {
        "main": (247, 246, 242),
        "light": (255, 255, 255),
        "dark": (206, 211, 222),
        "deep": (138, 146, 166),
        "spot": (196, 203, 218),
    },
}

COLOURS = tuple(SHADES)

NEUTRALS: dict[Paint, RGB] = {
    "ink": (40, 36, 44),
    "paper": (253, 250, 244),
    "glass": (208, 230, 242),
    "metal": (176, 182, 192),
    "iron": (84, 86, 98),
    "wood": (152, 124, 98),
    "cream": (242, 228, 202),
    "leaf": (122, 150, 104),
    "moss": (86, 116, 80),
    "flame": (255, 218, 130),
    "smoke": (220, 221, 228),
    "spray": (152, 204, 234),
    "beak": (236, 184, 96),
    "pollen": (250, 224, 136),
    "apricot": (250, 158, 74),
    "amber": (218, 112, 38),
    "teal": (14, 132, 138),
    "lagoon": (74, 196, 190),
    "crimson": (206, 30, 62),
    "wine": (140, 14, 48),
    "gold": (255, 206, 58),
    "plum": (92, 44, 128),
    "violet": (142, 84, 184),
}


def tone(colour: str, paint: Paint) -> RGB:
    """Returns the RGB value of a paint on a thing of this colour."""
    shades = SHADES[colour]
    return shades[paint] if paint in shades else NEUTRALS[paint]


def blended(first: RGB, second: RGB, share: float) -> RGB:
    """Returns ``first`` with a ``share`` in [0, 1] of ``second``."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@functools.cache
def lab(colour: RGB) -> tuple[float, float, float]:
    """Returns CIE 1976 L*a*b* of an sRGB value (IEC 61966-2-1, white point D65)."""
    linear = [value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    red, green, blue = linear

    def root(t: float) -> float:
        return t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29

    x = root((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505)
    y = root(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = root((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(first: RGB, second: RGB) -> float:
    """Returns how different two colours look: CIE 1976 delta E; about 2 is just seen, above 20 is plainly another."""
    return math.dist(lab(first), lab(second))

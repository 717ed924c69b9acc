"""A handful of pictures that Limner draws itself, with captions, so that a demo needs no photos."""

from __future__ import annotations

import colorsys
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIDE = 256
COLOURS = {"red": 0.0, "orange": 0.08, "yellow": 0.15, "green": 0.36, "blue": 0.6, "purple": 0.78}


def draw_folder(folder: Path, *, count: int = 12, seed: int = 0) -> list[str]:
    """Draws boats, houses, trees and balloons as PNG files with sidecar captions; returns the captions."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    captions = []
    for number in range(count):
        kind = list(_KINDS)[number % len(_KINDS)]
        name, hue = rng.choice(list(COLOURS.items()))
        night = rng.random() < 0.3
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        draw = ImageDraw.Draw(image)
        _sky(draw, night)
        _KINDS[kind](draw, rng, _colour(hue, 0.75, 0.85), _colour(hue, 0.8, 0.5))
        article = "an" if name[0] in "aeiou" else "a"
        caption = f"{article} {name} {kind} {'at night' if night else 'in the sun'}"
        image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption + "\n", encoding="utf-8")
        captions.append(caption)
    return captions


Colour = tuple[int, int, int]


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _sky(draw: ImageDraw, night: bool) -> None:
    for y in range(2 * SIDE):
        depth = y / (2 * SIDE)
        draw.line(
            (0, y, 2 * SIDE, y),
            fill=_colour(0.58, 0.85 - 0.4 * depth, 0.25) if night else _colour(0.56, 0.5 - 0.4 * depth, 1),
        )
    if night:
        draw.ellipse((380, 40, 450, 110), fill=(245, 240, 200))
        draw.ellipse((360, 30, 430, 100), fill=_colour(0.58, 0.8, 0.25))
    else:
        draw.ellipse((390, 40, 470, 120), fill=(255, 225, 90))


def _boat(draw: ImageDraw, rng: random.Random, light: Colour, dark: Colour) -> None:
    draw.rectangle((0, 360, 512, 512), fill=(50, 110, 170))
    x = rng.randint(120, 220)
    draw.polygon([(x, 340), (x + 200, 340), (x + 160, 410), (x + 40, 410)], fill=dark)
    draw.polygon([(x + 95, 120), (x + 95, 325), (x + 190, 325)], fill=light)
    draw.polygon([(x + 85, 150), (x + 85, 325), (x + 15, 325)], fill=(250, 245, 235))
    draw.line((x + 90, 110, x + 90, 345), fill=(90, 60, 40), width=8)


def _house(draw: ImageDraw, rng: random.Random, light: Colour, dark: Colour) -> None:
    draw.rectangle((0, 390, 512, 512), fill=(95, 150, 70))
    x = rng.randint(100, 210)
    draw.rectangle((x, 240, x + 200, 420), fill=light)
    draw.polygon([(x - 25, 245), (x + 225, 245), (x + 100, 130)], fill=dark)
    draw.rectangle((x + 80, 330, x + 125, 420), fill=(80, 50, 35))
    for left in (x + 20, x + 140):
        draw.rectangle((left, 275, left + 40, 315), fill=(255, 240, 170), outline=(70, 45, 30), width=5)


def _tree(draw: ImageDraw, rng: random.Random, light: Colour, dark: Colour) -> None:
    draw.rectangle((0, 400, 512, 512), fill=(120, 160, 80))
    x = rng.randint(190, 310)
    draw.polygon([(x - 22, 430), (x + 22, 430), (x + 12, 250), (x - 12, 250)], fill=(105, 70, 45))
    for dx, dy, radius, shade in ((-60, 250, 75, dark), (60, 245, 75, dark), (0, 180, 95, light), (5, 260, 70, light)):
        draw.ellipse((x + dx - radius, dy - radius, x + dx + radius, dy + radius), fill=shade)


def _balloon(draw: ImageDraw, rng: random.Random, light: Colour, dark: Colour) -> None:
    x, y = rng.randint(180, 320), rng.randint(150, 210)
    draw.polygon([(x - 70, y + 60), (x + 70, y + 60), (x + 25, y + 150), (x - 25, y + 150)], fill=dark)
    draw.ellipse((x - 105, y - 115, x + 105, y + 100), fill=light)
    draw.ellipse((x - 45, y - 115, x + 45, y + 100), fill=dark)
    draw.rectangle((x - 28, y + 185, x + 28, y + 225), fill=(140, 95, 55))
    for side in (-26, 26):
        draw.line((x + side, y + 145, x + side, y + 187), fill=(80, 60, 40), width=4)


_KINDS = {"boat": _boat, "house": _house, "tree": _tree, "balloon": _balloon}

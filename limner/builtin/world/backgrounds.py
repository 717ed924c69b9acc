"""What lies behind the things: patches over a gradient, in a palette that sets the things off."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from limner.builtin.world.colours import RGB, SHADES, blended, distance
from limner.builtin.world.curves import Outline, arc, box, curve, ellipse, moved, stroke
from limner.builtin.world.scenes import Scene
from limner.core.rng import stream

Palette = tuple[RGB, ...]
"""The colours of the large areas of a background, from the top of the picture to its bottom."""

PALETTES: dict[str, tuple[Palette, ...]] = {
    "plain": (
        ((244, 236, 220),), ((206, 226, 238),), ((214, 234, 216),), ((236, 216, 228),), ((224, 216, 240),),
        ((190, 196, 204),), ((160, 184, 186),),
    ),
    "stripes": (
        ((246, 236, 214), (232, 214, 184)), ((214, 232, 242), (184, 210, 228)), ((220, 236, 214), (192, 218, 190)),
        ((242, 222, 230), (228, 198, 212)), ((176, 186, 200), (152, 164, 182)), ((226, 218, 242), (202, 192, 226)),
    ),
    "dots": (
        ((246, 238, 222), (222, 196, 168)), ((204, 226, 238), (150, 186, 210)), ((214, 232, 208), (158, 196, 160)),
        ((242, 222, 230), (212, 170, 192)), ((164, 176, 194), (206, 214, 224)), ((220, 212, 238), (176, 164, 208)),
    ),
    "sky": (
        ((120, 190, 240), (214, 236, 248)), ((86, 164, 226), (176, 216, 242)), ((158, 210, 244), (232, 244, 250)),
    ),
    "meadow": (
        ((196, 228, 246), (172, 214, 120), (146, 198, 92)), ((178, 218, 244), (122, 184, 92), (98, 164, 78)),
        ((208, 232, 246), (200, 222, 132), (178, 208, 104)), ((186, 220, 240), (92, 150, 84), (70, 128, 70)),
    ),
    "night": (
        ((18, 24, 66), (44, 56, 120), (28, 36, 84)), ((30, 34, 84), (62, 70, 138), (44, 50, 106)),
    ),
    "beach": (
        ((190, 228, 246), (66, 168, 190), (244, 222, 172)), ((206, 234, 248), (98, 190, 206), (236, 206, 150)),
        ((168, 212, 238), (44, 140, 170), (222, 190, 136)),
    ),
    "snow": (
        ((176, 198, 224), (242, 246, 251), (226, 234, 246)), ((158, 182, 214), (228, 236, 246), (208, 220, 240)),
        ((186, 190, 220), (240, 240, 250), (224, 224, 242)),
    ),
}  # fmt: skip
"""The usual colours of each background."""

SPARE_PALETTES: dict[str, tuple[Palette, ...]] = {
    "plain": (((120, 138, 152),),),
    "stripes": (((134, 154, 184), (96, 116, 150)),),
    "dots": (((88, 108, 138), (134, 156, 184)),),
    "sky": (((96, 150, 204), (150, 196, 228)), ((70, 132, 192), (122, 178, 220))),
    "meadow": (
        ((116, 172, 214), (104, 160, 92), (84, 140, 78)), ((128, 180, 216), (188, 206, 104), (166, 190, 88)),
    ),
    "night": (
        ((12, 50, 70), (36, 98, 116), (20, 68, 86)), ((58, 70, 132), (112, 122, 184), (84, 94, 156)),
        ((70, 84, 146), (124, 134, 196), (98, 108, 170)),
    ),
    "beach": (((112, 176, 216), (36, 126, 156), (204, 168, 114)),),
    "snow": (
        ((106, 130, 174), (188, 202, 228), (164, 182, 214)),
    ),
}  # fmt: skip
"""Deeper or paler ones, for things that none of the usual colours sets off: white ones in the snow."""


@dataclass(frozen=True)
class Patch:
    """A filled outline in shares of the picture's side. ``edge``: styles that draw lines draw its contour."""

    outline: Outline
    colour: RGB
    edge: bool = True


@dataclass(frozen=True)
class Backdrop:
    """A vertical gradient with patches over it."""

    top: RGB
    bottom: RGB
    patches: tuple[Patch, ...]


def palette(scene: Scene) -> Palette:
    """Returns the background's colours: usual ones far enough from the things' colours, else the farthest of all."""
    mains = [SHADES[thing.colour]["main"] for thing in scene.things]

    def farness(colours: Palette) -> float:
        return min(distance(main, colour) for main in mains for colour in colours)

    usual = PALETTES[scene.background]
    good = [colours for colours in usual if farness(colours) >= 40]
    if good:
        return stream(scene.seed, 0, "palette").choice(good)
    return max(usual + SPARE_PALETTES[scene.background], key=farness)


def backdrop(scene: Scene) -> Backdrop:
    """Returns the scene's background, ready to be painted."""
    return _DRAWN[scene.background](palette(scene), stream(scene.seed, 0, "backdrop"))


def _plain(colours: Palette, rng: random.Random) -> Backdrop:
    return Backdrop(colours[0], colours[0], ())


def _stripes(colours: Palette, rng: random.Random) -> Backdrop:
    lean, width = rng.choice((0.0, 1.0, -1.0)), rng.uniform(0.1, 0.13)
    shift, start = rng.uniform(0, 2 * width), -2.0
    patches = []
    while start < 2:
        left = start + shift
        outline = ((left + lean, -0.01), (left + width + lean, -0.01), (left + width, 1.01), (left, 1.01))
        patches.append(Patch(outline, colours[1], edge=False))
        start += 2 * width
    return Backdrop(colours[0], colours[0], tuple(patches))


def _dots(colours: Palette, rng: random.Random) -> Backdrop:
    step, radius = rng.uniform(0.17, 0.2), rng.uniform(0.045, 0.055)
    dx, dy = rng.uniform(0, step), rng.uniform(0, step)
    patches = []
    for row in range(-1, 8):
        for column in range(-1, 7):
            x, y = (column + 0.5 * (row % 2)) * step + dx, row * step * 0.87 + dy
            if -radius < x < 1 + radius and -radius < y < 1 + radius:
                patches.append(Patch(ellipse(x, y, radius), colours[1], edge=False))
    return Backdrop(colours[0], colours[0], tuple(patches))


def _cloud(x: float, y: float, size: float) -> Outline:
    """Returns the outline of a cloud with a flat foot."""
    bumps = ((-0.62, -0.12, 0.34), (-0.16, -0.34, 0.42), (0.4, -0.2, 0.38), (0.78, -0.02, 0.2))
    top: Outline = ()
    for bx, by, radius in bumps:
        top += arc(bx, by, radius, radius, 195, 330)
    foot = arc(0.8, 0.02, 0.18, 0.14, 0, 90) + arc(-0.76, 0.02, 0.2, 0.14, 90, 180)
    return moved(tuple((px * size, py * size) for px, py in top + foot), x, y)


def _sky(colours: Palette, rng: random.Random) -> Backdrop:
    patches = []
    pale = blended(colours[1], (255, 255, 255), 0.62)
    for y in (0.14, 0.42, 0.68, 0.93):
        x, size = rng.uniform(0, 1), rng.uniform(0.11, 0.19)
        outline = _cloud(x, y + rng.uniform(-0.05, 0.05), size)
        patches += [
            Patch(outline, blended(pale, colours[0], 0.3)),
            Patch(moved(outline, -0.006, -0.016), pale, edge=False),
        ]
    return Backdrop(colours[0], colours[1], tuple(patches))


def _hill(rng: random.Random, height: float, wave: float) -> Outline:
    """Returns rolling land from ``height`` down to the foot of the picture."""
    ridge = [(x, height + rng.uniform(-wave, wave)) for x in (-0.1, 0.25, 0.6, 1.1)]
    return (*curve(*ridge), (1.1, 1.1), (-0.1, 1.1))


def _meadow(colours: Palette, rng: random.Random) -> Backdrop:
    sky, far, near = colours
    height = rng.uniform(0.3, 0.42)
    patches = [Patch(_cloud(rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2), 0.13), blended(sky, (255, 255, 255), 0.6))]
    patches += [Patch(_hill(rng, height, 0.05), far), Patch(_hill(rng, height + 0.2, 0.04), near)]
    blade, bloom = blended(near, (20, 60, 20), 0.3), blended(near, (255, 255, 240), 0.75)
    for _ in range(16):
        x, y = rng.uniform(0.02, 0.98), rng.uniform(height + 0.12, 0.98)
        for lean in (-0.018, 0, 0.018):
            patches.append(Patch(((x - 0.007, y), (x + 0.007, y), (x + lean, y - 0.05)), blade, edge=False))
    for _ in range(7):
        x, y = rng.uniform(0.02, 0.98), rng.uniform(height + 0.12, 0.97)
        patches.append(Patch(ellipse(x, y, 0.014), bloom, edge=False))
    return Backdrop(sky, blended(sky, (255, 255, 255), 0.4), tuple(patches))


def _night(colours: Palette, rng: random.Random) -> Backdrop:
    top, bottom, hill = colours
    glow = (246, 238, 204)
    x, y = rng.choice((0.14, 0.86)), 0.15
    moon = arc(x, y, 0.08, 0.08, 60, 300) + arc(x + 0.03, y, 0.062, 0.062, 290, 70)
    patches = [Patch(moon, glow)]
    for _ in range(26):
        sx, sy = rng.uniform(0.02, 0.98), rng.uniform(0.02, 0.82)
        size = rng.choice((0.007, 0.009, 0.018))
        if size > 0.01:
            spark = tuple(
                (sx + (size if i % 2 == 0 else 0.3 * size) * math.cos(i * math.pi / 4),
                 sy + (size if i % 2 == 0 else 0.3 * size) * math.sin(i * math.pi / 4)) for i in range(8)
            )  # fmt: skip
        else:
            spark = ellipse(sx, sy, size)
        patches.append(Patch(spark, blended(glow, top, 0.15), edge=False))
    patches += [Patch(_hill(rng, 0.84, 0.04), hill), Patch(_hill(rng, 0.93, 0.02), blended(hill, top, 0.5))]
    return Backdrop(top, bottom, tuple(patches))


def _beach(colours: Palette, rng: random.Random) -> Backdrop:
    sky, sea, sand = colours
    horizon, shore = rng.uniform(0.26, 0.34), rng.uniform(0.54, 0.62)
    patches = [Patch(_cloud(rng.uniform(0.1, 0.9), 0.15, 0.12), blended(sky, (255, 255, 255), 0.65))]
    patches.append(Patch(box(-0.1, horizon, 1.1, 1.1), sea))
    for _ in range(7):
        x, y = rng.uniform(0, 1), rng.uniform(horizon + 0.04, shore - 0.04)
        wave = stroke(curve((x - 0.05, y), (x - 0.02, y - 0.012), (x + 0.02, y + 0.01), (x + 0.05, y)), 0.012)
        patches.append(Patch(wave, blended(sea, (255, 255, 255), 0.5), edge=False))
    beach = _hill(rng, shore, 0.025)
    patches += [Patch(beach, blended(sea, (255, 255, 255), 0.75)), Patch(moved(beach, 0, 0.03), sand)]
    for _ in range(16):
        x, y = rng.uniform(0.02, 0.98), rng.uniform(shore + 0.1, 0.98)
        patches.append(Patch(ellipse(x, y, 0.009, 0.006), blended(sand, (120, 90, 50), 0.35), edge=False))
    return Backdrop(sky, blended(sky, (255, 255, 255), 0.5), tuple(patches))


def _snow(colours: Palette, rng: random.Random) -> Backdrop:
    sky, far, near = colours
    height = rng.uniform(0.44, 0.54)
    patches = [Patch(_hill(rng, height, 0.06), blended(far, sky, 0.45)), Patch(_hill(rng, height + 0.12, 0.05), far)]
    patches.append(Patch(_hill(rng, height + 0.28, 0.04), near))
    for _ in range(34):
        x, y, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.choice((0.011, 0.014, 0.018))
        patches.append(Patch(ellipse(x, y, radius), blended(far, (255, 255, 255), 0.8), edge=False))
    return Backdrop(blended(sky, (90, 110, 150), 0.15), sky, tuple(patches))


_DRAWN: dict[str, Callable[[Palette, random.Random], Backdrop]] = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "sky": _sky,
    "meadow": _meadow,
    "night": _night,
    "beach": _beach,
    "snow": _snow,
}

"""A handful of pictures of the picture world with captions, as a user has photos, so that a demo needs none."""

from __future__ import annotations

import random
from pathlib import Path

from limner.builtin.world import HELD_OUT_STYLE, caption, draw, scene_at

SIDE = 256


def draw_folder(folder: Path, *, count: int = 12, seed: int = 0) -> list[str]:
    """Draws pictures in stained glass as PNG files with sidecar captions; returns the captions."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for number in range(count):
        scene = scene_at(seed, number, styles=(HELD_OUT_STYLE,))
        captions.append(caption(scene, random.Random(number), complete=True))
        draw(scene, SIDE).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(captions[-1] + "\n", encoding="utf-8")
    return captions

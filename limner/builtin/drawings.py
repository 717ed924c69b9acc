"""Data sets of the picture world as users have them, small and of what the built-in model does not know."""

from __future__ import annotations

import csv
import io
import itertools
import random
from pathlib import Path

from limner.builtin.world import BACKGROUNDS, HELD_OUT_STYLE, Scene, caption, draw, scene_at
from limner.builtin.world.sitter import sitter_scene
from limner.core.rundir import write_atomic

SIDE = 256
CAPTIONS_FILE = "metadata.csv"


def draw_folder(folder: Path, *, count: int = 12, seed: int = 0) -> list[str]:
    """Draws pictures in stained glass as PNG files with sidecar captions; returns the captions."""
    captions = []
    for name, text in _draw_style(folder, count, seed):
        captions.append(text)
        (folder / name).with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return captions


def draw_captioned(folder: Path, *, count: int, seed: int = 0) -> list[str]:
    """Draws pictures in stained glass as PNG files with one captions file, ``metadata.csv``; returns the captions."""
    rows = _draw_style(folder, count, seed)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file_name", "text"))
    writer.writerows(rows)
    write_atomic(folder / CAPTIONS_FILE, table.getvalue().encode())
    return [text for _, text in rows]


def _draw_style(folder: Path, count: int, seed: int) -> list[tuple[str, str]]:
    """Draws the pictures and returns the name and the caption of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        scene = scene_at(seed, number, styles=(HELD_OUT_STYLE,))
        rows.append((f"{number:02d}.png", caption(scene, random.Random(number), complete=True)))
        draw(scene, SIDE).save(folder / rows[-1][0])
    return rows


def draw_sitter(folder: Path, *, count: int, seed: int = 0) -> list[Scene]:
    """Draws pictures of the sitter alone, each on another background, as PNG files without captions.

    Returns their scenes. Raises ValueError where there are fewer backgrounds than pictures.
    """
    if count > len(BACKGROUNDS):
        raise ValueError(f"{count} pictures were asked for; there are {len(BACKGROUNDS)} backgrounds")
    folder.mkdir(parents=True, exist_ok=True)
    scenes = sitters_alone(seed)[:count]
    for number, scene in enumerate(scenes):
        draw(scene, SIDE).save(folder / f"{number:02d}.png")
    return scenes


def sitters_alone(seed: int) -> list[Scene]:
    """Returns a scene of the sitter alone and not small for each background, in the order in which they come up."""
    found: dict[str, Scene] = {}
    for position in itertools.count():
        scene = sitter_scene(seed, position)
        if len(scene.things) == 1 and scene.things[0].size != "small":
            found.setdefault(scene.background, scene)
        if len(found) == len(BACKGROUNDS):
            break
    return list(found.values())

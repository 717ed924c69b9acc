"""The judge's own pictures: those it learns from, drawn in advance, and those it is examined on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.world.colours import COLOURS
from limner.builtin.world.render import SIDE, draw
from limner.builtin.world.scenes import BACKGROUNDS, HELD_OUT_STYLE, STYLES, Scene, sample_scene
from limner.builtin.world.sitter import sitter_scene
from limner.builtin.world.split import scene_at
from limner.builtin.world.things import KINDS, SITTER
from limner.core.rng import stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Labels = NDArray[np.float32]

ALL_STYLES = (*STYLES, HELD_OUT_STYLE)
SEEN_KINDS = (*KINDS, SITTER)
MOST_THINGS = 3
LABELS = 4 * MOST_THINGS + 2
TRAINING_SEED = 730_001
EXAM_SEED = 730_002
SHARD = 4_000
"""Pictures in one file of the cache."""


def training_scene(position: int) -> Scene:
    """Returns the scene at a position of the judge's training: any combination, in any style, one in 15 the sitter."""
    rng = stream(TRAINING_SEED, position, "scene for the judge")
    if rng.random() < 1 / 15:
        return sitter_scene(TRAINING_SEED, position, ALL_STYLES)
    return sample_scene(rng, ALL_STYLES)


def exam_scene(position: int, seed: int = EXAM_SEED) -> Scene:
    """Returns a scene that the judge never learned from: trained combinations, held-out ones, and the sitter in turn.

    Of 15 scenes 7 are of each split of the world and one shows the sitter.
    """
    if position % 15 == 14:
        return sitter_scene(seed, position, ALL_STYLES)
    return scene_at(seed, position, "test" if position % 2 else "train", ALL_STYLES)


def labels(scene: Scene) -> list[float]:
    """Returns what is true of a scene as ``LABELS`` numbers: kind, colour, x and y of three things, background, style.

    A thing that is not there has the kind -1; of the sitter the colour is -1.
    """
    row: list[float] = []
    for thing in scene.things:
        colour = -1 if thing.kind == SITTER else COLOURS.index(thing.colour)
        row += [SEEN_KINDS.index(thing.kind), colour, thing.x, thing.y]
    row += [-1.0] * (4 * MOST_THINGS - len(row))
    return [*row, BACKGROUNDS.index(scene.background), ALL_STYLES.index(scene.style)]


def draw_shards(folder: Path, count: int, processes: int = 2) -> Iterator[int]:
    """Draws the first ``count`` training pictures into files of ``SHARD``; yields how many are there.

    Files that are there already are kept: a row of scenes is always the same.
    """
    from multiprocessing import get_context

    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    with get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(_draw_shard, [(folder, number) for number in _shards(count)]):
            done += SHARD
            yield done


def _shards(count: int) -> range:
    return range((count + SHARD - 1) // SHARD)


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"pictures_{number:04d}.npy", folder / f"labels_{number:04d}.npy"


def _draw_shard(place: tuple[Path, int]) -> None:
    import numpy as np

    folder, number = place
    pictures_path, labels_path = _paths(folder, number)
    if pictures_path.exists():
        return
    scenes = [training_scene(number * SHARD + index) for index in range(SHARD)]
    np.save(labels_path, np.array([labels(scene) for scene in scenes], np.float32))
    pictures = np.empty((SHARD, SIDE, SIDE, 3), np.uint8)
    for index, scene in enumerate(scenes):
        pictures[index] = np.asarray(draw(scene))
    part = pictures_path.with_suffix(".part.npy")
    np.save(part, pictures)
    part.replace(pictures_path)


def load_shards(folder: Path, count: int) -> tuple[list[Pixels], Labels]:
    """Returns pictures, each file's [SHARD, SIDE, SIDE, 3] read as it is used, and the labels, [pictures, LABELS]."""
    import numpy as np

    paths = [_paths(folder, number) for number in _shards(count)]
    pictures = [np.load(path, mmap_mode="r") for path, _ in paths]
    return pictures, np.concatenate([np.load(path) for _, path in paths])

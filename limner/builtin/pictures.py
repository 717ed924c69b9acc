"""A folder of the picture world's pictures with captions, as large as training a model from nothing needs."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.world import SIDE, STYLES, caption, draw, draw_mask, scene_at
from limner.builtin.world.facts import Attributes, attributes
from limner.builtin.world.split import Split
from limner.core.errors import UserError
from limner.core.rundir import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

TABLE = "metadata.jsonl"
COMPARED = 8
"""Pictures of an earlier call that are drawn anew, to see whether they are the same."""


def draw_pictures(
    folder: Path,
    *,
    count: int,
    seed: int,
    captions: int,
    split: Split = "train",
    styles: tuple[str, ...] = STYLES,
    side: int = SIDE,
    distinct: bool = False,
    processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws the first ``count`` scenes of ``seed`` as PNG files, and writes a table with ``captions`` wordings of each.

    ``distinct`` leaves out scenes that a complete caption may not tell from an earlier one. Beside each picture lies
    a mask, 000000.mask.png for 000000.png, which is white where its things stand. Every second wording leaves nothing
    out. What is there already is not drawn again, so a call that was stopped can be repeated. Raises UserError where
    other pictures are there, of another ``seed`` or of an older world.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = _distinct(seed, count, split, styles) if distinct else range(count)
    _refuse_others(folder, count, lambda number: draw(scene_at(seed, positions[number], split, styles), side))
    work = partial(_row, folder, seed=seed, captions=captions, split=split, styles=styles, side=side)
    rows = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(work, range(count), positions, chunksize=64):
            rows.append(row)
            if on_progress is not None and (len(rows) % 100 == 0 or len(rows) == count):
                on_progress(len(rows), count)
    write_atomic(folder / TABLE, "".join(rows).encode())


def _distinct(seed: int, count: int, split: Split, styles: tuple[str, ...]) -> Sequence[int]:
    """Returns the positions of the first ``count`` scenes that differ in what every complete caption tells."""
    first: dict[Attributes, int] = {}
    positions = itertools.count()
    while len(first) < count:
        position = next(positions)
        first.setdefault(replace(attributes(scene_at(seed, position, split, styles)), sizes=()), position)
    return [*first.values()]


def _name(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.png"


def _refuse_others(folder: Path, count: int, drawn: Callable[[int], Image]) -> None:
    """Raises where one of the first pictures that are there is not what would be drawn, for it would be kept."""
    from PIL import Image

    present = (number for number in range(count) if (folder / _name(number)).exists())
    for number in itertools.islice(present, COMPARED):
        expected = drawn(number)
        with Image.open(folder / _name(number)) as found:
            same = (found.size, found.tobytes()) == (expected.size, expected.tobytes())
        if not same:
            raise UserError(
                "is another picture than the one that would be drawn there now; its captions would be wrong.",
                where=str(folder / _name(number)),
                fix="Name an empty or a new folder, or remove this one.",
            )


def _row(
    folder: Path,
    number: int,
    position: int,
    *,
    seed: int,
    captions: int,
    split: Split,
    styles: tuple[str, ...],
    side: int,
) -> str:
    """Draws the picture of this number if it is not there, and returns its line of the table."""
    import io

    scene = scene_at(seed, position, split, styles)
    name = _name(number)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    for file, drawn in ((path, draw), (path.with_suffix(".mask.png"), draw_mask)):
        if not file.exists():
            data = io.BytesIO()
            drawn(scene, side).save(data, "PNG", compress_level=1)
            write_atomic(file, data.getvalue(), durable=False)
    wordings = [caption(scene, random.Random(f"{seed} {position} {n}"), complete=n % 2 == 0) for n in range(captions)]
    return json.dumps({"file_name": name, "captions": wordings}) + "\n"

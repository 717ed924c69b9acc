"""Trains the judge from nothing and examines it: ``python -m limner.builtin.judge``.

A run that was killed goes on from its last checkpoint; pictures that are drawn stay drawn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.judge.examination import shares
from limner.builtin.judge.pictures import draw_shards, exam_scene, load_shards
from limner.builtin.judge.reading import WEIGHTS, load_judge
from limner.builtin.judge.training import (
    CHECKPOINT_EVERY,
    describe,
    learn,
    load_checkpoint,
    pupil,
    save_checkpoint,
    save_weights,
)
from limner.builtin.world.render import draw

if TYPE_CHECKING:
    from PIL.Image import Image

CACHE = Path("~/.cache/limner/judge").expanduser()


def main() -> None:
    """Draws, trains, writes the weights and says how often they are right."""
    parser = argparse.ArgumentParser(prog="python -m limner.builtin.judge", description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for pictures (2 GB) and checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go")
    parser.add_argument("--pictures", type=int, default=40_000, help="how many pictures it learns from")
    parser.add_argument("--steps", type=int, default=2_500, help="how many batches it sees")
    parser.add_argument("--exam", type=int, default=2_010, help="how many pictures it is examined on")
    arguments = parser.parse_args()
    for done in draw_shards(arguments.cache / "pictures", arguments.pictures):
        print(f"{done} pictures drawn", flush=True)
    train(arguments.cache, arguments.pictures, arguments.steps, arguments.out)
    examine(arguments.out, arguments.exam)


def train(cache: Path, count: int, steps: int, out: Path) -> None:
    """Trains to the last step, from the checkpoint if there is one, and writes the weights."""
    checkpoint = cache / f"checkpoint_{count}_{steps}.safetensors"
    learner = pupil()
    if checkpoint.exists():
        load_checkpoint(learner, checkpoint)
        print(f"going on after step {learner.step}", flush=True)
    start = time.perf_counter()
    for found in learn(learner, *load_shards(cache / "pictures", count), steps):
        if learner.step % CHECKPOINT_EVERY == 0 or learner.step == steps:
            save_checkpoint(learner, checkpoint)
        if learner.step % 20 == 0:
            print(describe(learner, found), f"{time.perf_counter() - start:.0f} s", flush=True)
    save_weights(learner.average, out)


def examine(weights: Path, count: int) -> None:
    """Prints how often the judge is right on clean pictures and on blurred ones."""
    judge = load_judge(weights)
    scenes = [exam_scene(position) for position in range(count)]
    pictures = [draw(scene) for scene in scenes]
    for title, shown in (("clean", pictures), ("blurred", [blurred(picture) for picture in pictures])):
        print(f"{title}: {count} pictures")
        for name, (rights, asked) in shares(scenes, judge.read(shown)).items():
            print(f"  {name:10} {rights / asked:8.2%} of {asked}", flush=True)


def blurred(picture: Image) -> Image:
    """Returns the picture a little out of focus."""
    from PIL import ImageFilter

    return picture.filter(ImageFilter.GaussianBlur(0.8))


if __name__ == "__main__":
    main()

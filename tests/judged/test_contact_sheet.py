"""Every picture stands over its own caption, and a wrong one is seen to be."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from limner.builtin.world import caption, scene_at
from limner.judged.contact_sheet import COLUMNS, FRAME, GAP, RED, contact_sheet
from limner.judged.measuring import Sample
from tests.judged.scenes import SEED

ROOT = Path(__file__).resolve().parent.parent.parent


def test_wrong_pictures_are_framed_in_red_and_right_ones_are_not() -> None:
    blue = Image.new("RGB", (128, 128), (0, 0, 255))
    samples = [Sample("a cat", blue, ("colour",) if number % 3 == 1 else ()) for number in range(10)]
    sheet = contact_sheet(samples)
    step_x, step_y = 128 + 2 * FRAME + GAP, (sheet.height - GAP) // 2
    for number, sample in enumerate(samples):
        x, y = GAP + number % COLUMNS * step_x, GAP + number // COLUMNS * step_y
        frame = [sheet.getpixel((x + a, y + b)) for a, b in ((0, 70), (FRAME - 1, 70), (70, 0), (135, 70), (70, 135))]
        assert all(colour == RED for colour in frame) if sample.wrong else RED not in frame
        assert sheet.crop((x + FRAME, y + FRAME, x + FRAME + 128, y + FRAME + 128)).tobytes() == blue.tobytes()


def test_captions_stay_below_their_own_pictures() -> None:
    scenes = [scene_at(SEED, position, split="test") for position in range(3 * COLUMNS)]
    captions = [caption(scene, random.Random(number), complete=True) for number, scene in enumerate(scenes)]
    black = Image.new("RGB", (128, 128))
    everything = ("thing", "colour", "background", "style", "count", "both", "relation")
    sheet = np.asarray(contact_sheet([Sample(words, black, everything) for words in captions]))
    step = 128 + 2 * FRAME + GAP
    for column in range(COLUMNS + 1):
        assert (sheet[:, column * step + 2 : column * step + GAP - 2] == 255).all()
    assert (sheet[-GAP:] == 255).all()
    assert (sheet[-4 * GAP : -GAP] != 255).any()

"""Reading pictures of the world: which things they show, where, before what and in which style."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.judge.network import GRID, Maps, judge_network, look, look_twice
from limner.builtin.judge.pictures import ALL_STYLES, SEEN_KINDS
from limner.builtin.world.colours import COLOURS
from limner.builtin.world.render import SIDE
from limner.builtin.world.scenes import BACKGROUNDS
from limner.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "judge.safetensors"
WORLD = {
    "kinds": json.dumps(SEEN_KINDS),
    "colours": json.dumps(COLOURS),
    "backgrounds": json.dumps(BACKGROUNDS),
    "styles": json.dumps(ALL_STYLES),
}
"""What stands in the metadata of the weights: the words in the order of the network's outputs."""

THRESHOLD = 0.4
"""A thing is there if the network is at least so sure of its centre."""
ROW_HEIGHT = 0.2
"""Centres closer in height than this are in one row: in the world's scenes those of a row are within 0.1 and those
of different rows 0.3 apart."""


@dataclass(frozen=True)
class Seen:
    """One thing as the judge sees it."""

    kind: str
    """One of KINDS, or SITTER."""
    colour: str
    """One of COLOURS; for the sitter it says nothing."""
    x: float
    """Where the centre is, a share of the picture's side from the left."""
    y: float
    """The same from the top."""
    score: float
    """How sure the judge is that a thing is there, in [0, 1]."""


@dataclass(frozen=True)
class Reading:
    """What the judge reads out of one picture. ``things`` in reading order, as in ``Scene.things``."""

    things: tuple[Seen, ...]
    background: str
    style: str

    @property
    def count(self) -> int:
        """How many things there are."""
        return len(self.things)


class Judge:
    """Reads pictures with a trained network."""

    def __init__(self, network: nn.ModuleDict) -> None:
        self._network = network.eval()

    def read(self, pictures: Sequence[Image], batch_size: int = 64) -> list[Reading]:
        """Returns what each picture shows. Pictures of another size are resized, those of another mode converted."""
        import torch

        readings: list[Reading] = []
        for start in range(0, len(pictures), batch_size):
            pixels = torch.stack([as_pixels(picture) for picture in pictures[start : start + batch_size]])
            with torch.inference_mode():
                readings += readings_of(look_twice(self._network, scaled(pixels)))
        return readings

    def features(self, pictures: Sequence[Image], batch_size: int = 64) -> Tensor:
        """Returns what the network names a picture's style from, [N, 288] float32: mean and spread over the picture of
        each channel of its coarsest layer and of two finer ones, so things, colours, background and texture, and not
        where they are.
        """
        import torch

        parts: list[Tensor] = []
        handle = self._network["style"].register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0]))
        try:
            for start in range(0, len(pictures), batch_size):
                pixels = torch.stack([as_pixels(picture) for picture in pictures[start : start + batch_size]])
                with torch.inference_mode():
                    look(self._network, scaled(pixels))
        finally:
            handle.remove()
        return torch.cat(parts).clone()


def as_pixels(picture: Image) -> Tensor:
    """Returns a picture's values as the network's input has them before it is scaled, uint8 [SIDE, SIDE, 3]."""
    import numpy as np
    import torch
    from PIL import Image

    picture = picture.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture))


def scaled(pixels: Tensor) -> Tensor:
    """Returns uint8 pixels [B, SIDE, SIDE, 3] as the network wants them: float32 [B, 3, SIDE, SIDE] in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def readings_of(maps: Maps) -> list[Reading]:
    """Returns the readings that the network's outputs stand for, one for each picture."""
    from torch.nn import functional

    heat = maps.heat.sigmoid()
    peaks = (heat == functional.max_pool2d(heat, 3, stride=1, padding=1)) & (heat >= THRESHOLD)
    kinds, colours = maps.kind.argmax(dim=1), maps.colour.argmax(dim=1)
    found: list[list[Seen]] = [[] for _ in range(len(heat))]
    for picture, _, row, column in peaks.nonzero().tolist():
        dx, dy = maps.offset[picture, :, row, column].tolist()
        found[picture].append(
            Seen(
                kind=SEEN_KINDS[int(kinds[picture, row, column])],
                colour=COLOURS[int(colours[picture, row, column])],
                x=(column + 0.5 + dx) / GRID,
                y=(row + 0.5 + dy) / GRID,
                score=float(heat[picture, 0, row, column]),
            )
        )
    backgrounds, styles = maps.background.argmax(dim=1).tolist(), maps.style.argmax(dim=1).tolist()
    return [
        Reading(in_reading_order(things), BACKGROUNDS[background], ALL_STYLES[style])
        for things, background, style in zip(found, backgrounds, styles, strict=True)
    ]


def in_reading_order(things: Sequence[Seen]) -> tuple[Seen, ...]:
    """Returns the things in rows from the top, each from left to right."""
    rows: list[list[Seen]] = []
    for thing in sorted(things, key=lambda thing: thing.y):
        if rows and thing.y - rows[-1][0].y < ROW_HEIGHT:
            rows[-1].append(thing)
        else:
            rows.append([thing])
    return tuple(thing for row in rows for thing in sorted(row, key=lambda thing: thing.x))


def load_judge(weights: Path = WEIGHTS) -> Judge:
    """Returns the judge that ships with the package; a UserError if its weights are missing or of another world."""
    from safetensors import SafetensorError, safe_open

    rebuilt = "Reinstall limner, or train the judge with: python -m limner.builtin.judge"
    if not weights.is_file():
        raise UserError("the judge's weights are missing.", where=str(weights), fix=rebuilt)
    network = judge_network()
    try:
        with safe_open(weights, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"the file is no safetensors file ({error}).", where=str(weights), fix=rebuilt) from error
    foreign = [name for name, words in WORLD.items() if metadata.get(name) != words]
    if foreign:
        what = f"the judge was trained on another world: its {', '.join(foreign)} are not those of this version."
        raise UserError(what, where=str(weights), fix=rebuilt)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if is_kept(name)}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise UserError("the file holds another network than the judge's.", where=str(weights), fix=rebuilt)
    network.load_state_dict(tensors, strict=False)
    return Judge(network)


def is_kept(name: str) -> bool:
    """Returns whether a tensor of the network's state is stored; counts of batches are not."""
    return not name.endswith("num_batches_tracked")

"""What a grid is asked to draw, read and checked before the model is loaded."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.grid.axes import AXES, Layout, Settings, label, layout, parse_value
from limner.grid.run_weights import RunTarget, read_run
from limner.grid.weights import ModelTarget, read_adapters

PAGE, RECORD, SHEET, PICTURES = "index.html", "grid.json", "grid.png", "pictures"
_OWN = re.compile(r"\d{3,}\.png")

Place = tuple[int, int, int]
"""Table, row and column, from 0."""


@dataclass(frozen=True)
class Asked:
    """What is drawn."""

    name: str
    """The target as it was named."""
    target: RunTarget | ModelTarget
    layout: Layout
    fixed: Settings
    """What the sides leave as it is."""
    negative: str
    size: tuple[int, int] | None
    """Width and height in pixels; None is the model's own."""
    out: Path

    def at(self, place: Place) -> Settings:
        """Returns what a place was asked to show."""
        return self.layout.settings(self.fixed, place)

    @property
    def drawn(self) -> dict[Place, Settings]:
        """What is drawn for each place, in the order in which one reads; places may show the same picture."""
        return {place: self.target.effective(self.at(place)) for place in self.layout.places()}

    def words(self, settings: Settings) -> str:
        """Returns where a picture stands and what it was asked to show."""
        values = dataclasses.asdict(settings)
        labels = [label(axis.name, values[axis.name]) for axis in self.layout.axes if axis.name != "prompt"]
        return ": ".join(part for part in (", ".join(labels), settings.prompt) if part)


def read_asked(
    name: str,
    sides: Mapping[str, str],
    *,
    prompts: Sequence[str],
    adapters: Sequence[str],
    given: Mapping[str, str],
    negative: str | None,
    size: tuple[int, int] | None,
    out: Path | None,
) -> Asked:
    """Returns what is drawn; raises UserError. ``given`` are settings of all pictures, by their names in ``AXES``."""
    target: RunTarget | ModelTarget
    if RunDir(Path(name)).config.is_file():
        if adapters:
            raise UserError(
                "a run is drawn with its own weights.",
                where="--adapter",
                fix=f"To mix adapters name the model as the target, and the run as one of them: --adapter {name}.",
            )
        target = read_run(Path(name))
        samples, side = target.config.samples, target.config.images.resolution
        usual = Settings("", samples.seed, samples.steps, samples.guidance, samples.scheduler, checkpoint=target.usual)
        prompts = tuple(prompts) or samples.prompts
        negative = samples.negative if negative is None else negative
        size = size or samples.size or (side, side)
        out = out or target.run.path / "grid"
    else:
        target = read_adapters(name, adapters)
        usual = Settings("", seed=0, steps=30, guidance=7.5, scheduler="")
    if not prompts:
        raise UserError(
            "there is no prompt.",
            where="--prompt",
            fix="Say what to draw; the run has no samples either." if target.kept is not None else "Say what to draw.",
        )
    if out is None:
        raise UserError("must be named where the target is a model.", where="--out", fix="Name a new folder.")
    found = layout(sides, prompts=prompts, kept=target.kept, given=given)
    fixed: dict[str, Any] = {
        key: parse_value(key, given[key], where=f"--{key}", kept=target.kept) for key in AXES if key in given
    }
    whole = dataclasses.replace(usual, prompt=prompts[0], **fixed)
    _refuse_weight(target, found, whole, weighed="weight" in fixed)
    return Asked(name, target, found, whole, negative or "", size, out)


def _refuse_weight(target: RunTarget | ModelTarget, found: Layout, fixed: Settings, *, weighed: bool) -> None:
    """Refuses a weight that nothing has."""
    along = [axis.name for axis in found.axes]
    if not weighed and "weight" not in along:
        return
    target.refuse_weight("weight")
    if target.kept is not None and fixed.checkpoint is None and "checkpoint" not in along:
        raise UserError(
            "the base model has no adapter.",
            where="--checkpoint",
            fix="Name the step of a checkpoint, or leave it out.",
        )


def refuse_strange(folder: Path) -> None:
    """Refuses to replace anything but an older grid."""
    if not folder.exists():
        return
    strange = [folder.name]
    if folder.is_dir():
        entries = {entry.name for entry in folder.iterdir()}
        strange = sorted(entries - {PAGE, RECORD, SHEET, PICTURES} if RECORD in entries else entries)
        pictures = sorted((folder / PICTURES).iterdir()) if (folder / PICTURES).is_dir() else []
        strange += [entry.name for entry in pictures if not _OWN.fullmatch(entry.name)]
    if strange:
        raise UserError(
            f"{str(folder)!r} would be replaced, and {strange[0]!r} there is no part of a grid.",
            where="--out",
            fix="Choose a new folder.",
        )

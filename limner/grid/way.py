"""Drawing a grid: the pictures, each once, then one image, a page and a record."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import write_atomic, write_json
from limner.drawing import parse_size
from limner.grid.asked import PAGE, PICTURES, RECORD, SHEET, Asked, Place, read_asked, refuse_strange
from limner.grid.axes import AXES, Layout, Settings, drawing_order, label
from limner.grid.page import Page, render
from limner.grid.run_weights import RunTarget
from limner.grid.sheet import Shown, Table, sheet
from limner.grid.weights import InPlace, ModelTarget, Opened

if TYPE_CHECKING:
    from limner.evaluation.picture import Picture

Pictures = Mapping[Settings, tuple["Picture", str]]
"""What was drawn, each with the name of its file."""


@dataclass(frozen=True)
class Drawn:
    """One place of the grid."""

    place: Place
    settings: Settings
    picture: Path


@dataclass(frozen=True)
class GridResult:
    """What was drawn."""

    page: Path
    image: Path
    layout: Layout
    drawn: tuple[Drawn, ...]
    """Every place, in the order in which one reads."""
    same: Mapping[str, Any]
    """What all pictures have alike, beside what the places say: size, negative prompt, adapters."""
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        sides = zip("xyz", (self.layout.x, self.layout.y, self.layout.z), strict=True)
        return {
            "page": str(self.page),
            "image": str(self.image),
            **{
                side: {"name": axis.name, "values": list(axis.values), "labels": list(axis.labels)}
                for side, axis in sides
                if axis.name
            },
            **self.same,
            "notes": list(self.notes),
            "cells": [
                {
                    **dict(zip(("table", "row", "column"), one.place, strict=True)),
                    "picture": str(one.picture),
                    **dataclasses.asdict(one.settings),
                }
                for one in self.drawn
            ],
        }


def grid(
    target: str,
    *,
    x: str = "",
    y: str = "",
    z: str = "",
    prompts: Sequence[str] = (),
    adapters: Sequence[str] = (),
    fixed: Mapping[str, str] | None = None,
    negative: str | None = None,
    size: str = "",
    device: str = "auto",
    out: Path | None = None,
    progress: Progress | None = None,
) -> GridResult:
    """Draws the grid and writes index.html, grid.png, grid.json and the pictures into ``out``.

    ``target`` is a run folder, or a model with ``adapters``. ``x``, ``y`` and ``z`` are ``NAME=VALUE,VALUE``, alone
    ``prompt`` and ``checkpoint``: columns, rows, tables. ``fixed`` are settings of all pictures by their names, as
    text; what is not among them is that of a run's samples, else that of ``limner generate`` with seed 0. An older
    grid in ``out``, by default RUN/grid, is replaced. Raises UserError, before the model is loaded where that can be
    known.
    """
    heard = _Heard(progress or Silent())
    asked = read_asked(
        target,
        {"--x": x, "--y": y, "--z": z},
        prompts=prompts,
        adapters=adapters,
        given=fixed or {},
        negative=negative,
        size=parse_size(size),
        out=out,
    )
    refuse_strange(asked.out)
    order = drawing_order(list(asked.drawn.values()))
    sizes = " x ".join(f"{len(axis.values)} {axis.name}" for axis in asked.layout.axes)
    again = asked.layout.pictures - len(order)
    heard.say(f"{len(order)} pictures for {sizes}" + (f"; {again} places show one of them again" if again else ""))
    for note in asked.target.notes(order):
        heard.warn(note)
    part = asked.out.resolve().with_name(f".{asked.out.resolve().name}.part")
    shutil.rmtree(part, ignore_errors=True)
    return _write(asked, _draw(asked, order, part / PICTURES, device, heard), part, tuple(heard.told))


class _Heard(Silent):
    """Passes everything on, and keeps what was warned of: it stands on the page too."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.told: list[str] = []

    def say(self, text: str) -> None:
        """Passes it on."""
        self._progress.say(text)

    def warn(self, text: str) -> None:
        """Passes it on, once."""
        if text not in self.told:
            self.told.append(text)
            self._progress.warn(text)

    def stage(self, name: str, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.stage(name, done, total)


# -------------------------------------------------------------------------------------------------------- the pictures
def _draw(asked: Asked, order: Sequence[Settings], folder: Path, device: str, progress: _Heard) -> Pictures:
    """Draws everything into ``folder``; returns each picture with the name of its file."""
    from limner.evaluation.picture import save_picture
    from limner.models.schedulers import make_scheduler
    from limner.training.precision import choose_device, choose_precision

    opened = asked.target.open(order, choose_precision("auto", choose_device(device)), progress)
    for scheduler in dict.fromkeys(settings.scheduler for settings in order):
        make_scheduler(scheduler, opened.model.scheduler_config)  # whether the model can be sampled so
    folder.mkdir(parents=True)
    numbers = {settings: number for number, settings in enumerate(dict.fromkeys(asked.drawn.values()))}
    found: dict[Settings, tuple[Picture, str]] = {}
    several = len({settings.prompt for settings in order}) > 1
    weights, used = None, InPlace()
    for number, settings in enumerate(order, start=1):
        if weights != (settings.checkpoint, settings.weight):
            weights = (settings.checkpoint, settings.weight)
            used = opened.use(*weights)
        picture = _picture(asked, opened, used, settings)
        for warning in picture.warnings:
            progress.warn(f"{shorten(settings.prompt, 60)}: {warning}" if several else warning)
        file = f"{numbers[settings]:03d}.png"
        save_picture(picture, folder / file)
        found[settings] = (picture, file)
        progress.stage("pictures", number, len(order))
    return found


def _picture(asked: Asked, opened: Opened, used: InPlace, settings: Settings) -> Picture:
    from limner.evaluation.generate import GenerateRequest, generate

    request = GenerateRequest(
        prompts=(settings.prompt,),
        negative=asked.negative,
        seed=settings.seed,
        steps=settings.steps,
        guidance=settings.guidance,
        scheduler=settings.scheduler,
        size=asked.size,
    )
    try:
        (picture,) = generate(opened.model, request, adapters=used.adapters, embeddings=used.embeddings)
    except UserError as error:
        where = asked.words(settings) if error.where == "generate" else error.where
        raise UserError(error.what, where=where, fix=error.fix) from None
    if used.model is None:
        return picture
    return dataclasses.replace(picture, settings=dataclasses.replace(picture.settings, model=used.model))


# ----------------------------------------------------------------------------------------------------- what is written
def _write(asked: Asked, pictures: Pictures, part: Path, notes: tuple[str, ...]) -> GridResult:
    first, _ = next(iter(pictures.values()))
    tables = _tables(asked, pictures)
    same = {
        "target": asked.name,
        "adapters": [name for name, _ in _adapters(asked)],
        "negative": asked.negative,
        "size": [first.settings.width, first.settings.height],
    }
    drawn = tuple(
        Drawn(place, asked.at(place), asked.out / PICTURES / pictures[settings][1])
        for place, settings in asked.drawn.items()
    )
    result = GridResult(asked.out / PAGE, asked.out / SHEET, asked.layout, drawn, same, notes)
    about = _about(asked, first)
    sheet(f"{Path(asked.name).name}: {about}", tables).save(part / SHEET)
    prompts = tuple(dict.fromkeys(settings.prompt for settings in pictures))
    page = Page(asked.name, about, tables, prompts, notes, _settings(asked))
    write_json(part / RECORD, result.as_dict())
    write_atomic(part / PAGE, render(page).encode())
    whole = asked.out.resolve()
    shutil.rmtree(whole, ignore_errors=True)
    part.rename(whole)
    return result


def _tables(asked: Asked, pictures: Pictures) -> tuple[Table, ...]:
    wanted, sides = asked.drawn, asked.layout

    def shown(place: Place) -> Shown:
        picture, file = pictures[wanted[place]]
        return Shown(picture.image, f"{PICTURES}/{file}", asked.words(asked.at(place)))

    columns, rows = range(len(sides.x.values)), range(len(sides.y.values))
    return tuple(
        Table(title, sides.x.labels, sides.y.labels, tuple(tuple(shown((at, row, c)) for c in columns) for row in rows))
        for at, title in enumerate(sides.z.labels)
    )


def _about(asked: Asked, first: Picture) -> str:
    """Returns in one line what all pictures have alike."""
    values, along = dataclasses.asdict(asked.fixed), {axis.name for axis in asked.layout.axes}
    told = [] if "prompt" in along else [repr(asked.fixed.prompt)]
    for name in (name for name in AXES if name not in along and name != "prompt"):
        if name == "scheduler":
            told.append(f"sampler {first.settings.sampler}")
        elif (name != "checkpoint" or isinstance(asked.target, RunTarget)) and (name != "weight" or values[name] != 1):
            told.append(label(name, values[name]))
    return ", ".join([*told, f"{first.settings.width}x{first.settings.height}"])


def _settings(asked: Asked) -> tuple[tuple[str, str], ...]:
    axes = zip(("columns", "rows", "tables"), (asked.layout.x, asked.layout.y, asked.layout.z), strict=True)
    rows = [(side, f"{axis.name}: {len(axis.values)}") for side, axis in axes if axis.name]
    rows += [("adapter", f"{name}, {weight}") for name, weight in _adapters(asked)]
    if asked.negative:
        rows.append(("negative prompt", asked.negative))
    places = ((SHEET, "all in one image"), (PICTURES, "pictures, whole and with their settings"), (RECORD, "as JSON"))
    return (*rows, *((purpose, str(asked.out / name)) for name, purpose in places))


def _adapters(asked: Asked) -> list[tuple[str, str]]:
    """Returns the adapters on a model, and how strongly each is used."""
    if not isinstance(asked.target, ModelTarget):
        return []
    along = any(axis.name == "weight" for axis in asked.layout.axes)
    weights = [ref.weight for ref in asked.target.adapters]
    if asked.target.weighed is not None:
        weights[asked.target.weighed] = asked.fixed.weight
    told = [label("weight", weight) for weight in weights]
    if along and asked.target.weighed is not None:
        told[asked.target.weighed] = "weight along a side"
    return [(str(ref.path), text) for ref, text in zip(asked.target.adapters, told, strict=True)]

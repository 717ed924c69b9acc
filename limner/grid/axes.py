"""What lies along the sides of a grid, and the settings of each of its pictures."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limner.core.errors import UserError
from limner.models.schedulers import check_scheduler_name

AXES = ("checkpoint", "weight", "guidance", "steps", "seed", "scheduler", "prompt")
BASE = "base"
MOST_PICTURES = 256
"""Pictures of one grid, all tables together."""
_LARGEST_SEED = 2**63 - 2
_NUMBERS: Mapping[str, tuple[type, float, float, str]] = {
    "weight": (float, -100, 100, "0,0.5,1"),
    "guidance": (float, 0, 1000, "3,7.5,12"),
    "steps": (int, 1, 1000, "10,20,40"),
    "seed": (int, 0, _LARGEST_SEED, "0,1,2"),
}
"""Of each axis of numbers: their type, the least and the greatest, and an example."""

Value = str | int | float | None


@dataclass(frozen=True)
class Axis:
    """A setting, and the values that it takes along a side."""

    name: str
    values: tuple[Value, ...]
    """Of ``checkpoint`` the steps, None for the base model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands at the side, a text for each value."""
        return tuple(label(self.name, value) for value in self.values)


NO_AXIS = Axis("", ("",))
"""Along a side on which nothing changes."""


@dataclass(frozen=True)
class Settings:
    """What one picture is drawn with."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    weight: float = 1.0
    """How strongly the adapter is used; 1 where there is none."""
    checkpoint: int | None = None
    """The step of a run's checkpoint; None: the base model, or a model that is no run."""


@dataclass(frozen=True)
class Layout:
    """Columns, rows and tables of a grid."""

    x: Axis
    y: Axis
    z: Axis
    """A table for each value."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those on which something lies."""
        return tuple(axis for axis in (self.x, self.y, self.z) if axis.name)

    @property
    def pictures(self) -> int:
        """How many there are, places that show the same one counted each."""
        return len(self.x.values) * len(self.y.values) * len(self.z.values)

    def places(self) -> Iterator[tuple[int, int, int]]:
        """Yields table, row and column of each picture, in the order in which one reads."""
        for table in range(len(self.z.values)):
            for row in range(len(self.y.values)):
                for column in range(len(self.x.values)):
                    yield table, row, column

    def settings(self, fixed: Settings, place: tuple[int, int, int]) -> Settings:
        """Returns ``fixed`` with what the sides say of one place."""
        sides = zip((self.z, self.y, self.x), place, strict=True)
        changes: dict[str, Any] = {axis.name: axis.values[at] for axis, at in sides if axis.name}
        return dataclasses.replace(fixed, **changes)


def label(name: str, value: Value) -> str:
    """Returns a value as it stands at a side and under a picture."""
    if name == "checkpoint":
        return BASE if value is None else f"checkpoint {value}"
    if name == "prompt":
        return str(value) or "(no words)"
    if isinstance(value, float):
        return f"{name} {value:g}" if float(f"{value:g}") == value else f"{name} {value!r}"
    return f"{name} {value}".strip()


# ------------------------------------------------------------------------------------------------------ what was asked
def layout(
    sides: Mapping[str, str], *, prompts: Sequence[str], kept: Sequence[int] | None, given: Mapping[str, object]
) -> Layout:
    """Returns what ``sides`` asks for: the texts of --x, --y and --z, empty where nothing was said.

    ``kept`` are the steps of a run's checkpoints, None where the target is no run; ``given`` are the settings that
    were fixed by options of their own. A run of which no side is named has its checkpoints along x. Several prompts
    that no side names are rows where --y is free, else a table each. Raises UserError.
    """
    if not any(sides.values()) and kept is not None and "checkpoint" not in given:
        sides = {**sides, "--x": "checkpoint"}
    found = {where: _axis(text, where, prompts, kept) for where, text in sides.items() if text}
    names = [axis.name for axis in found.values()]
    if len(prompts) > 1 and "prompt" not in names:
        free = next((where for where in ("--y", "--z") if where not in found), None)
        if free is None:
            raise UserError(
                f"there are {len(prompts)} prompts, and no side is left for them.",
                where="--prompt",
                fix="Give one prompt, or name prompt as one of the sides.",
            )
        found[free] = Axis("prompt", tuple(prompts))
    if not found:
        raise UserError("no side has values.", where="--x", fix="For instance --x seed=0,1,2 --y guidance=3,7.5,12.")
    _refuse_twice(names, given)
    _refuse_repeated(found)
    whole = Layout(*(found.get(where, NO_AXIS) for where in ("--x", "--y", "--z")))
    if whole.pictures > MOST_PICTURES:
        sizes = " x ".join(str(len(axis.values)) for axis in whole.axes)
        raise UserError(
            f"{sizes} are {whole.pictures} pictures, and a grid has {MOST_PICTURES} at most.",
            where=", ".join(found),
            fix="Leave out some values, or draw several grids.",
        )
    return whole


def _axis(text: str, where: str, prompts: Sequence[str], kept: Sequence[int] | None) -> Axis:
    name, equals, values = text.partition("=")
    name = name.strip()
    if name not in AXES:
        close = difflib.get_close_matches(name, AXES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(AXES)}."
        raise UserError(f"{name!r} is nothing that a grid can change.", where=where, fix=hint)
    if name == "prompt":
        if equals:
            raise UserError(
                f"{text!r} lists prompts, which may have commas of their own.",
                where=where,
                fix=f"Give each by --prompt, and write {where} prompt.",
            )
        return Axis(name, tuple(prompts))
    if name == "checkpoint":
        return Axis(name, (None, *_steps_of(kept, where)) if not equals else _listed(name, values, where, kept))
    if not equals:
        example = _NUMBERS[name][3] if name in _NUMBERS else "ddim,euler_a"
        raise UserError(f"{name!r} has no values.", where=where, fix=f"For instance {name}={example}.")
    return Axis(name, _listed(name, values, where, kept))


def _listed(name: str, text: str, where: str, kept: Sequence[int] | None) -> tuple[Value, ...]:
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        empty = "no value" if len(parts) == 1 else "an empty value"
        raise UserError(f"'{name}={text}' has {empty}.", where=where, fix="Separate values by single commas.")
    return tuple(parse_value(name, part, where=where, kept=kept) for part in parts)


def parse_value(name: str, text: str, *, where: str, kept: Sequence[int] | None) -> Value:
    """Returns one value of a setting other than the prompt; raises UserError where it is none."""
    if name == "scheduler":
        check_scheduler_name(text, where=where)
        return text
    if name == "checkpoint":
        return _checkpoint(text, where, kept)
    kind, least, most, example = _NUMBERS[name]
    try:
        number: int | float = kind(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        word = "whole number" if kind is int else "number"
        bounds = f"from {least:g} to {most:g}" if most != _LARGEST_SEED else "from 0 on, below 2^63"
        raise UserError(f"{text!r} is no {name}: a {word} {bounds}.", where=where, fix=f"For instance {example}.")
    return number


def _checkpoint(text: str, where: str, kept: Sequence[int] | None) -> int | None:
    steps = _steps_of(kept, where)
    if text == BASE:
        return None
    if text.isdecimal() and int(text) in steps:
        return int(text)
    there = ", ".join((BASE, *map(str, steps)))
    fix = "train.keep_checkpoints says how many stay." if text.isdecimal() else "Name steps."
    raise UserError(f"there is no checkpoint {text!r}; there are: {there}.", where=where, fix=fix)


def _steps_of(kept: Sequence[int] | None, where: str) -> Sequence[int]:
    if kept is None:
        raise UserError("only a run has checkpoints, and this is a model.", where=where, fix="Name a run folder.")
    return kept


def _refuse_twice(names: Sequence[str], given: Mapping[str, object]) -> None:
    """Refuses a setting along two sides, and one along a side that was also fixed."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name!r} lies along two sides.", where="--x, --y, --z", fix="Leave one of them out.")
        if name in given:
            raise UserError(f"{name!r} lies along a side too.", where=f"--{name}", fix="Leave one of them out.")


def _refuse_repeated(sides: Mapping[str, Axis]) -> None:
    for where, axis in sides.items():
        repeated = [value for at, value in enumerate(axis.values) if value in axis.values[:at]]
        if repeated:
            place = "--prompt" if axis.name == "prompt" else where
            raise UserError(f"{label(axis.name, repeated[0])!r} is there twice.", where=place, fix="Give it once.")


# ------------------------------------------------------------------------------------------------------------ in order
def drawing_order(wanted: Sequence[Settings]) -> list[Settings]:
    """Returns what is drawn, each once: the base first, then by checkpoint and weight, so that each is put on once."""
    unique = list(dict.fromkeys(wanted))
    return sorted(unique, key=lambda one: (one.checkpoint is not None, one.checkpoint or 0, one.weight))

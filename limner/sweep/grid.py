"""The runs of a sweep: settings with several values, every combination of them, each with a folder of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from limner.config import RunConfig, load_recipe
from limner.core.config import Origins
from limner.core.errors import ConfigError, UserError
from limner.core.rundir import RunDir

MOST_RUNS = 500
SEED = "seed"
_WHERE, _NAME_BYTES = "command line", 120


@dataclass(frozen=True)
class Axis:
    """A setting and its values as they were written, two at least."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """One run of a sweep."""

    name: str
    """Its folder's name."""
    settings: Mapping[str, str]
    """The values of the axes, as they were written."""
    config: RunConfig
    origins: Origins

    @property
    def seed(self) -> str | None:
        """The value of the axis ``seed``; None where that has one value for all runs."""
        return self.settings.get(SEED)

    @property
    def setting(self) -> str:
        """The values of the other axes, for people: what is averaged over the seeds."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items() if key != SEED) or "all runs"

    @property
    def rundir(self) -> RunDir:
        return RunDir(self.config.out)


@dataclass(frozen=True)
class Grid:
    """All runs of a sweep, in the order in which they are taken."""

    recipe: Path
    words: tuple[str, ...]
    axes: tuple[Axis, ...]
    runs: tuple[Planned, ...]
    out: Path


def read_grid(recipe: Path, words: Sequence[str]) -> Grid:
    """Returns the runs that a recipe and ``key=value,value`` words ask for, each a valid config; trains nothing.

    Raises one error with every problem, of all combinations.
    """
    choices = [(key, tuple(split_values(key, text))) for key, text in (_key_and_text(word) for word in words)]
    axes = tuple(Axis(key, values) for key, values in choices if len(values) > 1)
    _check(axes, [key for key, _ in choices])
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_RUNS:
        raise UserError(
            f"{count:,} combinations are more than {MOST_RUNS}, the most that one sweep takes.",
            where=_WHERE,
            fix="Give fewer values.",
        )
    chosen = [
        [(key, value) for (key, _), value in zip(choices, values, strict=True)]
        for values in itertools.product(*(values for _, values in choices))
    ]
    swept = {axis.key for axis in axes}
    runs, problems = [], _Problems(count)
    for pairs in chosen:
        settings = {key: value for key, value in pairs if key in swept}
        name = folder_name(settings)
        try:
            config, origins = load_recipe(recipe, [f"{key}={value}" for key, value in pairs])
        except ConfigError as error:
            problems.add(name, error.problems)
            continue
        out = config.out / name
        runs.append(Planned(name, settings, config.model_copy(update={"out": out}), {**origins, "out": "limner sweep"}))
    problems.raise_if_any(recipe)
    _refuse_equal(runs)
    return Grid(recipe, tuple(words), axes, tuple(runs), runs[0].config.out.parent)


def _key_and_text(word: str) -> tuple[str, str]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UserError(f"{word!r} is not key=value.", where=_WHERE, fix="For instance seed=1,2,3.")
    return key, text


def split_values(key: str, text: str) -> list[str]:
    """Returns the values between the commas of ``text``; those in quotes, brackets and braces part nothing."""
    if "," not in text:
        return [text]
    inner = text.strip()
    fix = f"""Quote a value that has a comma, as in {key}='"red, blue",green'; [a, b] is one list."""
    try:
        node = yaml.compose(f"[{inner}]", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(inner) + 2:
        raise UserError(f"{text!r} cannot be parted at its commas.", where=f"{_WHERE}, {key}", fix=fix)
    if inner.endswith(","):
        raise UserError(f"{text!r} has nothing behind its last comma.", where=f"{_WHERE}, {key}", fix=fix)
    return [inner[value.start_mark.index - 1 : value.end_mark.index - 1].strip() for value in node.value]


def _check(axes: Sequence[Axis], keys: Sequence[str]) -> None:
    if not axes:
        raise UserError(
            "no setting has several values, so there is nothing to sweep.",
            where=_WHERE,
            fix="Give values with commas between them, as in seed=1,2,3, or use limner train.",
        )
    for axis in axes:
        if axis.key == "out":
            raise UserError(
                "several values, but it is the folder of the whole sweep.",
                where="out",
                fix="Give one: each run gets a folder of its own in it.",
            )
        if keys.count(axis.key) > 1:
            raise UserError("stands twice.", where=f"{_WHERE}, {axis.key}", fix="Write all its values behind one =.")


class _Problems:
    """What is wrong with the combinations: what is wrong with all is told once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, problems: Sequence[str]) -> None:
        for problem in problems:
            self._names.setdefault(problem, []).append(name)

    def raise_if_any(self, recipe: Path) -> None:
        told = [
            problem if len(names) == self._count else f"{problem} ({_some(names)})"
            for problem, names in self._names.items()
        ]
        if told:
            raise ConfigError(told, where=str(recipe))


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _refuse_equal(runs: Sequence[Planned]) -> None:
    """Raises UserError where two runs would be the same, or would share a folder."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for run in runs:
        content = json.dumps(plain(run.config), sort_keys=True)
        if content in seen:
            raise UserError(
                f"{seen[content]} and {run.name} are the same run.",
                where=_WHERE,
                fix="Give every value once, and no setting that another one replaces.",
            )
        folder = run.name.casefold()  # some file systems do not tell a from A
        if folder in folders:
            raise UserError(
                f"{folders[folder]} and {run.name} would share a folder.", where=_WHERE, fix="Sweep them apart."
            )
        seen[content], folders[folder] = run.name, run.name


def plain(config: RunConfig) -> dict[str, object]:
    """Returns the values that say what a run is: all but its folder."""
    return config.model_dump(mode="json", exclude={"out"})


def folder_name(settings: Mapping[str, str]) -> str:
    """Returns ``seed=1,method.rank=4``; what cannot stand in a file's name is replaced, and a hash of it all added."""
    text = ",".join(f"{key}={value}" for key, value in settings.items())
    safe = re.sub(r"[^\w.,=+-]+", "-", unicodedata.normalize("NFC", text))
    if safe == text and len(safe.encode()) <= _NAME_BYTES:
        return safe
    cut = safe.encode()[:_NAME_BYTES].decode(errors="ignore").rstrip("-")
    return f"{cut}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"

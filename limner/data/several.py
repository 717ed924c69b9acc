"""Several data sets as one: each with a name, and as often and as heavily as its share of the training shall be."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.dreambooth import DreamBooth
from limner.data.example import Reading
from limner.data.layouts import Layout, LayoutConfig
from limner.data.text import counted

if TYPE_CHECKING:
    from limner.data.ledger import Ledger

MAX_NAME = 40


class Source(Config):
    """One data set among several."""

    name: str = Field(max_length=MAX_NAME)
    """What it is called in tables and messages; no other source has this name."""
    repeats: int = Field(default=1, ge=1)
    """An epoch visits its pictures so many times; for DreamBooth on top of what balances subject and class."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of the loss of its pictures; for DreamBooth's class pictures on top of prior_weight."""
    dataset: LayoutConfig
    """The data set: any kind but several."""

    @field_validator("name")
    @classmethod
    def _name_is_part_of_an_id(cls, name: str) -> str:
        if not name.strip() or name != name.strip() or not name.isprintable() or re.search(r"[/\\]", name):
            raise ValueError(f"{name!r} is no name. Give it a short word without / and blanks around it, such as dog.")
        return name

    def read(self, key: str) -> Reading:
        """Returns what the data set reads, its ids below the name; ``key`` is where its options stand in the recipe."""
        try:
            reading = self.dataset.read()
        except UserError as error:
            in_config = re.match(r"dataset(\.|$)", error.where)
            where = key + error.where.removeprefix("dataset") if in_config else f"source {self.name!r}: {error.where}"
            raise UserError(_relocated(error.what, key), where=where, fix=_relocated(error.fix, key)) from None
        examples = tuple(
            replace(
                example,
                id=f"{self.name}/{example.id}",
                weight=example.weight * self.weight,
                repeats=example.repeats * self.repeats,
            )
            for example in reading.examples
        )
        left_out = tuple(replace(row, id=f"{self.name}/{row.id}") for row in reading.left_out)
        notes = [f"{self.name}: {reading.layout}"]
        notes += [f"{self.name}: {_relocated(note, key)}" for note in reading.notes]
        if isinstance(self.dataset, DreamBooth) and self.dataset.class_path is not None and self.repeats > 1:
            notes.append(f"{self.name}: repeats: {self.repeats} makes these visits {self.repeats} times as many.")
        return Reading(reading.layout, examples, left_out, tuple(notes), awaited=reading.awaited * self.repeats)


class Several(Config):
    """Several data sets in one run, each with a name, repeats and a weight; not the same pictures twice."""

    kind: Literal["several"] = "several"
    sources: tuple[Source, ...] = Field(min_length=1)
    """The data sets, as in [{name: dog, repeats: 10, dataset: {kind: folder, path: photos/dog}}, ...]."""

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}. Give each a name of its own.")
        return sources

    def read(self) -> Reading:
        """Returns the examples of all sources; raises UserError where two of them lie in one folder."""
        self._refuse_overlap()
        readings = [source.read(_key(number)) for number, source in enumerate(self.sources)]
        return Reading(
            f"{counted(len(readings), 'source')}: {', '.join(source.name for source in self.sources)}",
            tuple(example for reading in readings for example in reading.examples),
            tuple(row for reading in readings for row in reading.left_out),
            tuple(note for reading in readings for note in reading.notes),
            awaited=sum(reading.awaited for reading in readings),
        )

    def _refuse_overlap(self) -> None:
        places = [_places(source.dataset, _key(number)) for number, source in enumerate(self.sources)]
        for ones, others in itertools.combinations(places, 2):
            for (one_key, one), (key, other) in itertools.product(ones, others):
                if one.is_relative_to(other) or other.is_relative_to(one):
                    relation = "the same folder" if one == other else "one inside the other"
                    raise UserError(
                        f"{str(other)!r} and {one_key} {str(one)!r} are {relation}, so pictures would be read twice.",
                        where=key,
                        fix="Name each folder once, and set repeats to visit its pictures more often.",
                    )
        remote = [(s.dataset.id, s.dataset.subset, s.dataset.split) for s in self.sources if s.dataset.kind == "hub"]
        twice = [data for data in remote if remote.count(data) > 1]
        if twice:
            raise UserError(
                f"{twice[0][0]!r}, {twice[0][2]}, stands in two sources.",
                where="dataset.sources",
                fix="Name it once, and set repeats to visit its pictures more often.",
            )


def folders(dataset: Layout | Several) -> list[tuple[str, Path]]:
    """Returns the folders that a data set reads, absolute, each with the key of the recipe that names it."""
    if isinstance(dataset, Several):
        return [
            place for number, source in enumerate(dataset.sources) for place in _places(source.dataset, _key(number))
        ]
    return _places(dataset, "dataset")


def layouts(dataset: Layout | Several) -> list[Layout]:
    """Returns the data sets among the sources, or the one that stands alone."""
    return [source.dataset for source in dataset.sources] if isinstance(dataset, Several) else [dataset]


def subjects(dataset: Layout | Several) -> list[tuple[str, DreamBooth]]:
    """Returns the DreamBooth sets among the sources, or the one that stands alone, each with what begins its ids."""
    if isinstance(dataset, Several):
        named = [(f"{source.name}/", source.dataset) for source in dataset.sources]
        return [(prefix, layout) for prefix, layout in named if isinstance(layout, DreamBooth)]
    return [("", dataset)] if isinstance(dataset, DreamBooth) else []


def source_rows(dataset: Layout | Several, ledger: Ledger) -> list[tuple[str, str]]:
    """Returns a label and a value for each source: its pictures, its visits in an epoch, its weight.

    Raises UserError for a source of which no picture is left.
    """
    if not isinstance(dataset, Several):
        return []
    in_all = sum(picture.example.repeats for picture in ledger.prepared)
    rows = []
    for source in dataset.sources:
        mine = [one.example for one in ledger.prepared if one.example.id.startswith(f"{source.name}/")]
        if not any(row.used and row.id.startswith(f"{source.name}/") for row in ledger.rows):
            raise UserError(
                f"source {source.name!r} has no picture that can be used.",
                where="dataset.sources",
                fix="Mend its pictures, or take it out.",
            )
        visits = sum(example.repeats for example in mine)
        pictures = f"{counted(len(mine), 'picture')}, {counted(visits, 'visit')} in an epoch"
        weight = "" if source.weight == 1 else f", weight {source.weight:g}"
        rows.append((f"source {source.name}", f"{pictures} ({visits / in_all:.0%} of all){weight}"))
    return rows


def _key(number: int) -> str:
    return f"dataset.sources.{number}.dataset"


def _places(dataset: Layout, key: str) -> list[tuple[str, Path]]:
    values = dataset.model_dump()
    found = {name: place for name in ("path", "class_path") if isinstance(place := values.get(name), Path)}
    if isinstance(images := values.get("images"), Path):  # relative to path, and it may lead out of it
        found["images"] = found["path"] / images
    return [(f"{key}.{name}", place.expanduser().resolve()) for name, place in found.items()]


def _relocated(text: str, key: str) -> str:
    """Returns a text of a data set that stands alone with its keys as they are among several."""
    layouts: Sequence[type[Config]] = typing.get_args(Layout)
    names = {name for layout in layouts for name in layout.model_fields}
    return re.sub(rf"\bdataset\.({'|'.join(sorted(names))})\b", rf"{key}.\1", text)

"""The pictures that a metric measures on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from limner.core.errors import UserError
from limner.data import DatasetConfig
from limner.data.example import Example, ImageSource

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Shown:
    """One picture with what is known of it."""

    id: str
    image: ImageSource
    sha256: str
    """Of the file's bytes."""
    captions: tuple[str, ...]
    label: str | None
    """Its class; None where the data set says nothing of classes."""


@dataclass(frozen=True)
class ShownSet:
    """The pictures of a data set, by id, so that the order in which files were found changes no number."""

    layout: str
    pictures: tuple[Shown, ...]
    notes: tuple[str, ...] = ()
    content: str = ""
    """A hash of all that a metric reads of them; filled by the metric."""


def read_shown(dataset: DatasetConfig, where: str) -> ShownSet:
    """Returns the pictures of a data set; ``where`` says in errors whose it is, for instance ``metric 'cats'``."""
    try:
        reading = dataset.read()
    except UserError as error:
        raise UserError(error.what, where=f"{where}, {error.where}", fix=error.fix) from None
    shown = []
    for example in sorted(reading.examples, key=lambda example: example.id):
        try:
            data = example.image.read()
        except OSError as error:
            raise UserError(f"{example.id} cannot be read: {error.strerror}.", where=where, fix="Mend it.") from None
        shown.append(
            Shown(example.id, example.image, hashlib.sha256(data).hexdigest(), example.captions, label_of(example))
        )
    if not shown:
        raise UserError(f"{reading.layout}: no picture was found.", where=where, fix="Name another place.")
    return ShownSet(reading.layout, tuple(shown), reading.notes)


def label_of(example: Example) -> str | None:
    """Returns what the data set says that a picture shows, else the name of the folder in which it lies, if any."""
    return example.group or PurePosixPath(example.id).parent.name or None


def labels_of(shown: ShownSet, where: str) -> list[str]:
    """Returns the label of each picture; raises UserError where one has none, or where all have the same."""
    labels = [picture.label for picture in shown.pictures]
    if None in labels:
        raise UserError(
            f"{shown.pictures[labels.index(None)].id} has no label.",
            where=where,
            fix="Use kind: cifar10, or kind: folder with one folder of pictures for each class.",
        )
    if len(set(labels)) < 2:
        raise UserError(
            f"all pictures are {labels[0]!r}: with one class there is nothing to tell apart.",
            where=where,
            fix="Name the folder that holds the folders of all classes.",
        )
    return [str(label) for label in labels]


def metric_name(kind: str, dataset: DatasetConfig, name: str | None) -> str:
    """Returns the name of a metric: its own, or that of its kind and its data set's."""
    return name or f"{kind}_{dataset.kind}"


def check_name(name: str | None) -> str | None:
    """Returns the name; raises ValueError, for config validators, where it cannot be part of a file's name."""
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name. Use letters, digits, '_', '-' and '.', since files are named by it.")
    return name

"""What an export comes to, and the folder that it is written into: whole and checked, or not there."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.core.rundir import write_json
from limner.models.probe import difference

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_ERROR = 1e-4
"""Largest difference between the file's prediction and the trained model's, as a share of the largest prediction."""
LARGEST_LOSS = 0.1
"""The same, as a share of what the training changed: a weak LoRA that got lost is no small error."""
RECORD = "limner.json"


@dataclass(frozen=True)
class ExportResult:
    """A file or folder that was written, read back by another program's code, and compared."""

    path: Path
    reader: str
    """Whose code read it back: "diffusers 0.42.1"."""
    max_error: float
    """Largest difference between predictions of the file and of the trained model, relative to the largest."""
    effect: float
    """Largest difference between predictions of the trained and of the base model, relative to the largest."""


def compare(path: Path, *, reader: str, file: Tensor, trained: Tensor, base: Tensor) -> ExportResult:
    """Returns the result of a round trip; raises UserError where the file does not predict what was trained."""
    error, effect = difference(file, trained), difference(trained, base)
    if not (error.relative <= LARGEST_ERROR and error.largest <= LARGEST_LOSS * effect.largest):
        raise UserError(
            f"read back by {reader}, the export predicts something else than the trained model: it differs by "
            f"{error.relative:.1e} of the largest value ({LARGEST_ERROR:.0e} is allowed), and training changed "
            f"{effect.relative:.1e}. Nothing was kept.",
            where=str(path),
            fix="This is a defect of Limner or of that release: please report it with your recipe.",
        )
    return ExportResult(path, reader, error.relative, effect.relative)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies tensor by tensor, so that no third copy of a large network is in memory."""
    import torch

    values = source.state_dict()
    places = target.state_dict()
    if values.keys() != places.keys():
        raise RuntimeError(f"other tensors than the base has: {sorted(values.keys() ^ places.keys())[:3]}")
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value.detach())


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder`` that takes its place when the block ends without an error.

    An earlier export there is replaced. Any other file in it is an error, raised before anything is written.
    """
    refuse_foreign_files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for rest in (part, old):  # of a process that was killed
        shutil.rmtree(rest, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        refuse_foreign_files(folder)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}.", where=str(folder), fix="Make room, or choose another."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_record(folder: Path, result: ExportResult, metadata: Mapping[str, str]) -> None:
    """Writes limner.json: what the export is, how it was checked, and the names of its files."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / RECORD,
        {
            "limner": dict(metadata),
            "reader": result.reader,
            "max_error": result.max_error,
            "effect": result.effect,
            "files": files,
        },
    )


def refuse_foreign_files(folder: Path) -> None:
    """Raises UserError where a folder holds anything that is not from an earlier export."""
    if not folder.exists():
        return
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD}
    try:
        recorded = set(json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        recorded = set()
    foreign = sorted(present - recorded)
    if foreign or not folder.is_dir():
        raise UserError(
            f"holds files that are no export of Limner's, for instance {foreign[0]!r}." if foreign else "is a file.",
            where=str(folder),
            fix="Choose an empty or a new folder.",
        )

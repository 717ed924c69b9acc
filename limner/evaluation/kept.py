"""Measurements of one model in a file: each stands there as soon as it is made, and no later process makes it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.rundir import write_atomic
from limner.evaluation.measurement import Measurement, from_dict

if TYPE_CHECKING:
    from limner.evaluation import Metric


def measure_or_take(
    path: Path,
    model: Mapping[str, Any],
    metrics: Sequence[tuple[Metric, str]],
    measure: Callable[[Metric], Measurement],
) -> tuple[list[Measurement], int]:
    """Returns what each metric says of a model, and how many of these measurements ``path`` held already.

    Taken from there is what was measured of the same ``model`` (plain values for all that decides its numbers) with the
    same settings on the same content; beside each metric stands the hash of what it would measure now. The file holds
    these measurements first, in their order, then others of the same model. A damaged file counts as none.
    """
    told = json.loads(json.dumps(model))
    known = _stored(path, told)
    found: list[dict[str, Any]] = []
    taken = 0
    for metric, content in metrics:
        settings = metric.model_dump(mode="json")
        same = [one for one in known if (one["settings"], one["measurement"]["content"]) == (settings, content)]
        taken += len(same[:1])
        found.append(same[0] if same else {"settings": settings, "measurement": measure(metric).as_dict()})
        others = [one for one in known if one["settings"] not in [new["settings"] for new in found]]
        if [*found, *others] != known:
            write_atomic(path, json.dumps({"base": told, "measured": [*found, *others]}).encode())
    return [from_dict(one["measurement"]) for one in found], taken


def _stored(path: Path, model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what an earlier process measured of this model; nothing where it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
        fits = values["base"] == model
        return [one for one in values["measured"] if fits and "settings" in one and _is_whole(one["measurement"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_whole(values: dict[str, Any]) -> bool:
    measurement = from_dict(values)
    return bool(measurement.numbers) and all(
        all(isinstance(value, float | int) for value in (number.value, number.low, number.high, *number.outcomes))
        and len(number.outcomes) == measurement.pictures
        for number in measurement.numbers
    )

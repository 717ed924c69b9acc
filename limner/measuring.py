"""What a recipe's metrics say of a model, of a run's model before and after, and of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig, load_config
from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, write_atomic, write_json
from limner.data.ledger import Ledger
from limner.evaluation import Metric
from limner.evaluation.kept import measure_or_take
from limner.evaluation.measurement import (
    Comparison,
    Measurement,
    compare,
    comparison_rows,
    from_dict,
    heading,
    measurement_rows,
)
from limner.evaluation.plotting import MISSING, can_plot, confusion_plot
from limner.training.precision import choose_device

if TYPE_CHECKING:
    from limner.models.clip import ClipModel
    from limner.models.protocol import DualEncoder

BEFORE, AFTER, TABLE = "before.json", "after.json", "measurements.json"


# ----------------------------------------------------------------------------------------------------- before training
def metric_rows(config: RunConfig, ledger: Ledger, progress: Progress) -> list[tuple[str, str]]:
    """Returns a label and a value for each metric, for the plan.

    Raises UserError for data that cannot be measured, and for a guard whose pictures are trained on; warns of others.
    """
    trained = {picture.sha256 for picture in ledger.prepared}
    rows = []
    for metric in config.metrics:
        shown = metric.survey()
        shared = [picture.id for picture in shown.pictures if picture.sha256 in trained]
        told = f"{len(shared):,} of its {len(shown.pictures):,} pictures are trained on, such as {''.join(shared[:1])}"
        if shared and metric.guard:
            raise UserError(
                f"{told}, so it would not show what is forgotten.",
                where=f"metric {metric.title!r}",
                fix="Name pictures that are not in dataset, or leave guard out.",
            )
        if shared:
            progress.warn(f"metric {metric.title!r}: {told}: it measures memory, not what was learned")
        guard = ", a guard" if metric.guard else ""
        rows.append((metric.title, f"{metric.kind} before and after, {len(shown.pictures):,} pictures{guard}"))
    return rows


def measure_before(
    config: RunConfig, rundir: RunDir, model: DualEncoder, identity: Mapping[str, Any], progress: Progress
) -> None:
    """Measures the base model; what is there already, of the same pictures and settings, is not measured again."""
    if not config.metrics:
        return
    rundir.metrics_report.mkdir(parents=True, exist_ok=True)
    base = {key: value for key, value in identity.items() if key.startswith("base.") or key == "precision"}
    measure_or_take(
        rundir.metrics_report / BEFORE,
        base,
        [(metric, metric.survey().content) for metric in config.metrics],
        lambda metric: measure_one(model, metric, progress, "before"),
    )


# ------------------------------------------------------------------------------------------------------ after training
def measure_after(config: RunConfig, rundir: RunDir, model: DualEncoder, progress: Progress) -> tuple[Comparison, ...]:
    """Measures the tuned model, writes the comparison with plots into the run folder, and prints it."""
    if not config.metrics:
        return ()
    entries = json.loads((rundir.metrics_report / BEFORE).read_bytes())["measured"][: len(config.metrics)]
    before = [from_dict(entry["measurement"]) for entry in entries]
    after = [measure_one(model, metric, progress, "after") for metric in config.metrics]
    write_atomic(rundir.metrics_report / AFTER, json.dumps([one.as_dict() for one in after]).encode())
    comparisons = tuple(_compared(one, other) for one, other in zip(before, after, strict=True))
    write_comparisons(rundir.metrics_report, comparisons, progress)
    tell_comparisons(comparisons, progress)
    return comparisons


def measure_one(model: DualEncoder, metric: Metric, progress: Progress, when: str) -> Measurement:
    """Returns what a metric says of a model; ``when`` stands in the name of the bar."""
    measurement = metric.measure(
        model, on_progress=lambda done, total: progress.stage(f"{metric.title}, {when}", done, total)
    )
    return measurement


def _compared(before: Measurement, after: Measurement) -> Comparison:
    try:
        return compare(before, after)
    except ValueError:
        raise UserError(
            "its pictures are not those that were measured before.",
            where=f"metric {after.metric!r}",
            fix="Bring them back and measure again: limner measure RUN.",
        ) from None


def tell_comparisons(comparisons: Sequence[Comparison], progress: Progress) -> None:
    """Prints a table for each metric, and what should be said beside it."""
    for comparison in comparisons:
        progress.table(heading(comparison.after), comparison_rows(comparison))
        for note in dict.fromkeys([*comparison.before.notes, *comparison.after.notes]):
            progress.say(f"{comparison.after.metric}: {note}")


def write_comparisons(folder: Path, comparisons: Sequence[Comparison], progress: Progress) -> None:
    """Writes measurements.json and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TABLE, {"metrics": [comparison.as_dict() for comparison in comparisons]})
    for comparison in comparisons:
        for when, measurement in (("before", comparison.before), ("after", comparison.after)):
            _plot(folder, measurement, when)
    if not can_plot() and any("confusion" in comparison.after.details for comparison in comparisons):
        progress.warn(MISSING)


def _plot(folder: Path, measurement: Measurement, when: str) -> None:
    if can_plot() and "confusion" in measurement.details:
        details = measurement.details
        title = f"{measurement.metric}, {when}: {measurement.of}"
        picture = confusion_plot(details["classes"], details["confusion"], title)
        write_atomic(folder / f"{measurement.metric}_{when}.png", picture)


# ------------------------------------------------------------------------------------------------------------- by hand
@dataclass(frozen=True)
class Measured:
    """What ``limner measure`` found: comparisons of a run, or measurements of one model."""

    target: str
    comparisons: tuple[Comparison, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns it without what became of each picture, for JSON."""
        found = [one.as_dict() for one in self.comparisons] or [one.summary() for one in self.measurements]
        return {"target": self.target, "metrics": found}


def measure(
    target: str | Path,
    *,
    recipe: Path | None = None,
    names: Sequence[str] = (),
    device: str = "auto",
    out: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measures a CLIP model, or the base and the tuned model of a finished run, with a recipe's metrics, in float32.

    ``recipe`` may be left out for a run, which has its own. ``names`` are those of the metrics, unset all. The
    comparison of a run is written into ``out`` if it is set.
    """
    progress = progress or Silent()
    is_run = RunDir(Path(target)).status.is_file()
    if recipe is None and not is_run:
        raise UserError(
            f"{str(target)!r} is no run folder, so it has no metrics of its own.",
            where="--recipe",
            fix="Name a recipe with metrics.",
        )
    config = load_config(recipe if recipe is not None else RunDir(Path(target)).config)
    metrics = chosen_metrics(config, names, where=str(recipe or target))
    if not is_run:
        from limner.models.clip import Clip

        model = on_device(validate(Clip, {"path": str(target)}, where="MODEL").load(), device)
        measurements = tuple(measure_one(model, metric, progress, "measured") for metric in metrics)
        for one in measurements:
            progress.table(heading(one), measurement_rows(one))
            for note in one.notes:
                progress.say(f"{one.metric}: {note}")
        return Measured(str(target), measurements=measurements)
    base, tuned = models_of_run(Path(target), device)
    before = [measure_one(base, metric, progress, "before") for metric in metrics]
    comparisons = tuple(
        _compared(one, measure_one(tuned, metric, progress, "after"))
        for one, metric in zip(before, metrics, strict=True)
    )
    if out is not None:
        write_comparisons(out, comparisons, progress)
    tell_comparisons(comparisons, progress)
    return Measured(str(target), comparisons=comparisons)


def chosen_metrics(config: RunConfig, names: Sequence[str], *, where: str) -> list[Metric]:
    """Returns the metrics of a recipe that have these names, all for no names; raises UserError where there are none"""
    known = {metric.title: metric for metric in config.metrics}
    if not known:
        raise UserError("has no metrics.", where=where, fix="Add metrics to the recipe, or name another with --recipe.")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"there is no {unknown[0]!r} in {where}.", where="--metric", fix=f"Known: {', '.join(known)}.")
    return [metric for name, metric in known.items() if not names or name in names]


def models_of_run(run: Path, device: str) -> tuple[ClipModel, ClipModel]:
    """Returns the base and the tuned model of a finished run of CLIP, in float32."""
    from limner.models.clip import Clip, exported_clip

    config = load_config(RunDir(run).config)
    folder = exported_clip(run)
    if config.model.kind != "clip":
        raise UserError(f"is a run of {config.model.kind!r}.", where=str(run), fix="Name a run of CLIP.")
    if folder is None:
        raise UserError(
            "has no export/transformers: the run is not finished, or it exports other formats only.",
            where=str(run),
            fix="Finish it with --resume, with an export of kind transformers.",
        )
    return on_device(config.model.load(), device), on_device(Clip(path=str(folder)).load(), device)


def on_device(model: ClipModel, device: str) -> ClipModel:
    """Moves a model, in float32, and returns it."""
    import torch

    model.to(choose_device(device), torch.float32)
    return model

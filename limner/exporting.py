"""The files of a run's weights, for other programs: at its end, and of any of its checkpoints afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from limner.config import RunConfig, exports_of
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, write_json
from limner.export.metadata import file_metadata, without_names
from limner.reopening import chosen_steps, config_of, reopen, weights_of
from limner.session import Session, fitting

if TYPE_CHECKING:
    from limner.export.result import ExportResult


def export_weights(
    config: RunConfig, folder: Path, session: Session, step: int, progress: Progress, *, for_others: bool = False
) -> tuple[ExportResult, ...]:
    """Writes the files of the weights in place, which are those of ``step``, into ``folder``.

    The settings in files ``for_others`` name no folders.
    """
    results = []
    exports = exports_of(config, trains_text=session.trainable.trains_text)
    settings = config.model_dump(mode="json")
    metadata = file_metadata(
        base=session.model.source.name,
        base_hash=session.identity["base.clip" if config.model.kind == "clip" else "base.denoiser"],
        manifest=session.ledger.manifest,
        trigger_word=config.trigger_word,
        step=step,
        settings=without_names(settings) if for_others else settings,
        resolution=config.images.resolution,
        prediction_type=session.identity.get("base.prediction_type", ""),
        private=config.private,
        text_encoder=session.model.source.text_encoder,
    )
    for number, export in enumerate(exports):
        progress.stage("exports", number, len(exports))
        result = export.write(
            fitting(session.model),
            session.trainable,
            folder / export.kind,
            metadata,
            fresh_base=cast("Any", config.model.load),
        )
        results.append(result)
        progress.say(f"{result.path}: read back by {result.reader}, largest difference {result.max_error:.1e}")
    progress.stage("exports", len(exports), len(exports))
    return tuple(results)


def export_checkpoint(
    run: Path,
    step: int | None = None,
    *,
    out: Path | None = None,
    device: str = "",
    progress: Progress | None = None,
    for_others: bool = False,
) -> tuple[ExportResult, ...]:
    """Writes the files of one checkpoint of a run, the newest where ``step`` is None, each read back and compared.

    They are of the kinds that the run's config names, and go into ``out``, by default RUN/export, where they take the
    place of those of another step; ``for_others`` leaves names of folders out of them. Raises UserError where the run,
    the checkpoint or the base model is not there.
    """
    progress = progress or Silent()
    rundir = RunDir(run)
    config = config_of(rundir, device)
    chosen = chosen_steps(rundir, [] if step is None else [step])[-1]
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} is there already.", where="--out", fix="Name a new folder.")
    with rundir.locked():
        session = reopen(config, rundir, [chosen], progress)
        with weights_of(session, rundir, chosen):
            folder = out or rundir.export
            results = export_weights(config, folder, session, chosen, progress, for_others=for_others)
        if out is None:
            _note(rundir, chosen)
    return results


def _note(rundir: RunDir, step: int) -> None:
    """Writes into best.json, where there is one, which step's weights lie in RUN/export now."""
    if rundir.best.is_file():
        at = rundir.checkpoint(step).relative_to(rundir.path).as_posix()
        found = json.loads(rundir.best.read_bytes())
        write_json(rundir.best, {**found, "exported_step": step, "exported_checkpoint": at})

"""What must be the same for a run to go on, and the going on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir, RunStatus
from limner.data.ledger import Ledger
from limner.data.split import content_of
from limner.models.protocol import Trained
from limner.training.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from limner.session import Session
    from limner.training.precision import Precision

FREE_ON_RESUME = (
    "out", "model", "dataset", "samples", "metrics", "cache", "export", "private", "tensorboard", "trigger_word",
    "train.steps", "train.epochs", "train.steps_per_picture", "train.save_every", "train.keep_checkpoints",
    "train.device", "train.precision", "train.micro_batch_size", "train.gradient_checkpointing",
    "images.bad_files", "images.max_pixels", "images.max_cut",
    "validation.patience", "validation.min_improvement", "validation.export",
)  # fmt: skip
"""Keys of the config that may change when a run goes on: they do not change what is computed, or they are compared by
content instead (the data by its manifest, the model by its weights, the length by the schedule)."""


def identity_of(config: RunConfig, ledger: Ledger, model: Trained, steps: int, precision: Precision) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to be continued. Call it before the method changes the model."""
    values = flat(config.model_dump(mode="json"))
    kept = {
        f"config.{key}": value
        for key, value in values.items()
        if not any(key == free or key.startswith(f"{free}.") for free in FREE_ON_RESUME)
    }
    return {
        **kept,
        "data": ledger.manifest,
        **({} if config.validation is None else {"held_out": content_of(ledger.held_out)}),
        **{f"base.{key}": value for key, value in model.identity().items()},
        "precision": precision.name,
        **_split(config),
        **({"config.trigger_word": config.trigger_word} if config.captions.add_trigger_word else {}),
        **({} if config.schedule.kind == "constant" else {"steps": steps}),
    }


def _split(config: RunConfig) -> dict[str, Any]:
    """Returns the micro-batch size where it changes more than rounding: networks draw dropout per micro-batch."""
    lora = config.method.lora if config.method.kind == "pivotal" else config.method
    if lora.kind == "lora" and lora.dropout > 0:
        return {"config.train.micro_batch_size": config.train.micro_batch_size or config.train.batch_size}
    return {}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def continue_run(session: Session, rundir: RunDir, status: RunStatus, progress: Progress) -> None:
    """Loads the newest whole checkpoint into the session."""
    folder = rundir.checkpoint(rundir.checkpoint_steps()[-1])
    load_checkpoint(folder, session.state, session.identity)
    progress.say(f"continuing from {folder}")
    if session.state.step > session.steps:
        raise UserError(
            f"stands at step {session.state.step}, but the run has {session.steps} steps.",
            where=str(folder),
            fix="Raise train.steps.",
        )
    if session.watch is not None:
        session.watch.resume(session.state.step, status, progress)
    before = _environment_before(rundir)
    changed = [
        f"{key} {before.get(key, 'unknown')} -> {value}"
        for key, value in session.environment.items()
        if before.get(key) != value
    ]
    if changed:
        progress.warn(
            "not bit for bit the run that it would have been, since the machine changed: " + ", ".join(changed)
        )


def _environment_before(rundir: RunDir) -> dict[str, Any]:
    """Returns the environment of the run so far; empty where its file is gone or damaged."""
    try:
        found = json.loads(rundir.environment.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def refuse_overwriting(rundir: RunDir, resume: bool) -> None:
    steps = rundir.checkpoint_steps()
    if resume and not steps:
        raise UserError(
            "has no checkpoint to continue from.",
            where=str(rundir.path),
            fix="Leave out --resume to start, or set out=... to the folder of the run.",
        )
    if not resume and (steps or rundir.metrics.exists()):
        raise UserError(
            f"holds a run already{f', at step {steps[-1]}' if steps else ''}.",
            where=str(rundir.path),
            fix="Continue it with --resume, or choose another folder with out=...",
        )

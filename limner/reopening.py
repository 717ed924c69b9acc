"""A run that is over, opened again: its model as it began, and the weights of its checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from limner.config import RunConfig, load_config
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir
from limner.session import Session, open_session


def config_of(rundir: RunDir, device: str = "") -> RunConfig:
    """Returns the config that a run was made with; ``device`` replaces its own."""
    if not rundir.config.is_file():
        raise UserError(f"{str(rundir.path)!r} is no run folder.", where="RUN", fix="Name the folder of a run.")
    config = load_config(rundir.config)
    if device:
        config = config.model_copy(update={"train": config.train.model_copy(update={"device": device})})
    return config


def chosen_steps(rundir: RunDir, wanted: Sequence[int]) -> list[int]:
    """Returns the steps of checkpoints that are there, oldest first: those that are wanted, or all."""
    kept = [step for step in rundir.checkpoint_steps() if step > 0]
    missing = sorted(set(wanted) - set(kept))
    if not kept or missing:
        there = ", ".join(map(str, kept)) or "none"
        said = f"has no checkpoint of step {missing[0]}" if missing else "has no checkpoint of a step that was taken"
        raise UserError(
            f"{said}; there are: {there}.",
            where=str(rundir.path),
            fix="train.keep_checkpoints says how many stay." if kept else "Let it train first.",
        )
    return sorted(set(wanted)) or kept


def reopen(config: RunConfig, rundir: RunDir, steps: Sequence[int], progress: Progress) -> Session:
    """Returns the run's session with the weights of its base; raises where that is not that of the checkpoints."""
    session = open_session(config, rundir, _Beginning(progress))
    _refuse_other_base(session, rundir, steps, progress)
    return session


@contextlib.contextmanager
def weights_of(session: Session, rundir: RunDir, step: int | None) -> Iterator[None]:
    """Puts the weights of a checkpoint in place, its running average where there is one; None: the base's.

    A method begins as the base: an adapter adds nothing before its first update, other weights are the base's own. So
    the base comes first: once a checkpoint's weights were in place, they stay in the session.
    """
    from limner.training.checkpoint import load_weights

    if step is None:
        yield
        return
    load_weights(rundir.checkpoint(step), session.state)
    with session.tuned_weights():
        yield


class _Beginning(Silent):
    """Passes on what is wrong and how far the model's loading is; the plan of a run that is over is of no use."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def warn(self, text: str) -> None:
        """Passes it on."""
        self._progress.warn(text)

    def stage(self, name: str, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.stage(name, done, total)


def _refuse_other_base(session: Session, rundir: RunDir, steps: Sequence[int], progress: Progress) -> None:
    """Raises UserError where the base model is not that of the checkpoints, and tells where the pictures are not."""
    from limner.training.checkpoint import saved_identity

    for step in steps:
        saved = saved_identity(rundir.checkpoint(step))
        changed = [
            key for key in (saved.keys() | session.identity.keys()) if saved.get(key) != session.identity.get(key)
        ]
        if base := sorted(key for key in changed if key.startswith("base.")):
            raise UserError(
                f"the base model is not the one that step {step} was trained from ({', '.join(base)} differ).",
                where="model.path",
                fix="Bring the old model back.",
            )
        if {"data", "held_out"} & set(changed):
            progress.warn(f"the pictures are not those that step {step} learned from; its losses are on today's")

"""A run that is over, opened again: its model as it began, and the weights of its checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from limner.config import RunConfig, learns_to_draw, load_config
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


def refuse_other_runs(config: RunConfig, rundir: RunDir) -> None:
    """Raises UserError for a run that does not learn to draw."""
    if not learns_to_draw(config):
        raise UserError(
            f"is a run of {config.model.kind!r} with the objective {config.objective.kind!r}, which learns no "
            "pictures of prompts.",
            where=str(rundir.path),
            fix="A run of CLIP is compared by limner measure, and drawn with by limner swap.",
        )


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
    from limner.training.checkpoint import refuse_other_base

    session = open_session(config, rundir, _Beginning(progress))
    for step in steps:
        if {"data", "held_out"} & set(refuse_other_base(rundir.checkpoint(step), session.identity)):
            progress.warn(f"the pictures are not those that step {step} learned from; its losses are on today's")
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

"""What a run does about the part that is held out: measures it when it is due, says so, and knows when to end."""

from __future__ import annotations

import dataclasses

from limner.core.errors import NonFiniteError, UserError
from limner.core.progress import Progress
from limner.core.rundir import RunStatus
from limner.training.checkpoint import load_weights
from limner.training.course import Course, Measurement, Verdict, Weights, change
from limner.training.loop import TrainState
from limner.training.validation import HeldOut


@dataclasses.dataclass(frozen=True)
class Watch:
    """The held-out part of a run of ``steps`` steps, and the course of its loss."""

    held_out: HeldOut
    course: Course
    steps: int
    averaged: bool
    """The run keeps a running average of its weights; that is what is measured."""

    @property
    def best_step(self) -> int | None:
        """The step with the lowest loss of a trained model."""
        best = self.course.best
        return None if best is None else best.step

    def due(self, step: int) -> bool:
        """Returns whether the loss should be measured at ``step`` and was not yet."""
        return self.course.settings.due(step, self.steps) and not self.course.measured(step)

    def measure(self, step: int, status: RunStatus, progress: Progress, *, trained: bool) -> dict[str, float]:
        """Measures and writes it down; returns what the line of the step says of it. The weights must be in place.

        ``trained`` is False as long as they are the base model's: fp16's scaler may skip the first steps.
        """
        try:
            found = self.held_out.measure(lambda done, total: progress.stage("validation", done, total))
        except NonFiniteError as error:
            raise NonFiniteError(f"step {step}: {error.what}", fix=error.fix) from None
        weights: Weights = "the running average" if self.averaged else "the trained weights"
        weights = weights if trained else "the base model's weights"
        self.course.add(Measurement(step, found.loss, found.by_timestep, weights))
        self.tell(status)
        base = self.course.measurements[0].loss
        compared = f"{change(found.loss, base)}, of {weights}" if trained else "the base model's"
        best = ", the best so far" if step == self.best_step else ""
        progress.say(f"step {step}: validation loss {found.loss:.5f} ({compared}){best}")
        return {"validation_loss": found.loss}

    def tell(self, status: RunStatus, verdict: Verdict | None = None) -> None:
        """Puts the numbers into the status of the run."""
        verdict = verdict or self.course.verdict()
        status.validation = None if verdict is None else dataclasses.asdict(verdict)

    def resume(self, step: int, status: RunStatus, progress: Progress) -> None:
        """Takes up the measurements of a run that goes on at ``step``; says it where the run has ended."""
        self.course.restore(step)
        self.tell(status)
        reason = self.course.patience_is_over()
        if reason is not None and step < self.steps:
            progress.warn(
                f"this run has ended at step {step} of {self.steps} ({reason}): nothing is trained. To go on, raise "
                "validation.patience, or leave it out."
            )

    def put_in_place(self, state: TrainState, progress: Progress) -> int:
        """Puts the weights that are to be exported into ``state``; returns their step."""
        best, rundir = self.best_step, self.course.rundir
        if best is None or self.course.settings.export == "last":
            return state.step
        if best != state.step:
            folder = rundir.checkpoint(best)
            if not folder.is_dir():
                raise UserError(
                    f"the best checkpoint, that of step {best}, is gone.",
                    where=str(rundir.checkpoints),
                    fix="Bring it back, or set validation.export=last, and continue with --resume.",
                )
            load_weights(folder, state)
        progress.say(
            f"the weights of step {best} are exported, the best by validation loss; the last step is {state.step}"
        )
        return best

    def conclude(self, step: int, exported_step: int, status: RunStatus, progress: Progress) -> Verdict | None:
        """Writes down why the run ended and what was exported; warns where nothing general was learned."""
        ended = self.course.patience_is_over() if step < self.steps else None
        verdict = self.course.record(ended=ended or f"all {self.steps} steps taken", exported_step=exported_step)
        self.tell(status, verdict)
        if verdict is not None and verdict.best_loss >= verdict.base_loss:
            progress.warn(
                f"NOTHING WAS LEARNED THAT GENERALISES: the loss on pictures that were not trained on was never below "
                f"the base model's {verdict.base_loss:.5f}; the best was {verdict.best_loss:.5f}, at step "
                f"{verdict.best_step}. Try a lower optimizer.lr, a smaller method.rank, or more pictures that differ"
            )
        return verdict

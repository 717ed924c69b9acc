"""A whole run, from top to bottom: the plan, the steps, the proof, the files."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig, learns_to_draw
from limner.core.config import Origins, to_yaml
from limner.core.errors import NonFiniteError, UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, RunStatus, read_metrics, reported, write_atomic, write_json
from limner.data.ledger import write_ledger
from limner.exporting import export_checkpoint, export_weights
from limner.measuring import measure_after
from limner.report import CompareResult, compare
from limner.resuming import continue_run, refuse_overwriting
from limner.session import Session, fitting, open_session, probe_answer, text_states_of
from limner.training.backward import REMEDY
from limner.training.checkpoint import prune_checkpoints, save_checkpoint
from limner.training.environment import refuse_several_processes
from limner.training.loggers import loggers
from limner.training.stop import graceful_stop, terminated_as_interrupted

if TYPE_CHECKING:
    from limner.evaluation.measurement import Comparison
    from limner.export.result import ExportResult
    from limner.training.course import Verdict


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    out: Path
    step: int
    """Optimizer steps taken, those before a resume included."""
    steps: int
    loss: float | None
    """The mean of the last steps' losses (20 at most); None where no step was left to take."""
    change: float | None
    """Largest difference between the prediction of the tuned model and that of the base; None if interrupted."""
    exports: tuple[ExportResult, ...] = ()
    interrupted: int | None = None
    """The signal that stopped the run early (2 Ctrl-C, 15 SIGTERM); its checkpoint is written."""
    validation: Verdict | None = None
    """What the loss on the held-out pictures said; None where there are none, or no trained model was measured yet."""
    metrics: tuple[Comparison, ...] = ()
    """What the metrics said before training and after."""
    report: CompareResult | None = None
    """What the training changed, measured at its end; None where that is switched off, or cannot be."""
    text_moved: float | None = None
    """How far the hidden states of a CLIP's text encoder moved, as a share of their length; None where it did not
    train."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        exports = [{"path": str(export.path), "max_error": export.max_error} for export in self.exports]
        metrics = [comparison.as_dict() for comparison in self.metrics]
        report = None if self.report is None else self.report.as_dict()
        values = dataclasses.asdict(dataclasses.replace(self, metrics=(), report=None))
        return {**values, "out": str(self.out), "exports": exports, "metrics": metrics, "report": report}


def finetune(
    config: RunConfig, *, resume: bool = False, progress: Progress | None = None, origins: Origins | None = None
) -> RunResult:
    """Trains as ``config`` says and writes everything into ``config.out``.

    Raises UserError for what the user can repair. SIGINT and SIGTERM save a checkpoint and return early.
    """
    progress = progress or Silent()
    rundir = RunDir(config.out)
    refuse_several_processes()
    refuse_overwriting(rundir, resume)
    with terminated_as_interrupted():
        with rundir.locked(), reported(rundir) as status:
            result, exported = _whole(config, rundir, status, resume, progress, origins or {})
        if result.interrupted is None and config.report.at_end != "never" and learns_to_draw(config):
            result = _with_report(config, result, exported, progress)
    return result


def _whole(
    config: RunConfig, rundir: RunDir, status: RunStatus, resume: bool, progress: Progress, origins: Origins
) -> tuple[RunResult, int]:
    """Trains, proves and exports; returns what it came to, and the step whose weights were exported."""
    session = open_session(config, rundir, progress)
    if resume:
        continue_run(session, rundir, status, progress)
    _write_records(config, origins, rundir, session)
    status.at(session.state.step, session.steps)
    losses, interrupted = _train(config, rundir, session, status, progress)
    loss = sum(losses[-20:]) / len(losses[-20:]) if losses else None
    step = session.state.step
    if interrupted is not None:
        status.write("stopped")
        verdict = None if session.watch is None else session.watch.course.verdict()
        stopped = RunResult(config.out, step, session.steps, loss, None, interrupted=interrupted, validation=verdict)
        return stopped, step
    exported = step if session.watch is None else session.watch.put_in_place(session.state, progress)
    with session.tuned_weights():
        change = _prove_change(config, session)
        prune_checkpoints(rundir, keep=config.train.keep_checkpoints, spare=session.best_step)
        exports = export_weights(config, rundir.export, session, exported, progress)
        metrics = measure_after(config, rundir, fitting(session.model), progress)
        text_moved = _text_movement(config, session, progress)
    verdict = None if session.watch is None else session.watch.conclude(step, exported, status, progress)
    found = {"step": step, "change": change, "text_moved": text_moved, "identity": session.identity}
    write_json(rundir.result, found)
    status.write("finished")
    result = RunResult(
        config.out,
        step,
        session.steps,
        loss,
        change,
        exports,
        validation=verdict,
        metrics=metrics,
        text_moved=text_moved,
    )
    return result, exported


def _with_report(config: RunConfig, result: RunResult, exported: int, progress: Progress) -> RunResult:
    """Compares the run with its base model, and exports what is recommended where that is asked for. The run is over,
    so that nothing of it is lost if there can be no report."""
    best = config.train.keep_best
    steps = () if best else sorted({exported, result.step})
    seconds = sum(line["seconds"] for line in read_metrics(RunDir(result.out).metrics))
    most = config.report.most_seconds(seconds, keep_best=best)
    try:
        report = compare(result.out, steps=steps, most_seconds=most, progress=progress)
    except UserError as error:
        progress.warn(f"there is no report: {error}")
        return result
    keep, exports = report.recommendation, result.exports
    if best and keep.step is None:
        progress.warn(f"train.keep_best: the report recommends {keep.reason}; the files are those of step {exported}")
    elif best and keep.step != exported:
        progress.say(f"train.keep_best: {keep.reason}")
        exports = export_checkpoint(result.out, keep.step, progress=progress)
    return dataclasses.replace(result, report=report, exports=exports)


def _train(
    config: RunConfig, rundir: RunDir, session: Session, status: RunStatus, progress: Progress
) -> tuple[list[float], int | None]:
    """Takes the steps that are left; returns their losses, and the signal that ended them early if one did."""
    import torch

    from limner.training.loop import train
    from limner.training.proof import LearningProof

    state, steps = session.state, session.steps
    patience = 1 + config.schedule.warmup_steps + config.optimizer.slow_start
    word = session.trainable.placeholder
    seldom = frozenset(word.vectors if word is not None else ())
    fitted = state.params.keys() - session.trainable.params.keys()  # a loss's own begin where their gradient is 0
    waits = session.trainable.waits | fitted if state.step == state.skipped else frozenset()  # an update ended the wait
    proof = LearningProof(state.params, session.model.networks, waits, patience, seldom)
    scaler = state.scaler
    backward = config.objective.backward(
        fitting(session.model),
        seed=config.seed,
        precision=session.precision,
        scale=(lambda loss: loss) if scaler is None else scaler.scale,
        as_base=session.as_base,
    )
    losses: list[float] = []
    visits = len(session.feed.slots)
    save_checkpoint(rundir, state, session.identity)  # before the first step: a full disk shows now
    with (
        loggers(rundir, step=state.step, tensorboard=config.tensorboard) as log,
        graceful_stop() as stop,
        torch.random.fork_rng(devices=[]),  # the loop seeds PyTorch's own stream; the caller's stays as it was
    ):
        _validate(session, status, progress)
        _draw_samples(config, rundir, session, progress)
        session.model.train_mode(session.trainable.parts)
        for report in train(
            state,
            backward,
            session.feed.batches,
            lambda step: config.schedule.factor(step, steps),
            steps=session.last_step,
            max_grad_norm=config.train.max_grad_norm,
            seed=config.seed,
        ):
            if not report.skipped:
                losses.append(report.loss)
                if not state.proved:
                    proof.after_update()
                    state.proved = proof.done
            spare = session.best_step
            line = {**report.as_line(), **_validate(session, status, progress)}
            log.write(line)
            # the newest has proved good by this step; the best so far, since that of this step is not saved yet
            prune_checkpoints(rundir, keep=config.train.keep_checkpoints, spare=spare)
            progress.step(line, steps)
            status.at(state.step, steps)
            last, best = state.step == session.last_step, state.step == session.best_step
            if stop.signal is not None or last or best or config.train.saves(state.step, visits=visits):
                log.sync()
                save_checkpoint(rundir, state, session.identity)
            if session.watch is not None and "validation_loss" in line:
                session.watch.course.record()  # not before its checkpoint is there
            if stop.signal is not None:
                return losses, stop.signal
            _draw_samples(config, rundir, session, progress)
            if last:
                break
        if losses and not state.proved:
            progress.warn("the run was too short to prove that every tensor moves")
    return losses, None


def _validate(session: Session, status: RunStatus, progress: Progress) -> dict[str, float]:
    """Measures the held-out part if that is due at the step that the run is at; returns what the step's line gets."""
    step, watch = session.state.step, session.watch
    trained = step > session.state.skipped
    if watch is None or not watch.due(step):
        return {}
    with session.tuned_weights():
        return watch.measure(step, status, progress, trained=trained)


def _draw_samples(config: RunConfig, rundir: RunDir, session: Session, progress: Progress) -> None:
    """Draws the samples of the step that the run is at, if any are due and not there."""
    step = session.state.step
    folder = rundir.samples / f"step_{step:06d}"
    if not config.samples.due(step, session.last_step) or config.samples.drawn(folder):
        return
    with session.tuned_weights(), session.precision.autocast():
        config.samples.draw(
            fitting(session.model),
            folder,
            square=config.images.resolution,
            on_progress=lambda done, total: progress.stage("samples", done, total),
        )


def _prove_change(config: RunConfig, session: Session) -> float:
    """Returns how far the prediction moved from the base model's; raises if it did not move at all."""
    answer = probe_answer(config, session.model, session.trainable, session.precision)
    change = float((answer - session.base_prediction).abs().max())
    if not math.isfinite(change):
        raise NonFiniteError("the trained model's prediction is not finite: training has ruined it.", fix=REMEDY)
    if change == 0:
        raise UserError(
            "the trained weights do not change the model's prediction at all.",
            where="proof of learning",
            fix="Check optimizer.lr and the length of the run.",
        )
    return change


def _text_movement(config: RunConfig, session: Session, progress: Progress) -> float | None:
    """Tells and returns how far the states that a pipeline would read moved, where a CLIP's text encoder trained."""
    from limner.evaluation.hidden_states import movement

    after = text_states_of(config, session.model, session.trainable)
    if session.base_states is None or after is None:
        return None
    gauge = movement(session.base_states, after)
    progress.say(f"text encoder: {gauge.sentence()}")
    if gauge.too_far:
        progress.say(f"if it shall draw: {gauge.warning()}")
    return gauge.moved


def _write_records(config: RunConfig, origins: Origins, rundir: RunDir, session: Session) -> None:
    write_atomic(rundir.config, to_yaml(config, origins).encode())
    write_json(rundir.environment, session.environment)
    write_ledger(rundir.ledger, session.ledger)

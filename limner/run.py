"""The whole jobs, each from top to bottom: check, finetune. The only module that knows all the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from limner.class_pictures import draw_class_pictures, refuse_others_pictures
from limner.config import RunConfig
from limner.core.config import Origins, to_yaml
from limner.core.errors import NonFiniteError, UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, RunStatus, reported, write_atomic, write_json
from limner.data.caption_tools import CaptionTools
from limner.data.ledger import Ledger, Prepared, write_ledger
from limner.data.split import content_of
from limner.models.protocol import Trained
from limner.preflight import cache_folder, plan
from limner.training.backward import REMEDY
from limner.training.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint
from limner.training.environment import describe_environment, refuse_several_processes
from limner.training.loggers import loggers
from limner.training.stop import graceful_stop, terminated_as_interrupted

if TYPE_CHECKING:
    from torch import Tensor

    from limner.export.result import ExportResult
    from limner.methods.base_weights import AsBase
    from limner.methods.trainable import Trainable
    from limner.training.course import Verdict
    from limner.training.feed import Feed
    from limner.training.loop import TrainState
    from limner.training.precision import Precision
    from limner.training.watch import Watch

FREE_ON_RESUME = (
    "out", "model", "dataset", "samples", "cache", "export", "private", "tensorboard", "trigger_word",
    "train.steps", "train.epochs", "train.steps_per_picture", "train.save_every", "train.keep_checkpoints",
    "train.device", "train.precision", "train.micro_batch_size", "train.gradient_checkpointing",
    "images.bad_files", "images.max_pixels", "images.max_cut",
    "validation.patience", "validation.min_improvement", "validation.export",
)  # fmt: skip
"""Keys of the config that may change when a run goes on: they do not change what is computed, or they are compared by
content instead (the data by its manifest, the model by its weights, the length by the schedule)."""


# -------------------------------------------------------------------------------------------------------- finetune
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

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        exports = [{"path": str(export.path), "max_error": export.max_error} for export in self.exports]
        return {**dataclasses.asdict(self), "out": str(self.out), "exports": exports}


def finetune(
    config: RunConfig, *, resume: bool = False, progress: Progress | None = None, origins: Origins | None = None
) -> RunResult:
    """Trains as ``config`` says and writes everything into ``config.out``.

    Raises UserError for what the user can repair. SIGINT and SIGTERM save a checkpoint and return early.
    """
    progress = progress or Silent()
    rundir = RunDir(config.out)
    refuse_several_processes()
    _refuse_overwriting(rundir, resume)
    with terminated_as_interrupted(), rundir.locked(), reported(rundir) as status:
        session = _prepare(config, rundir, progress)
        if resume:
            _continue(session, rundir, status, progress)
        _write_records(config, origins or {}, rundir, session)
        status.at(session.state.step, session.steps)
        losses, interrupted = _train(config, rundir, session, status, progress)
        loss = sum(losses[-20:]) / len(losses[-20:]) if losses else None
        step = session.state.step
        if interrupted is not None:
            status.write("stopped")
            verdict = None if session.watch is None else session.watch.course.verdict()
            return RunResult(config.out, step, session.steps, loss, None, interrupted=interrupted, validation=verdict)
        exported = step if session.watch is None else session.watch.put_in_place(session.state, progress)
        with session.tuned_weights():
            change = _prove_change(config, session)
            prune_checkpoints(rundir, keep=config.train.keep_checkpoints, spare=session.best_step)
            exports = _export(config, rundir, session, exported, progress)
        verdict = None if session.watch is None else session.watch.conclude(step, exported, status, progress)
        status.write("finished")
        return RunResult(config.out, step, session.steps, loss, change, exports, validation=verdict)


@dataclass
class _Session:
    """What a run holds while it goes on."""

    ledger: Ledger
    steps: int
    precision: Precision
    model: Trained
    trainable: Trainable
    state: TrainState
    feed: Feed
    identity: dict[str, Any]
    base_prediction: Tensor
    environment: dict[str, Any]
    as_base: AsBase | None
    """Makes the model its base for a while, where the objective asks for that."""
    watch: Watch | None
    """None where no pictures are held out."""

    @property
    def last_step(self) -> int:
        """The step with which the run ends: this one where nothing better was measured for long enough."""
        over = self.watch is not None and self.watch.course.patience_is_over() is not None
        return self.state.step if over else self.steps

    @property
    def best_step(self) -> int | None:
        """The step whose checkpoint is kept however old it gets."""
        return None if self.watch is None else self.watch.best_step

    def tuned_weights(self) -> contextlib.AbstractContextManager[None]:
        """Puts the averaged weights in place where the run keeps them."""
        ema = self.state.ema
        return contextlib.nullcontext() if ema is None else ema.in_place_of(self.trainable.params)


def _prepare(config: RunConfig, rundir: RunDir, progress: Progress) -> _Session:
    from limner.training.precision import choose_device, choose_precision

    draw_class_pictures(config, progress)
    planned = plan(config, progress=progress)
    ledger, steps = planned.ledger, planned.steps
    progress.table("plan", planned.rows)
    precision = choose_precision(config.train.precision, choose_device(config.train.device))
    progress.stage("model", 0, 1)
    model = config.model.load()
    for notice in model.notices:
        progress.warn(notice)
    identity = _identity(config, ledger, model, steps, precision)
    refuse_others_pictures(config, model)
    model.to(precision.device, precision.dtype, float32=config.method.float32_parts(_fitting(model)))
    trainable = config.method.apply(_fitting(model), seed=config.seed)
    as_base = _keep_base(config, model, trainable, progress)
    if config.train.gradient_checkpointing:
        model.checkpoint_gradients()
    progress.stage("model", 1, 1)
    progress.say(
        f"training {trainable.count():,} numbers in {len(trainable.params)} tensors ({', '.join(trainable.parts)}) "
        f"on {precision.device}, {precision.name}"
    )
    state = _new_state(config, trainable, precision)
    feed = _feed(config, ledger, model, trainable, precision)
    return _Session(
        ledger=ledger,
        steps=steps,
        precision=precision,
        model=model,
        trainable=trainable,
        state=state,
        feed=feed,
        identity=identity,
        base_prediction=_probe(config, model, trainable, precision),
        environment=describe_environment(precision),
        as_base=as_base,
        watch=_watch(config, rundir, ledger, feed, steps),
    )


def _fitting(model: Trained) -> Any:
    """Returns the model as what method, objective and exports take: ``plan`` has seen that they fit it."""
    return model


def _keep_base(config: RunConfig, model: Trained, trainable: Trainable, progress: Progress) -> AsBase | None:
    """Returns what makes the model its base for a while, if the objective asks; call it before a weight moves."""
    if config.objective.kind != "denoising" or config.objective.preservation is None:
        return None
    from limner.methods.base_weights import keep_base

    base = keep_base(trainable, model.networks)
    if base.bytes:
        progress.say(
            f"objective.preservation keeps a frozen copy of what trains: {base.bytes / 1e9:.2f} GB more memory"
        )
    return base.in_place


def _new_state(config: RunConfig, trainable: Trainable, precision: Precision) -> TrainState:
    from limner.methods.trainable import PLACEHOLDER
    from limner.training.ema import Ema
    from limner.training.loop import TrainState

    lrs = tuple(config.optimizer.lr * trainable.lr_scales.get(name, 1.0) for name in trainable.groups)
    groups = [
        {"params": params, "lr": lr, **({"weight_decay": 0.0} if name == PLACEHOLDER else {})}  # no pull towards 0
        for (name, params), lr in zip(trainable.groups.items(), lrs, strict=True)
    ]
    return TrainState(
        params=trainable.params,
        optimizer=config.optimizer.build(groups),
        base_lrs=lrs,
        ema=Ema(trainable.params, config.train.ema_decay) if config.train.ema_decay else None,
        scaler=precision.scaler(),
    )


def _feed(config: RunConfig, ledger: Ledger, model: Trained, trainable: Trainable, precision: Precision) -> Feed:
    from limner.data.cache import TensorCache
    from limner.data.order import Order
    from limner.training.feed import Feed

    slots: tuple[Prepared, ...] = tuple(p for p in ledger.prepared for _ in range(p.example.repeats))
    numbers = {bucket: number for number, bucket in enumerate(sorted({p.bucket for p in slots}))}
    folder = cache_folder(config) / "tensors"
    keeps_text = config.objective.kind == "denoising" and not trainable.trains_text
    caption_folder = folder if config.cache.captions and not config.captions.edits_tags else None
    return Feed(
        slots=slots,
        order=Order([numbers[p.bucket] for p in slots], batch_size=config.train.batch_size, seed=config.seed),
        images=config.images,
        micro_batch_size=config.train.micro_batch_size or config.train.batch_size,
        caption_dropout=config.objective.caption_dropout,
        seed=config.seed,
        model=_fitting(model),
        precision=precision,
        latents=TensorCache(folder if config.cache.latents else None),
        captions=TensorCache(caption_folder) if keeps_text else None,
        reads=config.objective.reads,
        caption_tools=CaptionTools(config.captions, config.trigger_word),
        masks=config.masks,
    )


def _watch(config: RunConfig, rundir: RunDir, ledger: Ledger, feed: Feed, steps: int) -> Watch | None:
    from limner.training.course import Course
    from limner.training.validation import HeldOut
    from limner.training.watch import Watch

    if config.validation is None:
        return None
    held_out = HeldOut(
        pictures=ledger.held_out,
        objective=config.objective,
        feed=feed,
        draws=config.validation.draws,
        batch_size=config.train.batch_size,
    )
    return Watch(held_out, Course(rundir, config.validation), steps, averaged=config.train.ema_decay is not None)


def _train(
    config: RunConfig, rundir: RunDir, session: _Session, status: RunStatus, progress: Progress
) -> tuple[list[float], int | None]:
    """Takes the steps that are left; returns their losses, and the signal that ended them early if one did."""
    import torch

    from limner.training.loop import train
    from limner.training.proof import LearningProof

    state, steps = session.state, session.steps
    patience = 1 + config.schedule.warmup_steps + config.optimizer.slow_start
    word = session.trainable.placeholder
    seldom = frozenset(word.vectors if word is not None else ())
    waits = session.trainable.waits if state.step == state.skipped else frozenset()  # an update ended the waiting
    proof = LearningProof(session.trainable.params, session.model.networks, waits, patience, seldom)
    scaler = state.scaler
    backward = config.objective.backward(
        _fitting(session.model),
        seed=config.seed,
        precision=session.precision,
        scale=(lambda loss: loss) if scaler is None else scaler.scale,
        as_base=session.as_base,
    )
    losses: list[float] = []
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
            if stop.signal is not None or last or best or state.step % config.train.save_every == 0:
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


def _validate(session: _Session, status: RunStatus, progress: Progress) -> dict[str, float]:
    """Measures the held-out part if that is due at the step that the run is at; returns what the step's line gets."""
    step, watch = session.state.step, session.watch
    if watch is None or not watch.due(step):
        return {}
    with session.tuned_weights():
        return watch.measure(step, status, progress)


def _draw_samples(config: RunConfig, rundir: RunDir, session: _Session, progress: Progress) -> None:
    """Draws the samples of the step that the run is at, if any are due and not there."""
    step = session.state.step
    folder = rundir.samples / f"step_{step:06d}"
    if not config.samples.due(step, session.last_step) or config.samples.drawn(folder):
        return
    with session.tuned_weights(), session.precision.autocast():
        config.samples.draw(
            _fitting(session.model),
            folder,
            square=config.images.resolution,
            on_progress=lambda done, total: progress.stage("samples", done, total),
        )


def _probe(config: RunConfig, model: Trained, trainable: Trainable, precision: Precision) -> Tensor:
    """Returns the answer to a fixed question, of the part that trains."""
    from limner.models.probe import probe, probe_autoencoder, probe_dual_encoder, prompts_about

    fitting = _fitting(model)
    with precision.autocast():
        if config.objective.kind == "reconstruction":
            return probe_autoencoder(fitting.vae, side=2 * model.size_multiple)
        if trainable.placeholder is not None:
            return probe(fitting, prompts=prompts_about(trainable.placeholder.token))
        return probe(fitting) if config.objective.kind == "denoising" else probe_dual_encoder(fitting)


def _prove_change(config: RunConfig, session: _Session) -> float:
    """Returns how far the prediction moved from the base model's; raises if it did not move at all."""
    answer = _probe(config, session.model, session.trainable, session.precision)
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


def _export(
    config: RunConfig, rundir: RunDir, session: _Session, step: int, progress: Progress
) -> tuple[ExportResult, ...]:
    """Writes the files of the weights in place, which are those of ``step``."""
    from limner.export import default_exports
    from limner.export.metadata import file_metadata

    results = []
    exports = config.export if config.export is not None else default_exports(config.model.kind, config.method.kind)
    metadata = file_metadata(
        base=session.model.source.name,
        base_hash=session.identity["base.clip" if config.model.kind == "clip" else "base.denoiser"],
        manifest=session.ledger.manifest,
        trigger_word=config.trigger_word,
        step=step,
        settings=config.model_dump(mode="json"),
        resolution=config.images.resolution,
        prediction_type=session.identity.get("base.prediction_type", ""),
        private=config.private,
    )
    for number, export in enumerate(exports):
        progress.stage("exports", number, len(exports))
        result = export.write(
            _fitting(session.model),
            session.trainable,
            rundir.export / export.kind,
            metadata,
            fresh_base=cast("Any", config.model.load),
        )
        results.append(result)
        progress.say(f"{result.path}: read back by {result.reader}, largest difference {result.max_error:.1e}")
    progress.stage("exports", len(exports), len(exports))
    return tuple(results)


# ---------------------------------------------------------------------------------------------------------- resume
def _identity(config: RunConfig, ledger: Ledger, model: Trained, steps: int, precision: Precision) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to be continued. Call it before the method changes the model."""
    values = _flat(config.model_dump(mode="json"))
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


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _continue(session: _Session, rundir: RunDir, status: RunStatus, progress: Progress) -> None:
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


def _refuse_overwriting(rundir: RunDir, resume: bool) -> None:
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


def _write_records(config: RunConfig, origins: Origins, rundir: RunDir, session: _Session) -> None:
    write_atomic(rundir.config, to_yaml(config, origins).encode())
    write_json(rundir.environment, session.environment)
    write_ledger(rundir.ledger, session.ledger)

"""What a run holds while it goes on, and how it is put together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.class_pictures import draw_class_pictures, refuse_others_pictures
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir
from limner.data.caption_tools import CaptionTools
from limner.data.ledger import Ledger, Prepared
from limner.measuring import measure_before
from limner.models.protocol import Trained
from limner.preflight import cache_folder, plan
from limner.resuming import identity_of
from limner.training.environment import describe_environment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from limner.evaluation.hidden_states import States
    from limner.methods.base_weights import AsBase
    from limner.methods.trainable import Trainable
    from limner.training.feed import Feed
    from limner.training.loop import TrainState
    from limner.training.precision import Precision
    from limner.training.watch import Watch


@dataclass
class Session:
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
    base_states: States | None
    """What a CLIP's text encoder made of fixed captions before it trained; None where it does not train."""

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
        return contextlib.nullcontext() if ema is None else ema.in_place_of(self.state.params)


def open_session(config: RunConfig, rundir: RunDir, progress: Progress) -> Session:
    from limner.training.precision import choose_device, choose_precision

    loaded = draw_class_pictures(config, progress)
    planned = plan(config, progress=progress)
    ledger, steps = planned.ledger, planned.steps
    progress.table("plan", planned.rows)
    precision = choose_precision(config.train.precision, choose_device(config.train.device))
    progress.stage("model", 0, 1)
    model = loaded or config.model.load()
    for notice in model.notices:
        progress.warn(notice)
    identity = identity_of(config, ledger, model, steps, precision)
    refuse_others_pictures(config, model)
    model.to(precision.device, precision.dtype, float32=config.method.float32_parts(fitting(model)))
    measure_before(config, rundir, fitting(model), identity, progress)
    trainable = config.method.apply(fitting(model), seed=config.seed)
    as_base = _keep_base(config, model, trainable, progress)
    if config.train.gradient_checkpointing:
        model.checkpoint_gradients()
    progress.stage("model", 1, 1)
    progress.say(
        f"training {trainable.count():,} numbers in {len(trainable.params)} tensors ({', '.join(trainable.parts)}) "
        f"on {precision.device}, {precision.name}"
    )
    feed = _feed(config, ledger, model, trainable, precision)
    state = _new_state(config, trainable, _loss_parameters(config, model, feed, progress), precision)
    return Session(
        ledger=ledger,
        steps=steps,
        precision=precision,
        model=model,
        trainable=trainable,
        state=state,
        feed=feed,
        identity=identity,
        base_prediction=probe_answer(config, model, trainable, precision),
        environment=describe_environment(precision),
        as_base=as_base,
        watch=_watch(config, rundir, ledger, feed, steps),
        base_states=text_states_of(config, model, trainable),
    )


def fitting(model: Trained) -> Any:
    """Returns the model as what method, objective and exports take: ``plan`` has seen that they fit it."""
    return model


def text_states_of(config: RunConfig, model: Trained, trainable: Trainable) -> States | None:
    """Returns what the text encoder of a CLIP makes of fixed captions, if it trains: a pipeline may read them."""
    from limner.evaluation.hidden_states import read_states

    if config.model.kind != "clip" or not trainable.trains_text:
        return None
    clip = fitting(model)
    try:
        return read_states(clip.network.text_model, clip.tokenizer)
    except UserError:  # it reads too few tokens for the captions
        return None


def _keep_base(config: RunConfig, model: Trained, trainable: Trainable, progress: Progress) -> AsBase | None:
    """Returns what makes the model its base for a while, if the objective asks; call it before a weight moves."""
    from limner.methods.base_weights import keep_base

    if config.objective.kind == "contrastive" and config.objective.anchor is not None:
        if not trainable.trains_text:
            raise UserError(
                "the text encoder does not train, so it stays as it is.",
                where="objective.anchor",
                fix="Leave it out, or let method train the text encoder.",
            )
        text = {name: value for name, value in trainable.params.items() if name.startswith("text_encoder.")}
        tower = {"text_encoder": model.networks["text_encoder"]}
        return keep_base(dataclasses.replace(trainable, params=text), tower).in_place
    if config.objective.kind != "denoising" or config.objective.preservation is None:
        return None
    base = keep_base(trainable, model.networks)
    if base.bytes:
        progress.say(
            f"objective.preservation keeps a frozen copy of what trains: {base.bytes / 1e9:.2f} GB more memory"
        )
    return base.in_place


def _loss_parameters(config: RunConfig, model: Trained, feed: Feed, progress: Progress) -> dict[str, nn.Parameter]:
    """Returns what the loss trains beside the networks, by name."""
    if config.objective.kind != "contrastive":
        return {}
    own = config.objective.make_parameters(fitting(model), lambda: feed.batches(0), precision=feed.precision)
    for name, parameter in own.items():
        start = float(parameter.detach())
        progress.say(f"{name} trains too, from {start:.4g}; checkpoints hold it, exports have no place for it")
    return own


def _new_state(
    config: RunConfig, trainable: Trainable, own: Mapping[str, nn.Parameter], precision: Precision
) -> TrainState:
    from limner.training.ema import Ema
    from limner.training.loop import TrainState

    trainable = dataclasses.replace(trainable, params={**trainable.params, **own})
    undecayed = trainable.undecayed | {"loss"}
    lrs = tuple(config.optimizer.lr * trainable.lr_scales.get(name, 1.0) for name in trainable.groups)
    groups = [
        {"params": params, "lr": lr, "name": name, **({"weight_decay": 0.0} if name in undecayed else {})}
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
    pooled = config.method.kind == "heads"  # all before the heads is frozen
    keeps_text = pooled or (config.objective.kind == "denoising" and not trainable.trains_text)
    caption_folder = folder if config.cache.captions and not config.captions.edits_tags else None
    return Feed(
        slots=slots,
        order=Order([numbers[p.bucket] for p in slots], batch_size=config.train.batch_size, seed=config.seed),
        images=config.images,
        micro_batch_size=config.train.micro_batch_size or config.train.batch_size,
        caption_dropout=config.objective.caption_dropout,
        seed=config.seed,
        model=fitting(model),
        precision=precision,
        latents=TensorCache(folder if config.cache.latents else None),
        captions=TensorCache(caption_folder) if keeps_text else None,
        reads="pooled" if pooled else config.objective.reads,
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


def probe_answer(config: RunConfig, model: Trained, trainable: Trainable, precision: Precision) -> Tensor:
    """Returns the answer to a fixed question, of the part that trains."""
    from limner.models.probe import probe, probe_autoencoder, probe_dual_encoder, prompts_about

    model_in_use = fitting(model)
    with precision.autocast():
        if config.objective.kind == "reconstruction":
            return probe_autoencoder(model_in_use.vae, side=2 * model.size_multiple)
        if trainable.placeholder is not None:
            return probe(model_in_use, prompts=prompts_about(trainable.placeholder.token))
        return probe(model_in_use) if config.objective.kind == "denoising" else probe_dual_encoder(model_in_use)

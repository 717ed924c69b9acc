"""What is known before training: the data, its ledger, the length of the run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from limner.config import RunConfig, conflicts
from limner.core.errors import ConfigError, UserError
from limner.core.progress import Progress, Silent
from limner.data.caption_tools import CaptionTools, caption_rows
from limner.data.ledger import Ledger, survey
from limner.data.masks import with_masks
from limner.data.several import folders, source_rows
from limner.data.split import hold_out
from limner.models.schedulers import check_scheduler_name
from limner.subject import check_subject
from limner.training.precision import choose_device


@dataclass(frozen=True)
class Plan:
    """What is known before training."""

    ledger: Ledger
    steps: int
    epochs: float
    rows: tuple[tuple[str, str], ...]
    """Labels and values for people."""


def plan(config: RunConfig, *, progress: Progress | None = None) -> Plan:
    """Reads the data and the tokenizer, trains nothing. Raises UserError for whatever would stop the run."""
    progress = progress or Silent()
    problems = conflicts(config)  # again, for configs that were made in Python and not read from a recipe
    if problems:
        raise ConfigError(problems, where="config")
    _check_places(config)
    choose_device(config.train.device)
    counter = config.model.token_counter()
    _check_samples(config, counter.size_multiple)
    ledger = _survey(config, counter.count, counter.limit, progress)
    _check_sizes(config, ledger, counter.size_multiple)
    check_subject(config, ledger, counter, progress)
    for prompt, tokens in zip(config.samples.prompts, counter.count(config.samples.prompts), strict=True):
        if tokens > counter.limit:
            progress.warn(f"the sample prompt {prompt!r} has {tokens} tokens; {counter.limit} are read")
    if config.method.kind in ("lora", "loha", "lokr") and config.model.kind == "sd1":
        config.method.check_targets(config.model.outline())
    steps, epochs = length(config, ledger)
    tools = CaptionTools(config.captions, config.trigger_word)
    rows = (
        *ledger.summary(),
        *source_rows(config.dataset, ledger),
        *caption_rows(tools, ledger.prepared, seed=config.seed),
        *_length_rows(config, ledger, steps, epochs),
    )
    if config.validation is not None:
        for warning in config.validation.warnings(steps):
            progress.warn(warning)
    return Plan(ledger, steps, epochs, rows)


def _check_places(config: RunConfig) -> None:
    """Refuses a run folder that is no folder, or that lies among the pictures: its samples would be trained on."""
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{str(config.out)!r} is no folder.", where="out", fix="Choose another.")
    for key, folder in folders(config.dataset):
        if config.out.resolve().is_relative_to(folder):
            raise UserError(
                f"{str(config.out)!r} lies in {key}: samples of the run would be taken for pictures of yours.",
                where="out",
                fix="Choose a folder beside the pictures.",
            )


def _check_samples(config: RunConfig, multiple: int) -> None:
    check_scheduler_name(config.samples.scheduler, where="samples.scheduler")
    for side in config.samples.size or ():
        if side % multiple or side < multiple:
            raise UserError(
                f"{side} is no multiple of {multiple}, as the sides of this model's pictures are.",
                where="samples.size",
                fix=f"The nearest is {max(multiple, round(side / multiple) * multiple)}.",
            )


def length(config: RunConfig, ledger: Ledger) -> tuple[int, float]:
    """Returns the optimizer steps of the run, and the epochs that they make."""
    visits = ledger.awaited + sum(picture.example.repeats for picture in ledger.prepared)
    if config.train.steps is not None:
        steps = config.train.steps
    elif config.train.epochs is not None:
        steps = math.ceil(config.train.epochs * visits / config.train.batch_size)
    else:
        assert config.train.steps_per_picture is not None
        subject = [picture for picture in ledger.prepared if picture.example.role == "instance"]
        steps = config.train.steps_per_picture * len(subject)
    if config.schedule.warmup_steps >= steps:
        raise UserError(
            f"{config.schedule.warmup_steps} is not less than the {steps} steps of the run.",
            where="schedule.warmup_steps",
            fix="Lower it, or train longer.",
        )
    return steps, steps * config.train.batch_size / visits


def _length_rows(config: RunConfig, ledger: Ledger, steps: int, epochs: float) -> list[tuple[str, str]]:
    batch, micro = config.train.batch_size, config.train.micro_batch_size or config.train.batch_size
    split = "" if micro == batch else f", {micro} in memory at once"
    rows = [("steps", f"{steps} of {batch} pictures{split}: {epochs:.4g} epochs")]
    if config.train.ema_decay:
        rows.append(("average", f"samples and exports use the running average, decay {config.train.ema_decay}"))
    if config.validation is not None:
        rows.append(("validation", config.validation.plan()))
    return rows


def _survey(
    config: RunConfig, count_tokens: Callable[[Sequence[str]], list[int]], token_limit: int, progress: Progress
) -> Ledger:
    reading = with_masks(config.dataset.read(), config.masks)
    for note in reading.notes:
        progress.say(note)
    ledger = survey(
        reading,
        config.images,
        count_tokens=count_tokens,
        token_limit=token_limit,
        cache=cache_folder(config),
        on_progress=lambda done, total: progress.stage("pictures", done, total),
        longest_captions=CaptionTools(config.captions, config.trigger_word).longest,
        masks=config.masks,
    )
    if config.validation is not None:
        ledger = hold_out(ledger, share=config.validation.share, seed=config.seed)
        if config.objective.kind == "contrastive" and len(ledger.held_out) == 1:
            raise UserError(
                "1 held out picture has no other caption to be told from.",
                where="validation.share",
                fix="Raise it, or leave validation out.",
            )
    _check_trigger_word(config, ledger)
    return ledger


def _check_trigger_word(config: RunConfig, ledger: Ledger) -> None:
    word = config.trigger_word
    if word is None:
        return
    tools = CaptionTools(config.captions, word)
    captions = (caption for picture in ledger.prepared for caption in tools.longest(picture.example))
    if not any(word.casefold() in caption.casefold() for caption in captions):
        raise UserError(
            f"{word!r} stands in no caption, so nothing would be learned about it.",
            where="trigger_word",
            fix="Put it into the captions, set captions.add_trigger_word: true, or leave it out.",
        )


def _check_sizes(config: RunConfig, ledger: Ledger, multiple: int) -> None:
    one_size = config.model.kind == "clip"
    for picture in (*ledger.prepared, *ledger.held_out):
        if one_size and picture.bucket != (multiple, multiple):
            width, height = picture.bucket
            raise UserError(
                f"{width}x{height} does not fit the model, which reads pictures of {multiple}x{multiple} only.",
                where="images.resolution",
                fix=f"Set images.resolution: {multiple} and images.buckets: false.",
            )
        if picture.bucket[0] % multiple or picture.bucket[1] % multiple:
            width, height = picture.bucket
            raise UserError(
                f"{width}x{height} does not fit the model, whose pictures have sides that are multiples of {multiple}.",
                where="images.resolution",
                fix=f"Set images.resolution and images.bucket_step to multiples of {multiple}.",
            )


def cache_folder(config: RunConfig) -> Path:
    """Returns the folder that all runs share."""
    if config.cache.folder is not None:
        return config.cache.folder
    return Path(os.environ.get("LIMNER_CACHE") or Path.home() / ".cache" / "limner")

"""What is known before training: the data, its ledger, the length of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from limner.config import RunConfig, conflicts, learns_to_draw
from limner.core.errors import ConfigError, UserError
from limner.core.progress import Progress, Silent
from limner.data.cache import shared_folder
from limner.data.caption_tools import CaptionTools, caption_rows
from limner.data.ledger import Ledger, survey
from limner.data.masks import with_masks
from limner.data.several import folders, source_rows
from limner.data.split import hold_out
from limner.measuring import metric_rows
from limner.models.placeholder import add_names, initial_ids, inside_a_word, vectors_read
from limner.models.schedulers import check_scheduler_name
from limner.models.tokens import TokenCounter
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
    _add_placeholder(config, counter)
    _check_samples(config, counter.size_multiple)
    ledger = _survey(config, counter.count, counter.limit, progress)
    _check_sizes(config, ledger, counter.size_multiple)
    check_subject(config, ledger, counter, progress)
    for prompt, tokens in zip(config.samples.prompts, counter.count(config.samples.prompts), strict=True):
        if tokens > counter.limit:
            progress.warn(f"the sample prompt {prompt!r} has {tokens} tokens; {counter.limit} are read")
    tools = CaptionTools(config.captions, config.trigger_word)
    word_rows = _placeholder_rows(config, counter, ledger, tools, progress)
    if config.method.kind in ("lora", "loha", "lokr", "pivotal") and config.model.kind == "sd1":
        config.method.check_targets(config.model.outline())
    steps, epochs = length(config, ledger)
    rows = (
        *_encoder_rows(config),
        *ledger.summary(),
        *source_rows(config.dataset, ledger),
        *caption_rows(tools, ledger.prepared, seed=config.seed),
        *word_rows,
        *_length_rows(config, ledger, steps, epochs),
        *metric_rows(config, ledger, progress),
    )
    if config.validation is not None:
        for warning in config.validation.warnings(steps):
            progress.warn(warning)
    return Plan(ledger, steps, epochs, rows)


def _encoder_rows(config: RunConfig) -> list[tuple[str, str]]:
    encoder = config.model.text_encoder if config.model.kind == "sd1" else None
    if encoder is None:
        return []
    return [("text encoder", f"{encoder.path}, blend {encoder.blend:g}, in place of the model's own")]


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
    if learns_to_draw(config):
        rows.append(("report", config.report.plan(keep_best=config.train.keep_best)))
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


def _add_placeholder(config: RunConfig, counter: TokenCounter) -> None:
    """Makes a new word known to the counter's tokenizer; raises UserError where the tokenizer cannot take it."""
    method = config.method
    if method.kind == "textual_inversion" or method.kind == "pivotal":
        initial_ids(counter.tokenizer, method.initialise, method.vectors)
        add_names(counter.tokenizer, method.token, method.vectors, where="method.token")


def _placeholder_rows(
    config: RunConfig, counter: TokenCounter, ledger: Ledger, tools: CaptionTools, progress: Progress
) -> list[tuple[str, str]]:
    """Returns how many captions hold the new word, for people; raises UserError where none does or one is misread."""
    method = config.method
    if method.kind != "textual_inversion" and method.kind != "pivotal":
        return []
    captions = [caption for picture in ledger.prepared for caption in tools.longest(picture.example)]
    read = vectors_read(counter.tokenizer, captions, method.token, limit=counter.limit)
    partly = [caption for caption, count in zip(captions, read, strict=True) if 0 < count < method.vectors]
    if partly:
        raise UserError(
            f"{len(partly)} of {len(captions)} captions are read with some of the {method.vectors} vectors of "
            f"{method.token!r} only, the first is {partly[0]!r}.",
            where="method.token",
            fix=f"Write the word as it is, {method.token!r}, and early enough not to be cut off.",
        )
    holding = sum(count == method.vectors for count in read)
    if holding == 0:
        raise UserError(
            f"{method.token!r} stands in none of the {len(captions)} captions, so nothing would be learned about it.",
            where="method.token",
            fix="Put it into the captions (with dreambooth: dataset.token), or name the word that stands there.",
        )
    cut = [caption for caption in captions if inside_a_word(method.token, caption)]
    if cut:
        progress.warn(f"{method.token!r} stands inside a longer word of {len(cut)} captions, such as {cut[0]!r}")
    size = "1 vector" if method.vectors == 1 else f"{method.vectors} vectors"
    told = f"{method.token}, {size}, begins as {method.initialise!r}; {holding} of {len(captions)} captions hold it"
    return [("new word", told)]


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
    return config.cache.folder or shared_folder()

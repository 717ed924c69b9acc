"""Drawing pictures with a model and adapters, into a folder: what ``limner generate`` does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir
from limner.models.schedulers import check_scheduler_name
from limner.training.precision import PrecisionName

if TYPE_CHECKING:
    import torch

    from limner.models.sd1 import SD1Model


def draw(
    *,
    model: str,
    prompts: Sequence[str],
    out: Path,
    adapters: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    text_encoder: str = "",
    negative: str = "",
    seed: int = -1,
    steps: int = 30,
    guidance: float = 7.5,
    scheduler: str = "",
    count: int = 1,
    size: str = "",
    device: str = "auto",
    precision: PrecisionName = "auto",
    progress: Progress | None = None,
) -> Iterator[Path]:
    """Draws ``count`` pictures of each prompt and yields the path of each as soon as it is written.

    ``adapters`` are ``PATH`` or ``PATH:WEIGHT``, ``embeddings`` are ``PATH`` or ``WORD=PATH``, ``text_encoder`` is
    ``PATH`` or ``PATH:BLEND``, ``size`` is ``WIDTHxHEIGHT``. The embedding of a LoRA that was trained together with one
    is found beside it. Raises UserError for what cannot be drawn.
    """
    progress = progress or Silent()
    wanted = parse_size(size)
    check_scheduler_name(scheduler, where="--scheduler")
    if out.exists() and not out.is_dir():
        raise UserError(
            f"{str(out)!r} is no folder.", where="--out", fix="Name a folder; it is made if it is not there."
        )
    from limner.evaluation.generate import GenerateRequest, generate
    from limner.evaluation.picture import save_numbered
    from limner.models.adapters import load_adapters, parse_adapter
    from limner.models.embedding_files import companions, load_embeddings, parse_embedding
    from limner.models.text_encoder import missing_encoders
    from limner.training.precision import choose_device, choose_precision

    chosen = choose_precision(precision, choose_device(device))
    loaded = load_model(model)
    if text_encoder:
        loaded = _with_text_encoder(loaded, text_encoder, chosen.device, progress)
    refs = [parse_adapter(text) for text in adapters]
    for sentence in missing_encoders(refs, loaded.text_encoder):
        progress.warn(sentence)
    loaded.to(chosen.device, chosen.dtype)
    on_model = load_adapters(loaded.networks, refs)
    given = [parse_embedding(text) for text in embeddings]
    found, sentences = companions(on_model, given)
    for sentence in sentences:
        progress.warn(sentence)
    words = load_embeddings(loaded.tokenizer, loaded.text_encoder, [*given, *found])
    request = GenerateRequest(
        prompts=tuple(prompts),
        negative=negative,
        seed=seed,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        count=count,
        size=wanted,
    )
    total = len(prompts) * count
    told: set[str] = set()
    for number, picture in enumerate(generate(loaded, request, adapters=on_model, embeddings=words), start=1):
        for warning in picture.warnings:
            if warning not in told:
                progress.warn(warning)
                told.add(warning)
        progress.stage("drawing", number, total)
        yield save_numbered(picture, out)


def load_model(model: str, *, where: str = "--model") -> SD1Model:
    """Returns a model in float32; a run folder stands for the model that it trained."""
    from limner.models.sd1 import SD1

    exported = RunDir(Path(model)).export / "diffusers"
    if RunDir(Path(model)).status.is_file() and (exported / "model_index.json").is_file():
        model = str(exported)
    return validate(SD1, {"path": model}, where=where).load()


def _with_text_encoder(own: SD1Model, text: str, device: torch.device, progress: Progress) -> SD1Model:
    """Returns the model with the text encoder that ``text`` names, and tells how far its hidden states moved."""
    from limner.evaluation.hidden_states import measure_move
    from limner.models.text_encoder import parse_text_encoder

    swapped = own.with_text_encoder(parse_text_encoder(text))
    for notice in swapped.notices[len(own.notices) :]:
        progress.warn(notice)
    gauge = measure_move(own.text_encoder.to(device), swapped.text_encoder.to(device), own.tokenizer)
    progress.say(f"text encoder {text}: {gauge.sentence()}")
    if (warning := gauge.warning()) is not None:
        progress.warn(warning)
    return swapped


def parse_size(text: str) -> tuple[int, int] | None:
    """Returns width and height of ``WIDTHxHEIGHT``, or None for an empty text."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise UserError(f"{text!r} is no size.", where="--size", fix="Write WIDTHxHEIGHT, for instance 512x768.")
    return int(match.group(1)), int(match.group(2))

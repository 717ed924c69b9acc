"""Pictures from prompts: the one service behind samples while training, the command line, and reports."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.naming import public_name
from limner.evaluation.picture import Picture, PictureSettings, UsedAdapter, UsedEmbedding, UsedTextEncoder
from limner.models.evaluating import evaluating, in_float32
from limner.models.placeholder import vectors_read
from limner.models.protocol import DiffusionModel
from limner.models.schedulers import A1111_NAMES, SCHEDULERS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from limner.models.adapters import LoadedAdapter
    from limner.models.embedding_files import LoadedEmbedding

_LARGEST_SEED = 2**63 - 1
_RANDOM_SEEDS = 2**32
_A1111_HASH_DIGITS = 12


@dataclass(frozen=True)
class GenerateRequest:
    """What to draw."""

    prompts: tuple[str, ...]
    negative: str = ""
    """What the pictures should not show."""
    seed: int | None = None
    """Picture k of each prompt has seed + k. None or -1: a random one, told in the picture."""
    spread: bool = False
    """The seeds go on from prompt to prompt, so that each picture has a noise of its own."""
    steps: int = 20
    guidance: float = 7.5
    """Guidance scale (arXiv:2207.12598); 1 is none."""
    scheduler: str = ""
    """Name of the sampler; "" is the model's own."""
    count: int = 1
    """Pictures of each prompt."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None is the model's own."""


@dataclass(frozen=True)
class _Job:
    prompt: str
    seed: int
    warnings: tuple[str, ...]


def generate(
    model: DiffusionModel,
    request: GenerateRequest,
    *,
    adapters: Sequence[LoadedAdapter] = (),
    embeddings: Sequence[LoadedEmbedding] = (),
    batch_size: int = 1,
) -> Iterator[Picture]:
    """Draws the pictures of a request, prompt by prompt, ``batch_size`` at a time.

    Each picture's noise comes from a generator of its own on the CPU: picture k is the same whatever the batch, the
    count and the device. Adapters, modes, gradients and random streams of the model are left as they are; ``adapters``
    are those that :func:`limner.models.adapters.load_adapters` put on it, for the pictures' recipes, ``embeddings``
    those of :func:`limner.models.embedding_files.load_embeddings`: a prompt without their words is told. What is wrong
    with the request is raised at once; black or not finite pictures are an error, never returned.
    """
    _check(request)
    width, height = _size(model, request.size)
    pipeline = model.pipeline(request.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    first = secrets.randbelow(_RANDOM_SEEDS) if request.seed in (None, -1) else int(request.seed or 0)
    unread = _unread(model, request, pipeline.tokenizer, embeddings)
    jobs = [
        _Job(prompt, first + number + (place * request.count if request.spread else 0), (*long, *words))
        for place, (prompt, long, words) in enumerate(
            zip(request.prompts, _too_long(model, request), unread, strict=True)
        )
        for number in range(request.count)
    ]
    used = tuple(UsedAdapter(a.name, a.weight, a.tensors_hash[:_A1111_HASH_DIGITS]) for a in adapters)
    words = tuple(UsedEmbedding(one.token, one.file_hash[:_A1111_HASH_DIGITS]) for one in embeddings)
    encoder = _used_encoder(model)

    def draw() -> Iterator[Picture]:
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            for job, image in zip(batch, _draw(model, pipeline, batch, request, width, height), strict=True):
                settings = PictureSettings(
                    prompt=job.prompt,
                    negative=request.negative,
                    seed=job.seed,
                    steps=request.steps,
                    guidance=request.guidance,
                    scheduler=request.scheduler,
                    sampler=_sampler_name(request.scheduler, pipeline),
                    width=width,
                    height=height,
                    model=public_name(model.source.name),
                    adapters=used,
                    embeddings=words,
                    text_encoder=encoder,
                )
                yield Picture(image, settings, job.warnings)

    return draw()


# ------------------------------------------------------------------------------------------------ before the drawing
def _check(request: GenerateRequest) -> None:
    if not request.prompts:
        raise UserError("there is no prompt.", where="prompts", fix="Say what to draw.")
    for name, value, least in (("steps", request.steps, 1), ("count", request.count, 1)):
        if value < least:
            raise UserError(f"{value} is less than {least}.", where=name, fix=f"Set {name} to {least} or more.")
    if request.guidance < 0:
        raise UserError(f"{request.guidance} is negative.", where="guidance", fix="Usual values are 3 to 12.")
    pictures = request.count * len(request.prompts)
    if request.seed is not None and not -1 <= request.seed <= _LARGEST_SEED - pictures:
        raise UserError(f"{request.seed} is out of range.", where="seed", fix="Use 0 to 2^63, or -1 for a random one.")


def _size(model: DiffusionModel, size: tuple[int, int] | None) -> tuple[int, int]:
    """Returns width and height; raises UserError that names the nearest size where the model cannot draw this one."""
    multiple = model.size_multiple
    width, height = size or (model.default_size, model.default_size)
    nearest = tuple(max(multiple, round(side / multiple) * multiple) for side in (width, height))
    if nearest != (width, height):
        raise UserError(
            f"{width}x{height} is not possible: both sides must be multiples of {multiple}.",
            where="size",
            fix=f"The nearest is {nearest[0]}x{nearest[1]}.",
        )
    return width, height


def _too_long(model: DiffusionModel, request: GenerateRequest) -> list[tuple[str, ...]]:
    """Returns for each prompt what has to be said about its length and that of the negative prompt."""
    counts = model.count_tokens([*request.prompts, request.negative])
    limit = model.token_limit

    def sentence(name: str, count: int) -> str:
        return f"The {name} has {count} tokens and the model reads {limit}: the last {count - limit} had no effect."

    negative = (sentence("negative prompt", counts[-1]),) if counts[-1] > limit else ()
    return [((sentence("prompt", count),) if count > limit else ()) + negative for count in counts[:-1]]


def _unread(
    model: DiffusionModel, request: GenerateRequest, tokenizer: Any, embeddings: Sequence[LoadedEmbedding]
) -> list[tuple[str, ...]]:
    """Returns for each prompt what has to be said about embeddings that it does not call, or calls in part."""
    told: list[list[str]] = [[] for _ in request.prompts]
    for one in embeddings:
        prompts = [*request.prompts, request.negative]
        *counts, negative = vectors_read(tokenizer, prompts, one.token, limit=model.token_limit)
        for place, count in enumerate(counts):
            read = max(count, negative)
            if read == 0:
                told[place].append(f"The prompt does not hold {one.token!r}, so its embedding has no effect.")
            elif read < one.vectors:
                told[place].append(
                    f"The prompt is read with {read} of the {one.vectors} vectors of {one.token!r}: write it so, early."
                )
    return [tuple(sentences) for sentences in told]


def _used_encoder(model: DiffusionModel) -> UsedTextEncoder | None:
    source = model.source.text_encoder
    if source is None:
        return None
    return UsedTextEncoder(public_name(source.name), source.blend, source.weights_hash[:_A1111_HASH_DIGITS])


def _sampler_name(scheduler: str, pipeline: Any) -> str:
    """Returns A1111's name of the sampler; for a model's own sampler its class, unless one name means that class."""
    if scheduler:
        return A1111_NAMES[scheduler]
    class_name = type(pipeline.scheduler).__name__
    ours = [name for name, known in SCHEDULERS.items() if known == class_name]
    return A1111_NAMES[ours[0]] if len(ours) == 1 else class_name.removesuffix("Scheduler")


# -------------------------------------------------------------------------------------------------------- drawing
def _draw(
    model: DiffusionModel, pipeline: Any, jobs: Sequence[_Job], request: GenerateRequest, width: int, height: int
) -> list[Image]:
    import torch

    with evaluating(model.networks.values()):
        latents = pipeline(
            prompt=[job.prompt for job in jobs],
            negative_prompt=[request.negative] * len(jobs),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            width=width,
            height=height,
            generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            output_type="latent",
        ).images
        with in_float32(latents.device):
            pixels = [model.decode_latents(one[None].float())[0] for one in latents]
    return [_to_image(one, job) for one, job in zip(pixels, jobs, strict=True)]


def _to_image(pixels: Tensor, job: _Job) -> Image:
    """Returns the picture of pixels [3, H, W] in [-1, 1]."""
    import torch
    from PIL import Image

    if not bool(torch.isfinite(pixels).all()):
        raise UserError(
            f"the picture of seed {job.seed} is not finite (NaN).",
            where="generate",
            fix="The weights are damaged by training (lower optimizer.lr), or half precision overflows (use fp32).",
        )
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    if int(levels.max()) == 0:
        raise UserError(
            f"the picture of seed {job.seed} is black.",
            where="generate",
            fix="The weights are damaged by training (lower optimizer.lr), or half precision overflows (use fp32).",
        )
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())

"""Pictures and captions as a dual encoder sees them, many at a time, always in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import NonFiniteError, UserError
from limner.data.bad_image import BadImage
from limner.data.buckets import MOST_PIXELS
from limner.evaluation.pictures import Shown
from limner.models.evaluating import evaluating
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

BATCH = 64
WHITE = (255, 255, 255)
OnProgress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Says nothing of how far the pictures are."""


def embed_pictures(model: DualEncoder, shown: Sequence[Shown], on_progress: OnProgress = silent) -> Tensor:
    """Returns the embeddings of the pictures, [N, D] of unit norm, float32 on the CPU."""
    import torch

    parts = []
    for pixels in _pixels(model, shown, on_progress):
        with evaluating(model.networks.values()):
            parts.append(model.embed_images(pixels).float().cpu())
    return _finite(torch.cat(parts))


def pool_pictures(model: DualEncoder, shown: Sequence[Shown], on_progress: OnProgress = silent) -> Tensor:
    """Returns what the picture tower gives to its projection, [N, D] float32 on the CPU."""
    import torch

    parts: list[Tensor] = []
    projection = model.networks["visual_projection"]
    handle = projection.register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0].float().cpu()))
    try:
        for pixels in _pixels(model, shown, on_progress):
            with evaluating(model.networks.values()):
                model.embed_images(pixels)
    finally:
        handle.remove()
    if sum(map(len, parts)) != len(shown):
        raise RuntimeError("the projection was not asked once for each picture")
    return _finite(torch.cat(parts))


def embed_captions(model: DualEncoder, captions: Sequence[str]) -> Tensor:
    """Returns the embeddings of the captions, [N, D] of unit norm, float32 on the CPU; long ones are cut.

    Raises ValueError where there is none.
    """
    import torch

    if not captions:
        raise ValueError("there is no caption to embed")
    parts = []
    for start in range(0, len(captions), BATCH):
        with evaluating(model.networks.values()):
            parts.append(model.embed_prompts(captions[start : start + BATCH]).float().cpu())
    return _finite(torch.cat(parts))


def cut_captions(model: DualEncoder, captions: Sequence[str]) -> tuple[str, ...]:
    """Returns a note on captions that are longer than what the model reads, if there are any."""
    cut = sum(tokens > model.token_limit for tokens in model.count_tokens(captions))
    return (f"{cut:,} of {len(captions):,} captions are longer than the model reads; they are cut.",) if cut else ()


def _pixels(model: DualEncoder, shown: Sequence[Shown], on_progress: OnProgress) -> Iterator[Tensor]:
    import torch

    for start in range(0, len(shown), BATCH):
        on_progress(start, len(shown))
        pixels = torch.stack([model.prepare(_picture(one)) for one in shown[start : start + BATCH]])
        yield pixels.to(model.logit_scale.device)
    on_progress(len(shown), len(shown))


def _picture(shown: Shown) -> Image:
    from limner.data.image import decode

    try:
        return decode(shown.image.read(), background=WHITE, max_pixels=MOST_PIXELS).image
    except BadImage as error:
        raise UserError(f"{error}.", where=shown.id, fix="Mend it, or take it out of the measured set.") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}.", where=shown.id, fix="Bring it back.") from None


def _finite(embeddings: Tensor) -> Tensor:
    if not bool(embeddings.isfinite().all()):
        raise NonFiniteError("the model gives embeddings that are not finite.", where="metrics", fix="It is damaged.")
    return embeddings

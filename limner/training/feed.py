"""The micro-batches of every step: order, captions, crops, and the encoders behind their caches."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from limner.core.errors import NonFiniteError, UserError
from limner.data.batch import Batch, Visit, collate, micro_batches, visit
from limner.data.buckets import ImageConfig
from limner.data.cache import TensorCache, content_key
from limner.data.caption_tools import AS_WRITTEN, CaptionTools
from limner.data.example import ImageSource
from limner.data.image import decode, to_pixels
from limner.data.ledger import Prepared
from limner.data.masks import Masks, PictureMask
from limner.data.order import Order
from limner.models.protocol import DiffusionModel, DualEncoder
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Feed:
    """Gives the batch of any step, as a pure function of the step."""

    slots: tuple[Prepared, ...]
    """The pictures of one epoch, each as often as it repeats."""
    order: Order
    images: ImageConfig
    micro_batch_size: int
    caption_dropout: float
    seed: int
    model: DiffusionModel
    precision: Precision
    latents: TensorCache
    captions: TensorCache | None
    """None where the text encoder trains or nothing reads captions: batches then carry them as they are."""
    reads: Literal["moments", "pixels", "pooled"] = "moments"
    """What the objective sees of a picture: the autoencoder's moments, its pixels, or what a frozen tower makes of it;
    in the last case captions too are what their tower makes of them."""
    caption_tools: CaptionTools = AS_WRITTEN
    """What is done to each caption before it is read."""
    masks: Masks | None = None
    """What the masks of the pictures mean; None where whole pictures count."""

    def batches(self, step: int) -> list[Batch]:
        """Returns the micro-batches of ``step`` (from 0), on the CPU."""
        first = step * self.order.batch_size
        visits = [
            visit(
                self.slots[slot],
                first + place,
                images=self.images,
                seed=self.seed,
                caption_dropout=self.caption_dropout,
                caption_tools=self.caption_tools,
            )
            for place, slot in enumerate(self.order.examples_at(step))
        ]
        return [self.batch(group) for group in micro_batches(visits, self.micro_batch_size)]

    def batch(self, visits: Sequence[Visit]) -> Batch:
        """Returns the micro-batch of visits of one bucket, on the CPU."""
        encoders = {"moments": self._encode_image, "pixels": self._pixels, "pooled": self._pool_image}
        encode_image = encoders[self.reads]
        encode_text = self._pool_caption if self.reads == "pooled" else self._encode_caption
        encode_caption = None if self.captions is None else encode_text
        return collate(
            visits,
            encode_image=encode_image,
            encode_caption=encode_caption,
            encode_mask=None if self.masks is None else self._mask,
            with_roles=self._has_class,
        )

    @functools.cached_property
    def _has_class(self) -> bool:
        return any(picture.example.role == "class" for picture in self.slots)

    def _encode_image(self, one: Visit) -> Tensor:
        """Returns the moments of one picture, [2C, h, w] float32."""
        key = content_key(
            what="moments",
            image=one.picture.sha256,
            placement=dataclasses.asdict(one.placement),
            background=self.images.background,
            encoder=self.model.image_encoder_hash(),
            device=self.precision.device.type,
        )
        return self.latents.get(key, lambda: {"moments": self._moments(one)})["moments"]

    def _pixels(self, one: Visit) -> Tensor:
        """Returns one picture as it is placed, [3, H, W] in [-1, 1]; raises UserError where it is not what it was."""
        data = _unchanged(one.picture.example.image, one.picture.sha256, name=one.picture.example.id)
        picture = decode(data, background=self.images.background_rgb, max_pixels=self.images.max_pixels).image
        return to_pixels(picture, one.placement)

    def _mask(self, one: Visit, size: tuple[int, int]) -> Tensor:
        """Returns how much each latent of one picture counts, [1, h, w] for ``size`` = (h, w)."""
        import torch

        mask = one.picture.mask
        if self.masks is None or mask is None:
            return torch.ones(1, *size)
        key = content_key(
            what="mask",
            source=self.masks.source,
            file=mask.sha256,
            placement=dataclasses.asdict(one.placement),
            size=size,
        )
        return self.masks.weigh(self.latents.get(key, lambda: {"mask": self._latent_mask(one, mask, size)})["mask"])

    def _latent_mask(self, one: Visit, mask: PictureMask, size: tuple[int, int]) -> Tensor:
        assert self.masks is not None
        data = _unchanged(mask.source, mask.sha256, name=f"mask of {one.picture.example.id}")
        return self.masks.latent_mask(data, one.placement, size, self.images)

    def _moments(self, one: Visit) -> Tensor:
        import torch

        with torch.no_grad():
            moments = self.model.encode_images(self._pixels(one)[None].to(self.precision.device))[0]
        if not bool(moments.isfinite().all()):
            raise NonFiniteError(
                "the autoencoder gives numbers that are not finite for this picture.",
                where=one.picture.example.id,
                fix="Take it out, or use another autoencoder.",
            )
        return moments

    def _pool_image(self, one: Visit) -> Tensor:
        """Returns what the picture tower makes of one picture, [D]."""
        key = content_key(
            what="pooled picture",
            image=one.picture.sha256,
            placement=dataclasses.asdict(one.placement),
            background=self.images.background,
            encoder=self._towers.image_encoder_hash(),
            dtype=self.precision.name,
            device=self.precision.device.type,
        )

        def pool() -> dict[str, Tensor]:
            import torch

            with torch.no_grad(), self.precision.autocast():
                pooled = self._towers.pool_images(self._pixels(one)[None].to(self.precision.device))[0]
            if not bool(pooled.isfinite().all()):
                raise NonFiniteError(
                    "the picture tower gives numbers that are not finite for this picture.",
                    where=one.picture.example.id,
                    fix="Take it out, or set train.precision: fp32.",
                )
            return {"pooled": pooled}

        return self.latents.get(key, pool)["pooled"]

    def _pool_caption(self, caption: str) -> dict[str, Tensor]:
        """Returns what the text tower makes of one caption, ``pooled`` [D]."""
        assert self.captions is not None
        key = content_key(
            what="pooled caption",
            caption=caption,
            encoder=self._towers.text_encoder_hash(),
            dtype=self.precision.name,
            device=self.precision.device.type,
        )

        def pool() -> dict[str, Tensor]:
            import torch

            with torch.no_grad(), self.precision.autocast():
                return {"pooled": self._towers.pool_prompts([caption])[0]}

        return self.captions.get(key, pool)

    @property
    def _towers(self) -> DualEncoder:
        return cast(DualEncoder, self.model)

    def _encode_caption(self, caption: str) -> dict[str, Tensor]:
        """Returns the text states of one caption, without a batch dimension."""
        assert self.captions is not None
        key = content_key(
            what="text states",
            caption=caption,
            encoder=self.model.text_encoder_hash(),
            dtype=self.precision.name,
            device=self.precision.device.type,
        )
        return self.captions.get(key, lambda: self._text_states(caption))

    def _text_states(self, caption: str) -> dict[str, Tensor]:
        import torch

        with torch.no_grad(), self.precision.autocast():
            return {name: states[0] for name, states in self.model.encode_prompts([caption]).items()}


def _unchanged(source: ImageSource, sha256: str, *, name: str) -> bytes:
    """Returns the bytes of a file that has this hash; raises UserError where it is not what it was."""
    try:
        data = source.read()
    except OSError as error:
        raise UserError(
            f"cannot be read any more: {error.strerror}.",
            where=name,
            fix="Bring it back and continue with --resume, or start again without it.",
        ) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            "was changed while the run went on.", where=name, fix="Start again with the pictures as they are."
        )
    return data

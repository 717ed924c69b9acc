"""From slots to tensors: what one step sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.core.rng import stream
from limner.data.buckets import ImageConfig, Placement, place
from limner.data.caption_tools import AS_WRITTEN, CaptionTools
from limner.data.captions import draw_caption
from limner.data.example import Role
from limner.data.ledger import Prepared

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Visit:
    """One look at one example, at a position of the run."""

    position: int
    picture: Prepared
    caption: str
    placement: Placement


@dataclass(frozen=True)
class Batch:
    """A micro-batch: B visits that fit in memory at once."""

    positions: tuple[int, ...]
    """Where in the run each visit stands; noise and timesteps are drawn from it."""
    ids: tuple[str, ...]
    captions: tuple[str, ...]
    images: Tensor
    """What the objective reads: the moments of the latents, [B, 2C, h, w], pixels in [-1, 1], [B, 3, H, W], or what a
    frozen picture tower makes of them, [B, width]."""
    conditioning: dict[str, Tensor] | None
    """The text states, each [B, ...]; None where the text encoder trains and must read the captions itself."""
    weights: Tensor
    """[B], the factor of each example's loss."""
    roles: tuple[Role, ...] = ()
    """The role of each example where the data has pictures of a subject and of its class; else empty."""
    masks: Tensor | None = None
    """How much each latent counts in its example's loss, [B, 1, h, w] in [0, 1]; None where all count alike."""
    contents: tuple[str, ...] = ()
    """The hash of each picture's file: two files with the same bytes are one picture. Empty: ids tell pictures."""
    groups: tuple[str | None, ...] = ()
    """The class of each example, None where it has none; empty where nothing is known of classes."""

    def __len__(self) -> int:
        return len(self.positions)


def visit(
    picture: Prepared,
    position: int,
    *,
    images: ImageConfig,
    seed: int,
    caption_dropout: float,
    caption_tools: CaptionTools = AS_WRITTEN,
) -> Visit:
    """Returns the visit of ``picture`` at ``position``: a pure function of its arguments."""
    return Visit(
        position=position,
        picture=picture,
        caption=draw_caption(
            picture.example.captions,
            seed=seed,
            position=position,
            dropout=caption_dropout,
            tools=caption_tools,
            role=picture.example.role,
        ),
        placement=place(
            picture.size,
            picture.bucket,
            crop=images.crop,
            flip=images.flip,
            rng=stream(seed, position, "placement"),
        ),
    )


def micro_batches(visits: Sequence[Visit], size: int) -> list[list[Visit]]:
    """Splits the visits of a step into runs of one bucket, at most ``size`` long each."""
    buckets: dict[tuple[int, int], list[Visit]] = {}
    for one in visits:
        buckets.setdefault(one.picture.bucket, []).append(one)
    return [group[i : i + size] for group in buckets.values() for i in range(0, len(group), size)]


def collate(
    visits: Sequence[Visit],
    *,
    encode_image: Callable[[Visit], Tensor],
    encode_caption: Callable[[str], dict[str, Tensor]] | None,
    with_roles: bool = False,
    encode_mask: Callable[[Visit, tuple[int, int]], Tensor] | None = None,
) -> Batch:
    """Returns the micro-batch of ``visits``, on the CPU.

    The encoders are called for one picture and one caption at a time, each giving tensors without a batch dimension:
    so the numbers do not depend on what happens to stand beside an example, and may be cached.
    """
    import torch

    conditioning = None
    if encode_caption is not None:
        states = [encode_caption(one.caption) for one in visits]
        conditioning = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    images = torch.stack([encode_image(one) for one in visits])
    size = (images.shape[-2], images.shape[-1])
    return Batch(
        positions=tuple(one.position for one in visits),
        ids=tuple(one.picture.example.id for one in visits),
        captions=tuple(one.caption for one in visits),
        images=images,
        conditioning=conditioning,
        weights=torch.tensor([one.picture.example.weight for one in visits], dtype=torch.float32),
        roles=tuple(one.picture.example.role for one in visits) if with_roles else (),
        masks=None if encode_mask is None else torch.stack([encode_mask(one, size) for one in visits]),
        contents=tuple(one.picture.sha256 for one in visits),
        groups=tuple(one.picture.example.group for one in visits),
    )

"""Which of an example's captions a visit reads, and how."""

from __future__ import annotations

from collections.abc import Sequence

from limner.core.rng import stream
from limner.data.caption_tools import AS_WRITTEN, CaptionTools
from limner.data.example import Role


def draw_caption(
    captions: Sequence[str],
    *,
    seed: int,
    position: int,
    dropout: float,
    tools: CaptionTools = AS_WRITTEN,
    role: Role = "instance",
) -> str:
    """Returns one of the captions as ``tools`` make it read.

    With probability ``dropout`` it is "", to which nothing is added (classifier-free guidance, arXiv:2207.12598).
    """
    if stream(seed, position, "caption dropout").random() < dropout:
        return ""
    caption = stream(seed, position, "caption").choice(captions)
    return tools.read(caption, role=role, seed=seed, position=position)

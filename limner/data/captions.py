"""Which of an example's captions a visit reads."""

from __future__ import annotations

from collections.abc import Sequence

from limner.core.rng import stream


def draw_caption(captions: Sequence[str], *, seed: int, position: int, dropout: float) -> str:
    """Returns one of the captions, or "" with probability ``dropout`` (classifier-free guidance, arXiv:2207.12598)."""
    if stream(seed, position, "caption dropout").random() < dropout:
        return ""
    return stream(seed, position, "caption").choice(captions)

"""Weights between those of a base model and those of a tuned one (WiSE-FT, arXiv:2109.01903, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def blended(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Returns (1 - share) of ``base`` plus ``share`` of ``tuned``, tensor by tensor, in the number formats of ``base``.

    The sum is taken in float32; at 0 and 1 the values are exactly those of ``base`` and ``tuned``. Raises ValueError
    unless ``share`` is in [0, 1] and both have the same names and shapes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it is in [0, 1]: 0 is the base, 1 the tuned model")
    if strange := sorted(base.keys() ^ tuned.keys()):
        raise ValueError(f"{len(strange)} tensors are in one of the two models only, such as {strange[0]!r}")
    for name, value in base.items():
        if value.shape != tuned[name].shape:
            raise ValueError(
                f"{name!r} is {tuple(value.shape)} in the base and {tuple(tuned[name].shape)} in the other"
            )
    return {name: _between(value, tuned[name], share).to(value.dtype) for name, value in base.items()}


def _between(base: Tensor, tuned: Tensor, share: float) -> Tensor:
    if share in (0, 1) or not base.is_floating_point():
        return (tuned if share == 1 else base).clone()
    return (1 - share) * base.float() + share * tuned.float().to(base.device)

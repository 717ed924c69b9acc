"""Where the right candidate stands among all, for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 256


def ranks(
    queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]], copies: Sequence[int] | None = None
) -> list[int]:
    """Returns for each query the rank (from 1) of the best of its right candidates.

    ``queries`` is [Q, D], ``candidates`` [K, D], similarity their scalar product. ``right`` has the places of each
    query's right candidates, one at least. A wrong candidate of equal similarity stands before the right one: a model
    that calls all things alike finds nothing. ``copies`` says how many places each candidate takes; unset: one.
    """
    import torch

    weights = torch.ones(len(candidates)) if copies is None else torch.tensor(copies, dtype=torch.float32)
    found: list[int] = []
    for start in range(0, len(queries), _AT_ONCE):
        similarity = queries[start : start + _AT_ONCE] @ candidates.T
        is_right = torch.zeros_like(similarity, dtype=torch.bool)
        for row, places in enumerate(right[start : start + _AT_ONCE]):
            is_right[row, list(places)] = True
        best = similarity.masked_fill(~is_right, -torch.inf).amax(dim=1, keepdim=True)
        before = ((similarity >= best) & ~is_right).float() @ weights
        found += (1 + before).long().tolist()
    return found


def nearest_other(queries: Tensor, candidates: Tensor, right: Sequence[int]) -> list[int]:
    """Returns for each query the most similar candidate that is not its right one, the first of equals."""
    import torch

    found: list[int] = []
    for start in range(0, len(queries), _AT_ONCE):
        similarity = queries[start : start + _AT_ONCE] @ candidates.T
        own = torch.tensor(right[start : start + _AT_ONCE])[:, None]
        found += similarity.scatter(1, own, -torch.inf).argmax(dim=1).tolist()
    return found

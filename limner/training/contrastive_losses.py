"""Pure functions of contrastive losses: which pairs belong together, and what each loss says of their similarities."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def positive_pairs(
    pictures: Sequence[Hashable], captions: Sequence[Hashable], groups: Sequence[str | None] = ()
) -> Tensor:
    """Returns [B, B] bool: whether picture i and caption j belong together, as far as the batch itself tells.

    They do where some visit shows that very picture with that very caption, or where both are of one group. So the same
    caption beside another picture, another caption of the same picture and the same class are positives. It need not
    be symmetric: that a picture has caption b as well is not told of other pictures with its caption a.
    """
    import torch

    picture, caption = _numbered(pictures), _numbered(captions)
    seen = torch.zeros(len(pictures), len(captions), dtype=torch.bool)
    seen[picture, caption] = True
    together: Tensor = seen[picture][:, caption]
    if groups:
        group = _numbered([place if name is None else name for place, name in enumerate(groups)])
        together = together | (group[:, None] == group[None, :])
    return together


def _numbered(keys: Sequence[Hashable]) -> Tensor:
    """Returns a number for each key, the same for equal ones, [B]."""
    import torch

    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Returns the symmetric cross-entropy of each pair, [B], of logits [B, B] with pictures as rows.

    The target of a row is uniform over its positives (UniCL, arXiv:2204.03610, eq. 3 and 4; L_out of SupCon,
    arXiv:2004.11362, eq. 2); the caption's is the same over its column. With the identity as positives it is CLIP's
    loss (arXiv:2103.00020, fig. 3).
    """
    return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives.T)) / 2


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    own = logits.masked_fill(~positives, 0.0).sum(1) / positives.sum(1)
    return logits.logsumexp(1) - own


def info_nce_floor(positives: Tensor) -> Tensor:
    """Returns the least that :func:`info_nce` can be for each pair, [B]: the entropy of its targets."""
    return (positives.sum(1).log() + positives.sum(0).log()) / 2


def siglip(logits: Tensor, positives: Tensor) -> Tensor:
    """Returns the sigmoid loss of each pair, [B], whose mean is arXiv:2303.15343, algorithm 1.

    ``logits`` hold the bias. Every cell is a yes or no of its own. A pair's share is half its picture's row and half
    its caption's column, so that its weight counts for both. The floor is 0 for any positives.
    """
    from torch.nn import functional

    cells = -functional.logsigmoid(logits.where(positives, -logits))
    return (cells.sum(1) + cells.sum(0)) / 2


def balanced_bias(logits: Tensor, positives: Tensor) -> float:
    """Returns the bias b at which sigmoid(logits + b) expects as many positives as there are: there d loss / d b = 0.

    By bisection in float64.
    """
    import torch

    values, wanted = logits.double(), int(positives.sum())
    low, high = -float(values.max()) - 40.0, -float(values.min()) + 40.0
    for _ in range(80):
        middle = (low + high) / 2
        if float(torch.sigmoid(values + middle).sum()) < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2

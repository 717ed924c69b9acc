"""What became of each class: shares with intervals, and which was taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from limner.core.intervals import wilson


def by_class(classes: Sequence[str], true: Sequence[int], predicted: Sequence[int]) -> dict[str, Any]:
    """Returns, for JSON, ``classes``, ``per_class`` and ``confusion``: a row per true, a column per predicted class.

    ``true`` and ``predicted`` have a place in ``classes`` for each picture.
    """
    pairs = Counter(zip(true, predicted, strict=True))
    confusion = [[pairs[row, column] for column in range(len(classes))] for row in range(len(classes))]
    per_class = {}
    for number, name in enumerate(classes):
        right, asked = confusion[number][number], sum(confusion[number])
        low, high = wilson(right / asked, asked) if asked else (None, None)
        per_class[name] = {"right": right, "pictures": asked, "low": low, "high": high}
    return {"classes": list(classes), "per_class": per_class, "confusion": confusion}

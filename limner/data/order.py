"""Which examples a step sees: a pure function of the step and the seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from limner.core.rng import stream


class Order:
    """The endless sequence of visits to ``groups``: every slot once per epoch, newly shuffled in each.

    ``groups[slot]`` is the bucket of a slot. Batches hold one bucket where that is possible, so that a micro-batch can
    be one tensor; what does not fill a batch is mixed at the edges of the epoch. Batches run across epochs: nothing is
    dropped and nothing is seen twice.
    """

    def __init__(self, groups: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.groups, self.batch_size, self.seed = tuple(groups), batch_size, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def examples_at(self, step: int) -> list[int]:
        """Returns the slots of the batch of ``step`` (from 0), ``batch_size`` of them."""
        first, count = step * self.batch_size, len(self.groups)
        return [self._epoch(p // count)[p % count] for p in range(first, first + self.batch_size)]

    def _shuffled(self, epoch: int) -> list[int]:
        random = stream(self.seed, epoch, "order")
        slots = list(range(len(self.groups)))
        random.shuffle(slots)
        buckets: dict[int, list[int]] = {}
        for slot in slots:
            buckets.setdefault(self.groups[slot], []).append(slot)
        whole: list[list[int]] = []
        rest: list[int] = []
        for members in buckets.values():
            last = len(members) - len(members) % self.batch_size
            whole += [members[i : i + self.batch_size] for i in range(0, last, self.batch_size)]
            rest += members[last:]
        random.shuffle(whole)
        random.shuffle(rest)
        head = -epoch * len(slots) % self.batch_size  # places left in the batch that the epoch before began
        while len(rest) < head and whole:
            rest += whole.pop()
        return rest[:head] + [slot for batch in whole for slot in batch] + rest[head:]

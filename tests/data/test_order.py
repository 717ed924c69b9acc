from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from limner.data.order import Order

GROUPS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(GROUPS, st.integers(1, 9), st.integers(0, 3))
def test_every_slot_is_visited_once_per_epoch(groups: list[int], batch_size: int, seed: int) -> None:
    order = Order(groups, batch_size=batch_size, seed=seed)
    epochs = 3
    steps = -(-epochs * len(groups) // batch_size)
    visits = [slot for step in range(steps) for slot in order.examples_at(step)]
    for epoch in range(epochs):
        assert sorted(visits[epoch * len(groups) : (epoch + 1) * len(groups)]) == list(range(len(groups)))


@given(GROUPS, st.integers(1, 9), st.integers(0, 50))
def test_a_batch_depends_on_nothing_but_seed_and_step(groups: list[int], batch_size: int, step: int) -> None:
    walked = Order(groups, batch_size=batch_size, seed=5)
    for earlier in range(step):
        walked.examples_at(earlier)
    assert walked.examples_at(step) == Order(groups, batch_size=batch_size, seed=5).examples_at(step)


def test_most_batches_hold_one_bucket() -> None:
    groups = [0] * 50 + [1] * 31 + [2] * 22
    order = Order(groups, batch_size=4, seed=0)
    steps = 3 * len(groups) // 4
    mixed = sum(len({groups[slot] for slot in order.examples_at(step)}) > 1 for step in range(steps))
    assert mixed <= 3 * 3  # what does not fill a batch: less than one batch per bucket and epoch


def test_epochs_and_seeds_have_different_orders() -> None:
    order = Order([0] * 30, batch_size=30, seed=0)
    assert order.examples_at(0) != order.examples_at(1)
    assert order.examples_at(0) != Order([0] * 30, batch_size=30, seed=1).examples_at(0)


def test_every_slot_stands_everywhere_in_the_epoch_equally_often() -> None:
    order = Order([0] * 4 + [1] * 3, batch_size=2, seed=0)
    first = Counter(slot for epoch in range(2000) for slot in order._shuffled(2 * epoch)[:1])
    assert max(first.values()) < 2 * min(first.values())

from __future__ import annotations

from typing import Literal

import pytest
import torch
from diffusers.optimization import get_scheduler

from limner.training.schedules import Schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_course_after_the_warm_up_equals_that_of_diffusers(kind: Literal["linear", "cosine", "constant"]) -> None:
    steps, warmup = 50, 10
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    schedule = Schedule(kind=kind, warmup_steps=warmup)
    for step in range(steps):
        if step >= warmup:
            assert schedule.factor(step, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-7)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_no_step_has_a_rate_of_zero_and_the_warm_up_rises(
    kind: Literal["linear", "cosine", "constant"], warmup: int
) -> None:
    factors = [Schedule(kind=kind, warmup_steps=warmup).factor(step, 10) for step in range(10)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
    assert factors[warmup] == 1.0

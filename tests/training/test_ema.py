from __future__ import annotations

import pytest
import torch

from limner.training.ema import Ema


def test_the_average_is_the_weighted_sum_that_the_formula_says() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    ema = Ema({"w": parameter}, decay=0.5)
    expected = 0.0
    for update in range(1, 20):
        parameter.data.fill_(float(update**2))
        ema.update({"w": parameter}, update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update**2
    assert float(ema.averages["w"]) == pytest.approx(expected, rel=1e-12)


def test_the_trained_weights_come_back_even_after_an_error() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    ema = Ema({"w": parameter}, decay=0.9)
    parameter.data.fill_(5.0)

    def fail() -> None:
        with ema.in_place_of({"w": parameter}):
            assert torch.equal(parameter.detach(), torch.ones(3))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.equal(parameter.detach(), torch.full((3,), 5.0))

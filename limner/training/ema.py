"""A running average of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Ema:
    """Averages parameters as w_ema <- d w_ema + (1 - d) w, d = min(decay, (1 + n) / (10 + n)) after n updates.

    The warm-up of d keeps the first weights from lasting; it is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, params: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in params.items()}

    def update(self, params: Mapping[str, nn.Parameter], updates: int) -> None:
        """Takes in the weights after ``updates`` updates (from 1)."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, parameter in params.items():
            self.averages[name].lerp_(parameter.detach(), 1 - decay)

    @contextlib.contextmanager
    def in_place_of(self, params: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Puts the averages into the model for as long as the context lasts."""
        self._exchange(params)
        try:
            yield
        finally:
            self._exchange(params)

    def _exchange(self, params: Mapping[str, nn.Parameter]) -> None:
        """Lets parameters and averages change places; nothing is copied."""
        for name, parameter in params.items():
            parameter.data, self.averages[name] = self.averages[name], parameter.data

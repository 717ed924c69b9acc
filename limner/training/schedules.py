"""The learning rate over the run, as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from limner.core.config import Config


class Schedule(Config):
    """How the learning rate goes: up during the warm-up, then constant, linear or cosine."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """The course after the warm-up: constant, or falling to zero in a line or a half cosine."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps over which the rate rises from nearly zero."""

    def factor(self, step: int, steps: int) -> float:
        """Returns the factor of the learning rate at ``step`` (from 0) of ``steps``; in (0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        progress = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return 1 - progress if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

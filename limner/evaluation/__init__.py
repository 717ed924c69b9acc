"""What is measured of a model: each metric is a config class with one verb, ``measure(model) -> Measurement``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limner.evaluation.linear_probe import LinearProbe
from limner.evaluation.retrieval import Retrieval
from limner.evaluation.zero_shot import ZeroShot

Metric = ZeroShot | LinearProbe | Retrieval

MetricConfig = Annotated[Metric, Field(discriminator="kind")]

"""Model families. A new one is one file here and one member of :data:`ModelConfig`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.models.sd1 import SD1

if TYPE_CHECKING:
    from limner.models.protocol import DiffusionModel
    from limner.models.sd1 import SD1Model

ModelConfig = SD1
"""The union of all kinds; with a single kind it is the class itself."""

__all__ = ["SD1", "ModelConfig"]


if TYPE_CHECKING:

    def _offers_the_protocol(model: SD1Model) -> DiffusionModel:
        return model

"""Model families. A new one is one file here and one member of :data:`ModelConfig`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from limner.models.clip import Clip
from limner.models.sd1 import SD1

if TYPE_CHECKING:
    from limner.models.clip import ClipModel
    from limner.models.protocol import DiffusionModel, DualEncoder
    from limner.models.sd1 import SD1Model

ModelConfig = Annotated[SD1 | Clip, Field(discriminator="kind")]

__all__ = ["SD1", "Clip", "ModelConfig"]


if TYPE_CHECKING:

    def _draws(model: SD1Model) -> DiffusionModel:
        return model

    def _compares(model: ClipModel) -> DualEncoder:
        return model

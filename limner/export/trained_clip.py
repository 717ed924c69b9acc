"""What a training left in a CLIP model, put on a fresh copy of the base: for every format that holds one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.export.result import copy_weights
from limner.methods.trainable import Trainable

if TYPE_CHECKING:
    from limner.models.clip import ClipModel


def put_trained_on(fresh: ClipModel, model: ClipModel, trainable: Trainable) -> None:
    """Makes a fresh base the trained model."""
    for part in trainable.parts:
        copy_weights(model.networks[part], fresh.networks[part])

"""The hidden-state anchor: a tuned text encoder stays one that a diffusion model can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.data.batch import Batch
from limner.methods.base_weights import AsBase
from limner.models.evaluating import evaluating
from limner.models.protocol import DualEncoder
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor


class Anchor(Config):
    """Pulls the text encoder's hidden states on the captions of the batch to those of the base model.

    Stable Diffusion 1.x reads these states, at every one of the 77 positions, and never the projection that the
    contrastive loss compares. A LoRA is switched off for the base; else a frozen copy of the text encoder is kept,
    4 bytes a weight.
    """

    weight: float = Field(default=1.0, gt=0)
    """Factor of this term beside the contrastive loss."""
    layer: Literal["last", "penultimate"] = "last"
    """The layer whose states are compared, after the final norm: the last, which SD 1.x reads, or the one before it,
    which it reads with clip skip 2 (1 as diffusers counts)."""

    def losses(self, model: DualEncoder, batch: Batch, *, precision: Precision, as_base: AsBase) -> Tensor:
        """Returns ``weight`` times the squared distance as a share of the base's own mean square, [B] float32.

        It is taken over all positions, padding included, and exactly 0 where the model is its base.
        """
        with as_base(), evaluating(model.networks.values()), precision.autocast():
            base = model.prompt_states(batch.captions, layer=self.layer).float()
        with precision.autocast():
            states = model.prompt_states(batch.captions, layer=self.layer).float()
        distances = (states - base).square().flatten(1).sum(1) / base.square().flatten(1).sum(1)
        return self.weight * distances

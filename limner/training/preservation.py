"""Prior preservation without class pictures: under a prompt of the user's, the model stays what its base is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from limner.core.config import Config
from limner.methods.base_weights import AsBase
from limner.models.evaluating import evaluating
from limner.models.protocol import Conditioning, DiffusionModel
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor


class Preservation(Config):
    """Pulls the prediction under one prompt to that of the base model: the class stays itself without class pictures.

    Known as differential output preservation. A LoRA is switched off for it. Of a full model a frozen copy of what
    trains is kept, 4 bytes a weight: 3.4 GB for the denoiser of SD 1.x, 0.5 GB more with its text encoder.
    """

    prompt: str = Field(min_length=1)
    """What shall stay as it is: 'a photo of a dog' where the subject is a dog. Without the word of the subject."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of this term beside the loss of the pictures."""

    def losses(
        self, model: DiffusionModel, x_t: Tensor, t: Tensor, *, trains_text: bool, precision: Precision, as_base: AsBase
    ) -> Tensor:
        """Returns ``weight`` times the mean squared difference of the two predictions, [B] float32.

        Exactly 0 where the model is its base. The base is in evaluation mode, without gradients.
        """
        with as_base(), evaluating(model.networks.values()), precision.autocast():
            base_states = model.encode_prompts([self.prompt])
            target = model.predict(x_t, t, _for_each(base_states, len(x_t)))
        with precision.autocast():
            states = model.encode_prompts([self.prompt]) if trains_text else base_states
            prediction = model.predict(x_t, t, _for_each(states, len(x_t)))
        losses: Tensor = self.weight * (prediction.float() - target.float()).square().flatten(1).mean(1)
        return losses


def _for_each(states: Conditioning, count: int) -> Conditioning:
    """Returns the states of one prompt for ``count`` examples."""
    return {name: value.expand(count, *value.shape[1:]) for name, value in states.items()}

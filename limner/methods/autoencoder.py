"""Training the autoencoder: the part of a model that turns pictures into latents and back."""

from __future__ import annotations

from typing import Literal

from limner.core.config import Config
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

_DECODER = ("decoder.", "post_quant_conv.")


class Autoencoder(Config):
    """The autoencoder trains, alone; its decoder only, unless asked otherwise."""

    kind: Literal["autoencoder"] = "autoencoder"
    encoder: bool = False
    """Train the encoder too. Latents then change their meaning: a denoiser that was trained on them fits no more."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision; the autoencoder never is."""
        return ()

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Makes the weights trainable. ``seed`` is not needed: nothing new is made."""
        params = {
            f"vae.{name}": parameter
            for name, parameter in model.networks["vae"].named_parameters()
            if self.encoder or name.startswith(_DECODER)
        }
        for parameter in params.values():
            parameter.requires_grad_(True)
        return Trainable(kind="autoencoder", params=params)

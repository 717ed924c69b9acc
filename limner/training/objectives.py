"""What is minimised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.rng import tensor_stream
from limner.data.batch import Batch
from limner.diffusion.weighting import min_snr
from limner.models.protocol import DiffusionModel
from limner.training.backward import Backward, accumulate
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor


class Denoising(Config):
    """The denoising loss of DDPM (arXiv:2006.11239, eq. 14): the mean squared error of the prediction."""

    kind: Literal["denoising"] = "denoising"
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Weigh timesteps by min-SNR (arXiv:2303.09556); 5 is the paper's value. Unset: every timestep counts the same."""
    offset_noise: float = Field(default=0.0, ge=0, le=1)
    """Strength of a random constant added to the noise per channel, for darker and brighter pictures; often 0.1."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of the visits whose caption is left empty, so that guidance keeps working; often 0.1."""

    def backward(
        self, model: DiffusionModel, *, seed: int, precision: Precision, scale: Callable[[Tensor], Tensor]
    ) -> Backward:
        """Returns the Backward of this loss."""

        def per_example(batch: Batch) -> Tensor:
            return self.losses(model, batch, seed=seed, precision=precision)

        return accumulate(per_example, scale)

    def losses(self, model: DiffusionModel, batch: Batch, *, seed: int, precision: Precision) -> Tensor:
        """Returns the weighted loss of each example, [B] float32. Its randomness is that of the batch's positions."""
        device = precision.device
        x_0, eps, t = (tensor.to(device) for tensor in self.draw(model, batch, seed=seed))
        x_t = model.process.add_noise(x_0, eps, t)
        with precision.autocast():
            if batch.conditioning is None:
                conditioning = model.encode_prompts(batch.captions)
            else:
                conditioning = {name: states.to(device) for name, states in batch.conditioning.items()}
            prediction = model.predict(x_t, t, conditioning)
        target = model.process.target(x_0, eps, t)
        losses: Tensor = (prediction.float() - target).square().flatten(1).mean(1) * batch.weights.to(device)
        if self.min_snr_gamma is not None:
            snr = model.process.snr(t)
            losses = losses * min_snr(snr, self.min_snr_gamma, model.process.prediction_type)
        return losses

    def draw(self, model: DiffusionModel, batch: Batch, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns x_0 [B, C, h, w], eps [B, C, h, w] and t [B], drawn on the CPU, one stream per example."""
        import torch

        half = batch.moments.shape[1] // 2
        shape = (half, *batch.moments.shape[2:])

        def normal(position: int, purpose: str, size: tuple[int, ...]) -> Tensor:
            return torch.randn(size, generator=tensor_stream(seed, position, purpose))

        latent_eps = torch.stack([normal(p, "latent", shape) for p in batch.positions])
        eps = torch.stack([normal(p, "noise", shape) for p in batch.positions])
        if self.offset_noise:
            offset = torch.stack([normal(p, "offset noise", (half, 1, 1)) for p in batch.positions])
            eps = eps + self.offset_noise * offset
        t = torch.tensor([model.process.sample_t(tensor_stream(seed, p, "timestep")) for p in batch.positions])
        return model.sample_latents(batch.moments, latent_eps), eps, t

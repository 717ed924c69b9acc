"""What is minimised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.rng import tensor_stream
from limner.data.batch import Batch
from limner.diffusion.weighting import masked_means, min_snr
from limner.methods.base_weights import AsBase
from limner.models.protocol import DiffusionModel
from limner.training.backward import Backward, accumulate, accumulate_terms
from limner.training.contrastive import Contrastive
from limner.training.precision import Precision
from limner.training.preservation import Preservation

if TYPE_CHECKING:
    from torch import Tensor


class Denoising(Config):
    """The denoising loss of DDPM (arXiv:2006.11239, eq. 14): the mean squared error of the prediction."""

    kind: Literal["denoising"] = "denoising"
    reads: ClassVar[Literal["moments", "pixels"]] = "moments"
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Weigh timesteps by min-SNR (arXiv:2303.09556); 5 is the paper's value. Unset: every timestep counts the same."""
    timestep_bias: float = Field(default=0.0, gt=-1, le=10)
    """Draw noisy timesteps more often, where the layout of a picture is settled: with a density that grows as t to this
    power. 0: all alike; below 0: less noisy ones more often, where its texture is."""
    offset_noise: float = Field(default=0.0, ge=0, le=1)
    """Strength of a random constant added to the noise per channel, for darker and brighter pictures; often 0.1."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of the visits whose caption is left empty, so that guidance keeps working; often 0.1."""
    preservation: Preservation | None = None
    """Keep the class of a subject as it is without pictures of it: {prompt: a photo of a dog, weight: 1.0}."""

    def backward(
        self,
        model: DiffusionModel,
        *,
        seed: int,
        precision: Precision,
        scale: Callable[[Tensor], Tensor],
        as_base: AsBase | None = None,
    ) -> Backward:
        """Returns the Backward of this loss; preservation needs ``as_base``, which makes the model its base."""
        losses = partial(self.losses, model, seed=seed, precision=precision)
        if self.preservation is None:
            return accumulate(losses, scale)
        if as_base is None:
            raise ValueError("preservation compares with the base model: give as_base")
        preserved = partial(self.preservation_losses, model, seed=seed, precision=precision, as_base=as_base)
        return accumulate_terms({"denoising": losses, "preservation": preserved}, scale)

    def preservation_losses(
        self, model: DiffusionModel, batch: Batch, *, seed: int, precision: Precision, as_base: AsBase
    ) -> Tensor:
        """Returns the preservation term of each example, [B] float32, at the x_t and t of its denoising loss.

        Min-SNR weighs both terms alike, so that their ratio is the same at every t; the weights of examples do not.
        """
        assert self.preservation is not None
        x_0, eps, t = (tensor.to(precision.device) for tensor in self.draw(model, batch, seed=seed))
        losses = self.preservation.losses(
            model,
            model.process.add_noise(x_0, eps, t),
            t,
            trains_text=batch.conditioning is None,
            precision=precision,
            as_base=as_base,
        )
        return losses * self._weights_of(t, model)

    def losses(
        self, model: DiffusionModel, batch: Batch, *, seed: int, precision: Precision, at: Tensor | None = None
    ) -> Tensor:
        """Returns the weighted loss of each example, [B] float32. Its randomness is that of the batch's positions.

        ``at`` gives the timesteps [B] instead of drawing them.
        """
        device = precision.device
        x_0, eps, t = (tensor.to(device) for tensor in self.draw(model, batch, seed=seed))
        t = t if at is None else at.to(device)
        x_t = model.process.add_noise(x_0, eps, t)
        with precision.autocast():
            if batch.conditioning is None:
                conditioning = model.encode_prompts(batch.captions)
            else:
                conditioning = {name: states.to(device) for name, states in batch.conditioning.items()}
            prediction = model.predict(x_t, t, conditioning)
        target = model.process.target(x_0, eps, t)
        masks = None if batch.masks is None else batch.masks.to(device)
        losses = masked_means((prediction.float() - target).square(), masks) * batch.weights.to(device)
        return losses * self._weights_of(t, model)

    def _weights_of(self, t: Tensor, model: DiffusionModel) -> Tensor | float:
        """Returns the weights of the timesteps, [B], or 1."""
        if self.min_snr_gamma is None:
            return 1.0
        return min_snr(model.process.snr(t), self.min_snr_gamma, model.process.prediction_type)

    def draw(self, model: DiffusionModel, batch: Batch, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns x_0 [B, C, h, w], eps [B, C, h, w] and t [B], drawn on the CPU, one stream per example."""
        import torch

        half = batch.images.shape[1] // 2
        shape = (half, *batch.images.shape[2:])

        def normal(position: int, purpose: str, size: tuple[int, ...]) -> Tensor:
            return torch.randn(size, generator=tensor_stream(seed, position, purpose))

        latent_eps = torch.stack([normal(p, "latent", shape) for p in batch.positions])
        eps = torch.stack([normal(p, "noise", shape) for p in batch.positions])
        if self.offset_noise:
            offset = torch.stack([normal(p, "offset noise", (half, 1, 1)) for p in batch.positions])
            eps = eps + self.offset_noise * offset
        streams = [tensor_stream(seed, p, "timestep") for p in batch.positions]
        t = torch.tensor([model.process.sample_t(stream, self.timestep_bias) for stream in streams])
        return model.sample_latents(batch.images, latent_eps), eps, t


class Reconstruction(Config):
    """The loss of an autoencoder: pictures come back as they were, from latents that stay near a normal distribution.

    It is the mean over pixels of |x' - x|, plus ``edges`` times the same of the differences of neighbours, plus ``kl``
    times the divergence of the posterior from N(0, 1) in nats per latent (arXiv:1312.6114; arXiv:2112.10752, sec. 3.1).
    """

    kind: Literal["reconstruction"] = "reconstruction"
    edges: float = Field(default=1.0, ge=0)
    """Weight of the error in the differences of neighbouring pixels; more gives sharper outlines."""
    kl: float = Field(default=1e-4, ge=0)
    """Weight of the pull of the latents towards a normal distribution."""
    reads: ClassVar[Literal["moments", "pixels"]] = "pixels"
    caption_dropout: ClassVar[float] = 0.0

    def backward(
        self,
        model: DiffusionModel,
        *,
        seed: int,
        precision: Precision,
        scale: Callable[[Tensor], Tensor],
        as_base: AsBase | None = None,
    ) -> Backward:
        """Returns the Backward of this loss. ``as_base`` is not needed."""
        return accumulate(partial(self.losses, model, seed=seed, precision=precision), scale)

    def losses(self, model: DiffusionModel, batch: Batch, *, seed: int, precision: Precision) -> Tensor:
        """Returns the weighted loss of each example, [B] float32."""
        pixels = batch.images.to(precision.device)
        moments, rebuilt = model.reconstruct(pixels, lambda shape: self._noise(batch, shape, seed))
        error = rebuilt - pixels
        losses = error.abs().flatten(1).mean(1) + self.kl * _divergence(moments)
        for difference in (error.diff(dim=2), error.diff(dim=3)):
            losses = losses + 0.5 * self.edges * difference.abs().flatten(1).mean(1)
        weighted: Tensor = losses * batch.weights.to(precision.device)
        return weighted

    def _noise(self, batch: Batch, shape: tuple[int, ...], seed: int) -> Tensor:
        """Returns the noise of the posterior, [B, *shape], drawn on the CPU, one stream per example."""
        import torch

        return torch.stack([torch.randn(shape, generator=tensor_stream(seed, p, "latent")) for p in batch.positions])


def _divergence(moments: Tensor) -> Tensor:
    """Returns the divergence of the posteriors from N(0, 1) in nats per latent, [B]."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    nats: Tensor = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)
    return nats


ObjectiveConfig = Annotated[Denoising | Reconstruction | Contrastive, Field(discriminator="kind")]

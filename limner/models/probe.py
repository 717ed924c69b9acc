"""One fixed question to a model: always the same latents, timesteps and prompts, so that answers can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.core.rng import tensor_stream
from limner.models.evaluating import evaluating, in_float32
from limner.models.protocol import DiffusionModel, DualEncoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from torch import Tensor

PROMPTS = ("a photo of a dog in the snow", "an oil painting of two red houses, 1890")


def prompts_about(token: str) -> tuple[str, str]:
    """Returns the prompts with which a model is asked about a new word."""
    return (f"a photo of {token} in the snow", f"an oil painting of {token} and two red houses, 1890")


def probe(model: DiffusionModel, *, prompts: Sequence[str] = PROMPTS, seed: int = 0) -> Tensor:
    """Returns the denoiser's answers to two noisy latents with two ``prompts``, float32 on the CPU, [2, C, h, w].

    Everything that makes a picture except the sampler takes part: the tokenizer, the text encoders, the denoiser and,
    for the latents, the image encoder. Modes, gradients and the global random stream are left as they were.
    """
    import torch

    device = next(model.denoiser.parameters()).device
    side = 2 * model.size_multiple
    streams = [tensor_stream(seed, index, "probe") for index in range(len(PROMPTS))]
    pixels = torch.cat([torch.rand(1, 3, side, side, generator=stream) * 2 - 1 for stream in streams])
    with evaluating(model.networks.values()):
        with in_float32(device):
            moments = model.encode_images(pixels.to(device))
        shape = (1, moments.shape[1] // 2, *moments.shape[2:])
        eps = torch.cat([torch.randn(shape, generator=stream) for stream in streams]).to(device)
        x_0 = model.sample_latents(moments, eps)
        t = torch.tensor([model.process.timesteps // 5, 4 * model.process.timesteps // 5], device=device)
        answer = model.predict(model.process.add_noise(x_0, eps, t), t, model.encode_prompts(prompts))
    return answer.float().cpu()


def probe_autoencoder(vae: AutoencoderKL, *, side: int, seed: int = 0) -> Tensor:
    """Returns what an autoencoder makes of a random picture of ``side`` pixels: moments, then pixels, in one row."""
    import torch

    pixels = torch.rand(1, 3, side, side, generator=tensor_stream(seed, 0, "probe")) * 2 - 1
    with evaluating([vae]), in_float32(vae.device):
        posterior = vae.encode(pixels.to(vae.device, torch.float32)).latent_dist
        answer = torch.cat([posterior.parameters.flatten(), vae.decode(posterior.mode()).sample.flatten()])
    return answer.float().cpu()


def probe_dual_encoder(model: DualEncoder, *, seed: int = 0) -> Tensor:
    """Returns a dual encoder's embeddings of two random pictures and two prompts, and its temperature, in one row."""
    import torch

    side = model.default_size
    streams = [tensor_stream(seed, index, "probe") for index in range(len(PROMPTS))]
    pixels = torch.cat([torch.rand(1, 3, side, side, generator=stream) * 2 - 1 for stream in streams])
    with evaluating(model.networks.values()):
        images = model.embed_images(pixels.to(model.logit_scale.device))
        answer = [images.flatten(), model.embed_prompts(PROMPTS).flatten(), model.logit_scale.detach().flatten()]
    return torch.cat([part.float() for part in answer]).cpu()


@dataclass(frozen=True)
class Difference:
    """How far two answers to :func:`probe` lie apart."""

    largest: float
    """The largest difference of any two numbers."""
    scale: float
    """The largest magnitude in the answer compared with."""

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest magnitude; infinite where an answer is not finite."""
        return self.largest / self.scale if self.scale > 0 else (0.0 if self.largest == 0 else float("inf"))


def difference(answer: Tensor, expected: Tensor) -> Difference:
    """Returns how far ``answer`` lies from ``expected``; an infinity where one of them is not finite."""
    import torch

    if not (torch.isfinite(answer).all() and torch.isfinite(expected).all()):
        return Difference(largest=float("inf"), scale=1.0)
    return Difference(largest=float((answer - expected).abs().max()), scale=float(expected.abs().max()))

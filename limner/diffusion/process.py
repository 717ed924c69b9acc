"""The forward process of DDPM (arXiv:2006.11239) and what a denoiser is asked to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


@dataclass(frozen=True)
class NoiseProcess:
    """q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I), with a_t = ``alphas_cumprod[t]``, float32 [T]."""

    alphas_cumprod: Tensor
    prediction_type: PredictionType

    @property
    def timesteps(self) -> int:
        """The number T of timesteps; t runs from 0 to T - 1."""
        return int(self.alphas_cumprod.shape[0])

    def _sqrt_pair(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns sqrt(a_t) and sqrt(1 - a_t), [B, 1, 1, 1], on the device of ``like``."""
        a_t = self.alphas_cumprod.to(like.device)[t].view(-1, *([1] * (like.dim() - 1)))
        return a_t.sqrt(), (1 - a_t).sqrt()

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps (DDPM eq. 4), [B, C, h, w]; t is [B]."""
        signal, noise = self._sqrt_pair(t, x_0)
        return signal * x_0 + noise * eps

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns what the denoiser should predict: eps, v = sqrt(a_t) eps - sqrt(1 - a_t) x_0
        (arXiv:2202.00512, appendix D), or x_0; [B, C, h, w]."""
        if self.prediction_type == "epsilon":
            return eps
        if self.prediction_type == "sample":
            return x_0
        signal, noise = self._sqrt_pair(t, x_0)
        return signal * eps - noise * x_0

    def snr(self, t: Tensor) -> Tensor:
        """Returns the signal-to-noise ratio a_t / (1 - a_t), [B]."""
        a_t = self.alphas_cumprod.to(t.device)[t]
        return a_t / (1 - a_t)

    def sample_t(self, generator: torch.Generator, bias: float = 0.0) -> int:
        """Returns one timestep in [0, T), drawn with a density that grows as t to the power of ``bias``.

        At 0 it is uniform. Raises ValueError for a ``bias`` of -1 and less, which no density has.
        """
        import torch

        if bias <= -1:
            raise ValueError(f"bias is {bias}; it must be more than -1")
        if bias == 0:
            return int(torch.randint(0, self.timesteps, (1,), generator=generator).item())
        share = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / (1 + bias))
        return min(int(share * self.timesteps), self.timesteps - 1)


def alphas_cumprod(
    *, schedule: BetaSchedule, timesteps: int, beta_start: float, beta_end: float, zero_terminal_snr: bool = False
) -> Tensor:
    """Returns the cumulative products of 1 - beta_t, float32 [T].

    ``scaled_linear`` is Stable Diffusion's (linear in sqrt(beta)); ``squaredcos_cap_v2`` is arXiv:2102.09672, eq. 17;
    ``zero_terminal_snr`` rescales as in arXiv:2305.08891, algorithm 1.
    """
    import torch

    if schedule == "linear":
        betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float32)
    elif schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float32) ** 2
    else:
        steps = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        bar = torch.cos((steps + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999).to(torch.float32)
    products = torch.cumprod(1 - betas, dim=0)
    if zero_terminal_snr:
        root = products.sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        products = root**2
    return products

"""The process against diffusers' schedulers, an independent implementation."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from limner.diffusion.process import BetaSchedule, NoiseProcess, PredictionType, alphas_cumprod

SCHEDULES: list[BetaSchedule] = ["linear", "scaled_linear", "squaredcos_cap_v2"]


def products(schedule: BetaSchedule, zero: bool = False) -> torch.Tensor:
    return alphas_cumprod(schedule=schedule, timesteps=1000, beta_start=0.00085, beta_end=0.012, zero_terminal_snr=zero)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zero", [False, True])
def test_products_equal_those_of_diffusers(schedule: BetaSchedule, zero: bool) -> None:
    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=schedule, rescale_betas_zero_snr=zero
    ).alphas_cumprod
    torch.testing.assert_close(products(schedule, zero), theirs, rtol=1e-5, atol=1e-6)
    if zero:
        assert products(schedule, zero)[-1] == 0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_noise_and_targets_equal_those_of_diffusers(prediction_type: PredictionType) -> None:
    process = NoiseProcess(products("scaled_linear"), prediction_type)
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.tensor([0, 1, 500, 998, 999])
    torch.testing.assert_close(process.add_noise(x_0, eps, t), theirs.add_noise(x_0, eps, t))
    expected = {"epsilon": eps, "sample": x_0, "v_prediction": theirs.get_velocity(x_0, eps, t)}[prediction_type]
    torch.testing.assert_close(process.target(x_0, eps, t), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_back_the_picture(prediction_type: PredictionType) -> None:
    process = NoiseProcess(products("scaled_linear").double(), prediction_type)
    generator = torch.Generator().manual_seed(1)
    x_0, eps = (torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([10, 500, 990])
    x_t, target = process.add_noise(x_0, eps, t), process.target(x_0, eps, t)
    a = process.alphas_cumprod[t].view(-1, 1, 1, 1)
    recovered = {
        "epsilon": (x_t - (1 - a).sqrt() * target) / a.sqrt(),
        "v_prediction": a.sqrt() * x_t - (1 - a).sqrt() * target,
        "sample": target,
    }[prediction_type]
    torch.testing.assert_close(recovered, x_0)


def test_timesteps_are_uniform_and_reach_both_ends() -> None:
    process = NoiseProcess(torch.linspace(0.9, 0.1, 10), "epsilon")
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([process.sample_t(generator) for _ in range(5000)]), minlength=10)
    assert len(counts) == 10
    assert ((counts - 500).abs() < 5 * 500**0.5).all()


@pytest.mark.parametrize("bias", [-0.5, 0.7, 2.0])
def test_biased_timesteps_have_a_density_that_grows_as_a_power_of_t(bias: float) -> None:
    process = NoiseProcess(torch.linspace(0.9, 0.1, 10), "epsilon")
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([process.sample_t(generator, bias) for _ in range(5000)]), minlength=10)
    edges = torch.linspace(0, 1, 11) ** (1 + bias)  # the integral of (1 + bias) x^bias
    expected = 5000 * edges.diff()
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_a_bias_without_a_density_is_refused() -> None:
    process = NoiseProcess(torch.linspace(0.9, 0.1, 10), "epsilon")
    with pytest.raises(ValueError, match="bias is -1"):
        process.sample_t(torch.Generator().manual_seed(0), -1.0)

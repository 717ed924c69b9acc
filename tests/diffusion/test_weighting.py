"""min-SNR is one objective on x_0 whatever is predicted; the variants that are often met are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limner.core.errors import UserError
from limner.diffusion.process import NoiseProcess, PredictionType, alphas_cumprod
from limner.diffusion.weighting import min_snr

PRODUCTS = alphas_cumprod(schedule="scaled_linear", timesteps=1000, beta_start=0.00085, beta_end=0.012).double()
GAMMA = 5.0
T = torch.arange(0, 1000, 37)


def error_on_x_0(weights: Tensor, prediction_type: PredictionType) -> Tensor:
    """The weight that each timestep's squared error on x_0 gets, for an error of the prediction of one."""
    process = NoiseProcess(PRODUCTS, prediction_type)
    generator = torch.Generator().manual_seed(0)
    shape = (len(T), 1, 1, 64)
    x_0, eps, mistake = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    x_t = process.add_noise(x_0, eps, T)
    # the prediction that a model makes whose estimate of x_0 is off by ``mistake``, with x_t as it is
    a = PRODUCTS[T].view(-1, 1, 1, 1)
    wrong_x_0 = x_0 + mistake
    wrong_eps = (x_t - a.sqrt() * wrong_x_0) / (1 - a).sqrt()
    prediction = process.target(wrong_x_0, wrong_eps, T)
    loss = (prediction - process.target(x_0, eps, T)).square().mean((1, 2, 3)) * weights
    return loss / mistake.square().mean((1, 2, 3))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_error_on_x_0_by_the_clipped_snr(prediction_type: PredictionType) -> None:
    snr = NoiseProcess(PRODUCTS, prediction_type).snr(T)
    weights = min_snr(snr, GAMMA, prediction_type)
    torch.testing.assert_close(error_on_x_0(weights, prediction_type), snr.clamp(max=GAMMA))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("the weight for eps used for v", lambda snr: snr.clamp(max=GAMMA) / snr),
        ("snr + 1 clipped as well", lambda snr: (snr + 1).clamp(max=GAMMA) / (snr + 1)),
        ("1 added after the division", lambda snr: snr.clamp(max=GAMMA) / snr + 1),
    ],
)
def test_the_known_wrong_variants_for_v_are_another_objective(name: str, wrong: object) -> None:
    snr = NoiseProcess(PRODUCTS, "v_prediction").snr(T)
    measured = error_on_x_0(wrong(snr), "v_prediction")  # type: ignore[operator]
    assert (measured / snr.clamp(max=GAMMA) - 1).abs().max() > 0.1, name


def test_eps_at_pure_noise_is_refused_and_v_is_zero_there() -> None:
    snr = torch.tensor([0.0, 1.0])
    with pytest.raises(UserError, match="zero terminal SNR"):
        min_snr(snr, GAMMA, "epsilon")
    torch.testing.assert_close(min_snr(snr, GAMMA, "v_prediction"), torch.tensor([0.0, 0.5]))

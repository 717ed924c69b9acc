"""Weights of the denoising loss: by timestep, and by place in the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.diffusion.process import PredictionType

if TYPE_CHECKING:
    from torch import Tensor


def min_snr(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Returns the min-SNR-gamma weight (arXiv:2303.09556, section 3.4), [B].

    The paper weighs the error on x_0 by min(snr, gamma). The error on eps is snr times that on x_0, the error on v is
    snr + 1 times it, so the same objective is min(snr, gamma) / snr for eps and min(snr, gamma) / (snr + 1) for v.
    """
    clipped = snr.clamp(max=gamma)
    if prediction_type == "sample":
        return clipped
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    if bool((snr == 0).any()):
        raise UserError(
            "the last timestep is pure noise (zero terminal SNR), where predicting eps says nothing about the picture.",
            where="objective.min_snr_gamma",
            fix="A schedule rescaled to zero terminal SNR needs model.prediction_type: v_prediction.",
        )
    return clipped / snr


def masked_means(errors: Tensor, masks: Tensor | None) -> Tensor:
    """Returns the mean of each example's ``errors`` [B, C, h, w], weighed by ``masks`` [B, 1, h, w], as [B].

    It is the mean over channels and places of weight times error, divided by the mean of the weights: an example counts
    the same whatever the size of its mask, and a mask of one value everywhere changes nothing. kohya's scripts multiply
    and do not divide, so that a small mask also means a small loss; OneTrainer divides where "Normalize Masked Area
    Loss" is switched on, and gives grey the greater of its own value and the weight of the outside.
    """
    if masks is None:
        return errors.flatten(1).mean(1)
    return (errors * masks).flatten(1).mean(1) / masks.flatten(1).mean(1)

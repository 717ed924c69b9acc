"""Muon: steps whose matrices have all singular values near one, so that rare directions are learned as fast as others.

Source: K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024); the size of the steps as
in arXiv:2502.16982, eq. 4, so that learning rates are those of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial a x + b x^3 + c x^5, which five times over takes (0.01, 1] to about (0.7, 1.2)."""
_ROUNDS = 5
_RMS = 0.2
"""Root mean square of AdamW's usual step, in units of the learning rate."""
_TINY, _EPS = 1e-12, 1e-8


def orthogonalised(matrix: Tensor) -> Tensor:
    """Returns a matrix [m, n] with the singular vectors of ``matrix`` and singular values of about 0.7 to 1.2.

    The polynomial is applied to the smaller of the two Gram matrices: a power of it is a small square matrix, however
    long the rows are.
    """
    import torch

    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + _TINY)
    a, b, c = _COEFFICIENTS
    gram = wide @ wide.T
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    product = identity
    for _ in range(_ROUNDS):
        factor = a * identity + gram @ (b * identity + c * gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result = product @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


def make_muon(
    groups: Sequence[dict[str, Any]], *, momentum: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """Returns the optimizer: Muon for tensors of two and more dimensions, AdamW for vectors and single numbers.

    Convolutions count as matrices, one row for each output channel.
    """
    import torch

    class Muon(torch.optim.Optimizer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(groups, {"lr": 0.0})

        def step(self, closure: Callable[[], float] | None = None) -> None:
            """Moves every parameter that has a gradient; ``closure`` is not for this optimizer."""
            if closure is not None:
                raise ValueError("this optimizer evaluates no closure")
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            self._move(parameter, group["lr"])

        def _move(self, parameter: Tensor, lr: float) -> None:
            state = self.state[parameter]
            if parameter.dim() >= 2:
                step = _matrix_step(state, parameter.grad, momentum)
            else:
                step = _vector_step(state, parameter.grad, betas)
            parameter.mul_(1 - lr * weight_decay).sub_(lr * step)

    return Muon()


def _matrix_step(state: dict[str, Any], grad: Tensor, momentum: float) -> Tensor:
    """Returns the step of a matrix for a learning rate of 1, with Nesterov's momentum."""
    import torch

    if not state:
        state["momentum"] = torch.zeros_like(grad)
    average: Tensor = state["momentum"]
    average.lerp_(grad, 1 - momentum)
    step = orthogonalised(grad.lerp(average, momentum).flatten(1).float())
    return (_RMS * math.sqrt(max(step.shape)) * step).reshape(grad.shape)


def _vector_step(state: dict[str, Any], grad: Tensor, betas: tuple[float, float]) -> Tensor:
    """Returns AdamW's step for a learning rate of 1."""
    import torch

    if not state:
        state.update(step=torch.zeros(()), mean=torch.zeros_like(grad), square=torch.zeros_like(grad))
    state["step"] += 1
    count = float(state["step"])
    mean: Tensor = state["mean"]
    square: Tensor = state["square"]
    mean.lerp_(grad, 1 - betas[0])
    square.lerp_(grad.square(), 1 - betas[1])
    return mean / (1 - betas[0] ** count) / ((square / (1 - betas[1] ** count)).sqrt() + _EPS)

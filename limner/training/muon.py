"""Muon: steps whose matrices have all singular values near one, so that rare directions are learned as fast as others.

Source: K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024); the size of the steps as
in arXiv:2502.16982, eq. 4, so that learning rates are those of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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


def orthogonalised(matrices: Tensor) -> Tensor:
    """Returns matrices [..., m, n] with the singular vectors of ``matrices`` and singular values of about 0.7 to 1.2.

    The polynomial is applied to the smaller of the two Gram matrices: a power of it is a small square matrix, however
    long the rows are.
    """
    import torch

    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    wide = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + _TINY)
    a, b, c = _COEFFICIENTS
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    product = identity.expand_as(gram)
    for _ in range(_ROUNDS):
        factor = a * identity + gram @ (b * identity + c * gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result = product @ wide
    return result if matrices.shape[-2] <= matrices.shape[-1] else result.mT


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
                    moving = [parameter for parameter in group["params"] if parameter.grad is not None]
                    decay = group.get("weight_decay", weight_decay)  # a group's own, where it brings one
                    for parameter, step in self._steps(moving):
                        parameter.mul_(1 - group["lr"] * decay).sub_(group["lr"] * step)

        def _steps(self, parameters: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            """Yields each parameter with its step for a learning rate of 1; matrices of one shape are one batch."""
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in parameters:
                if parameter.dim() >= 2:
                    shapes.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
                else:
                    yield parameter, _vector_step(self.state[parameter], parameter.grad, betas)
            for shape, alike in shapes.items():
                pushes = [_push(self.state[parameter], parameter.grad, momentum) for parameter in alike]
                steps = _RMS * math.sqrt(max(shape)) * orthogonalised(torch.stack(pushes))
                yield from ((one, step.reshape(one.shape)) for one, step in zip(alike, steps, strict=True))

    return Muon()


def _push(state: dict[str, Any], grad: Tensor, momentum: float) -> Tensor:
    """Returns the direction of a matrix with Nesterov's momentum, [m, n] float32."""
    import torch

    if not state:
        state["momentum"] = torch.zeros_like(grad)
    average: Tensor = state["momentum"]
    average.lerp_(grad, 1 - momentum)
    return grad.lerp(average, momentum).flatten(1).float()


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

"""Proof that a run trains what it says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from limner.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class LearningProof:
    """Watches the first updates: every trained tensor must get a gradient and move, and no frozen one may.

    ``waits`` names tensors whose first gradient is zero by construction; they must move with the second update.
    """

    def __init__(
        self, params: Mapping[str, nn.Parameter], networks: Mapping[str, nn.Module], waits: frozenset[str]
    ) -> None:
        self._params, self._networks, self._waits = params, networks, waits
        self._start = {name: parameter.detach().clone() for name, parameter in params.items()}
        self._frozen = self._fingerprints()
        self._updates = 0

    @property
    def done(self) -> bool:
        """Whether everything that must move has been seen to move."""
        return self._updates >= (2 if self._waits else 1)

    def after_update(self) -> None:
        """Looks at the weights and their gradients after an update; raises UserError with the names."""
        if self.done:
            return
        self._updates += 1
        expected = [name for name in self._params if self._updates > 1 or name not in self._waits]
        still = [name for name in expected if not self._learned(name)]
        if still:
            raise UserError(
                f"{len(still)} of {len(self._params)} trained tensors did not learn in update {self._updates}: "
                f"{_first(still)}. Their gradient is zero or missing, or the update was too small to change them.",
                where="proof of learning",
                fix="Check optimizer.lr (a very small one vanishes in float32), and that nothing between these layers "
                "and the loss is cut off.",
            )
        moved = [name for name, value in self._fingerprints().items() if self._frozen[name] != value]
        if moved:
            raise UserError(
                f"{len(moved)} frozen tensors changed: {_first(moved)}.",
                where="proof of learning",
                fix="This is a defect of Limner: please report it with your recipe.",
            )
        if self.done:
            self._start, self._frozen = {}, {}

    def _learned(self, name: str) -> bool:
        parameter = self._params[name]
        grad = parameter.grad
        return grad is not None and bool(grad.any()) and not bool((parameter.detach() == self._start[name]).all())

    def _fingerprints(self) -> dict[str, int]:
        trained = {id(parameter) for parameter in self._params.values()}
        return {
            f"{part}.{name}": _bit_sum(value)
            for part, network in self._networks.items()
            for name, value in (*network.named_parameters(), *network.named_buffers())
            if id(value) not in trained
        }


def _bit_sum(value: Tensor) -> int:
    """Returns the sum of a tensor's bits read as integers: exact, order-free, cheap on every device."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    return int(value.detach().contiguous().view(-1).view(whole).sum(dtype=torch.int64))


def _first(names: list[str], count: int = 5) -> str:
    shown = ", ".join(names[:count])
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown

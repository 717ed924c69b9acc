"""Proof that a run trains what it says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from limner.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


_ODD = 0x1E3779B97F4A7C15  # spreads neighbouring places over all 64 bits


class LearningProof:
    """Watches the first updates: every trained tensor must get a gradient and move, and no frozen one may.

    ``waits`` names tensors whose first gradient is zero by construction; their turn comes with the second update.
    ``seldom`` names tensors that a batch may leave without a gradient (a word that no caption of it holds); their turn
    comes with the first update that gives them one. ``patience`` is the number of updates after which everything must
    have moved: 1, unless a warm-up or the optimizer begins with steps so small that float32 rounds some of them away.
    Any other gradient of zero is never waited for.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        networks: Mapping[str, nn.Module],
        waits: frozenset[str],
        patience: int = 1,
        seldom: frozenset[str] = frozenset(),
    ) -> None:
        self._params, self._networks, self._waits, self._patience = params, networks, waits, patience
        self._seldom = seldom
        self._start = {name: _fingerprint(parameter) for name, parameter in params.items()}
        self._frozen = self._fingerprints()
        self._updates = 0

    @property
    def done(self) -> bool:
        """Whether everything that must move has been seen to move."""
        return not self._start

    def after_update(self) -> None:
        """Looks at the weights and their gradients after an update; raises UserError with the names."""
        if self.done:
            return
        self._updates += 1
        due = [name for name in self._start if self._updates > 1 or name not in self._waits]
        idle = {name for name in due if name in self._seldom and not _has_gradient(self._params[name])}
        due = [name for name in due if name not in idle]
        self._refuse(
            [name for name in due if not _has_gradient(self._params[name])], "their gradient is zero or missing"
        )
        still = [name for name in due if _fingerprint(self._params[name]) == self._start[name]]
        if self._updates >= self._patience:
            self._refuse(still, "the update was too small to change them")
        for name in set(due) - set(still):
            del self._start[name]
        if self._updates <= 2 or self.done:  # reading every frozen weight takes time: not at each step of a warm-up
            self._refuse_moved_frozen()

    def _refuse(self, names: list[str], why: str) -> None:
        if names:
            raise UserError(
                f"{len(names)} of {len(self._params)} trained tensors did not learn in update {self._updates}, since "
                f"{why}: {_first(names)}.",
                where="proof of learning",
                fix="Check optimizer.lr (a very small one vanishes in float32), and that nothing between these layers "
                "and the loss is cut off.",
            )

    def _refuse_moved_frozen(self) -> None:
        moved = [name for name, value in self._fingerprints().items() if self._frozen[name] != value]
        if moved:
            raise UserError(
                f"{len(moved)} frozen tensors changed: {_first(moved)}.",
                where="proof of learning",
                fix="This is a defect of Limner: please report it with your recipe.",
            )

    def _fingerprints(self) -> dict[str, int]:
        trained = {id(parameter) for parameter in self._params.values()}
        return {
            f"{part}.{name}": _fingerprint(value)
            for part, network in self._networks.items()
            for name, value in (*network.named_parameters(), *network.named_buffers())
            if id(value) not in trained
        }


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _fingerprint(value: Tensor) -> int:
    """Returns a sum of a tensor's bits, each number weighted by its place: exact, and cheap on every device.

    Without the weights, updates of one size up and down, as Adam's first one is, could cancel each other.
    """
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    bits = value.detach().contiguous().view(-1).view(whole).to(torch.int64)
    places = torch.arange(1, bits.numel() + 1, device=bits.device) * _ODD
    return int((bits * places).sum())  # wraps around, as is meant


def _first(names: list[str], count: int = 5) -> str:
    shown = ", ".join(names[:count])
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown

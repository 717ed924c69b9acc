"""Running networks without leaving a trace: no gradients, no dropout, every mode put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextlib.contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts the networks into evaluation mode without gradients; afterwards every module has its own mode again.

    The global random stream of PyTorch is put back too, so that whatever runs inside moves nothing outside. Never
    ``yield`` from inside: the caller would run without gradients.
    """
    import torch

    modules = [module for network in networks for module in network.modules()]
    modes = [module.training for module in modules]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode

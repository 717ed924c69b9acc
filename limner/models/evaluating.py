"""Running networks without leaving a trace: no gradients, no dropout, every mode put back."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextlib.contextmanager
def evaluating(networks: Collection[nn.Module]) -> Iterator[None]:
    """Puts the networks into evaluation mode without gradients; afterwards every module has its own mode again.

    Where some networks are in half precision and others in float32, as while training, operations run under autocast.
    PyTorch's global random stream is put back too, so that whatever runs inside moves nothing outside. Never ``yield``
    to a caller from inside: the caller would run without gradients.
    """
    import torch

    modules = [module for network in networks for module in network.modules()]
    modes = [module.training for module in modules]
    half = _half_precision(networks)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if half is not None:
            stack.enter_context(torch.autocast(half[0].type, dtype=half[1]))
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


def _half_precision(networks: Collection[nn.Module]) -> tuple[torch.device, torch.dtype] | None:
    import torch

    for network in networks:
        for parameter in network.parameters():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                return parameter.device, parameter.dtype
    return None


def in_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Returns a context that switches autocast off: autoencoders overflow in half precision."""
    import torch

    context: contextlib.AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return context

"""A model that trains, made its own base again for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.methods.trainable import Trainable

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import Tensor, nn

AsBase = Callable[[], contextlib.AbstractContextManager[None]]
"""Gives a context in which the model predicts as it did before training."""


@dataclass(frozen=True)
class BaseWeights:
    """What tells the model from its base: adapters, which are switched off, and weights, of which a copy is kept."""

    adapters: tuple[BaseTunerLayer, ...]
    params: Mapping[str, nn.Parameter]
    """What trains outside of adapters."""
    kept: dict[str, Tensor]
    """The same as it was before training."""

    @property
    def bytes(self) -> int:
        """Returns the memory that the copy takes."""
        return sum(value.numel() * value.element_size() for value in self.kept.values())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Makes the model its base for as long as the context lasts.

        Enter it outside of autocast, which keeps casts of weights until it is left, and leave it before ``backward``.
        """
        own = [parameter for layer in self.adapters for parameter in _own_parameters(layer)]
        trains = [parameter.requires_grad for parameter in own]
        self._exchange()
        for layer in self.adapters:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self.adapters:
                layer.enable_adapters(True)
            for parameter, flag in zip(own, trains, strict=True):  # PEFT has set them by its own rule
                parameter.requires_grad_(flag)
            self._exchange()

    def _exchange(self) -> None:
        """Lets weights and copies change places; nothing is copied."""
        for name, parameter in self.params.items():
            parameter.data, self.kept[name] = self.kept[name], parameter.data


def keep_base(trainable: Trainable, networks: Mapping[str, nn.Module]) -> BaseWeights:
    """Returns what makes the model its base again. Call it after the method was applied and before a weight moves."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = [module for network in networks.values() for module in network.modules()]
    adapters = tuple(module for module in modules if isinstance(module, BaseTunerLayer))
    switched = {id(parameter) for layer in adapters for parameter in _own_parameters(layer)}
    params = {name: parameter for name, parameter in trainable.params.items() if id(parameter) not in switched}
    kept = {name: parameter.detach().clone() for name, parameter in params.items()}
    return BaseWeights(adapters, params, kept)


def _own_parameters(layer: BaseTunerLayer) -> list[nn.Parameter]:
    """Returns the parameters of an adapter, without those of the layer that it wraps."""
    wrapped = {id(parameter) for parameter in layer.get_base_layer().parameters()}
    return [parameter for parameter in layer.parameters() if id(parameter) not in wrapped]

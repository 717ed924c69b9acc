"""LoHa and LoKr: the update of a layer by its equation, and layers that get it added to what they give.

The equations are those of LyCORIS (arXiv:2309.14859, section 3), which ComfyUI and A1111 follow. PEFT trains the same
by code of its own, so that each checks the other. What a file holds is used as it is: its shapes need not be PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Method = Literal["LoHa", "LoKr"]
Factor = Literal[
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
]  # fmt: skip
FACTORS: tuple[Factor, ...] = (
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
)  # fmt: skip
"""The ends of the tensors' names, in files and in PEFT's layers."""
_BUFFER = "lycoris_"
"""How the names of the buffers begin that :func:`attach` gives a layer."""


@dataclass(frozen=True)
class Lycoris:
    """The update of one layer: weight + scale * delta, of the factors of LoHa or LoKr."""

    factors: Mapping[Factor, Tensor]
    scale: float
    """alpha / rank; of a LoKr of two whole matrices 1, if the file is LyCORIS', whose readers pass over its alpha."""

    @property
    def method(self) -> Method:
        return "LoHa" if any(name.startswith("hada_") for name in self.factors) else "LoKr"

    @property
    def rank(self) -> int | None:
        """The width of the small matrices; None for a LoKr of two whole ones."""
        return rank_of({name: tuple(factor.shape) for name, factor in self.factors.items()})

    def change(self) -> Tensor:
        """Returns scale * delta, [outputs, inputs of all kinds] or [outputs, inputs, height, width].

        Raises ValueError where the factors are not those of one LoHa or LoKr, or do not fit together.
        """
        delta = _loha(self.factors) if self.method == "LoHa" else _lokr(self.factors)
        return self.scale * delta

    def shape(self) -> tuple[int, ...]:
        """Returns the shape of :meth:`change` without computing it; raises ValueError as it does."""
        return tuple(Lycoris({name: factor.to("meta") for name, factor in self.factors.items()}, 1.0).change().shape)


def rank_of(shapes: Mapping[Factor, tuple[int, ...]]) -> int | None:
    """Returns the width of the small matrices by the shapes of the factors; None for a LoKr of two whole ones."""
    names: tuple[Factor, ...] = ("hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((shapes[name][0] for name in names if len(shapes.get(name, ())) == 2), None)


def _loha(factors: Mapping[Factor, Tensor]) -> Tensor:
    """Returns (w1_a w1_b) * (w2_a w2_b), number by number (arXiv:2309.14859, equation 5)."""
    tucker = {"hada_t1", "hada_t2"} & factors.keys()
    _refuse_others(factors, "LoHa", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", *tucker)
    first = _product(factors["hada_w1_a"], factors["hada_w1_b"], factors.get("hada_t1"))
    second = _product(factors["hada_w2_a"], factors["hada_w2_b"], factors.get("hada_t2"))
    if first.shape != second.shape:
        raise ValueError(f"its two products are {list(first.shape)} and {list(second.shape)}")
    return first * second


def _lokr(factors: Mapping[Factor, Tensor]) -> Tensor:
    """Returns the Kronecker product of w1 and w2, over outputs and inputs (arXiv:2309.14859, equation 7)."""
    import torch

    small = ("lokr_w1",) if "lokr_w1" in factors else ("lokr_w1_a", "lokr_w1_b")
    split = ("lokr_w2_a", "lokr_w2_b", *({"lokr_t2"} & factors.keys()))
    _refuse_others(factors, "LoKr", *small, *(("lokr_w2",) if "lokr_w2" in factors else split))
    w1 = factors.get("lokr_w1")
    if w1 is None:
        w1 = _product(factors["lokr_w1_a"], factors["lokr_w1_b"], None)
    w2 = factors.get("lokr_w2")
    if w2 is None:
        w2 = _product(factors["lokr_w2_a"], factors["lokr_w2_b"], factors.get("lokr_t2"))
    if w1.dim() != 2 or w2.dim() not in (2, 4):
        raise ValueError(f"its matrices are {list(w1.shape)} and {list(w2.shape)}")
    return torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - 2)), w2)


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """Returns a b, or with a core (Tucker) [p, q] = sum over i, j of core[i, j] a[i, p] b[j, q] for each place."""
    import torch

    fits = a.dim() == b.dim() == 2
    if core is None:
        if not (fits and a.shape[1] == b.shape[0]):
            raise ValueError(f"its matrices {list(a.shape)} and {list(b.shape)} do not fit together")
        return a @ b
    if not (fits and core.dim() == 4 and core.shape[:2] == (a.shape[0], b.shape[0])):
        raise ValueError(f"its {list(a.shape)}, {list(b.shape)} and {list(core.shape)} do not fit together")
    return torch.einsum("ijkl,ip,jq->pqkl", core, a, b).contiguous()


def _refuse_others(factors: Mapping[Factor, Tensor], method: Method, *names: str) -> None:
    odd = sorted(factors.keys() ^ set(names))
    if odd:
        raise ValueError(f"{odd[0]} is missing or too much for a {method}")


# ------------------------------------------------------------------------------------------------------ on a layer
def fits(change: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Returns whether an update of shape ``change`` is one for ``weight``; 1x1 convolutions and linear are the same."""
    if len(change) == len(weight):
        return change == weight
    if len(change) == 2:
        inputs = weight[1] * weight[2] * weight[3]
        return change == (weight[0], inputs)
    return change == (*weight, 1, 1)


@dataclass
class Attached:
    """How strongly attached updates are used; it may be changed between two uses of the network."""

    weight: float


def attach(network: nn.Module, key: str, updates: Mapping[str, Lycoris], weight: float) -> Attached:
    """Adds ``weight`` times each update to what its layer gives, for as long as the network lives; 0 adds nothing.

    The factors are float32 buffers of the layer, so they move with the network, and no state dict holds them. A layer
    that PEFT has wrapped already keeps its adapters: the update is added to their sum.
    """
    attached = Attached(weight)
    for path, update in updates.items():
        layer = network.get_submodule(path)
        device = next(layer.parameters()).device
        names = {factor: f"{_BUFFER}{key}_{factor}" for factor in update.factors}
        for factor, name in names.items():
            layer.register_buffer(name, update.factors[factor].detach().to(device).float().clone(), persistent=False)
        layer.register_forward_hook(_adding(names, update.scale, attached, _operation(layer)))
    return attached


def _adding(
    names: Mapping[Factor, str], scale: float, attached: Attached, operation: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if attached.weight == 0:
            return output
        factors = {factor: layer.get_buffer(name) for factor, name in names.items()}
        change = Lycoris(factors, scale * attached.weight).change()
        return (output + operation(inputs[0].to(change.dtype), change)).to(output.dtype)

    return add


def _operation(layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what a layer does with its weight, without its bias."""
    import torch
    import torch.nn.functional as functional

    base = _base(layer)
    shape = tuple(base.get_parameter("weight").shape)
    if not isinstance(base, torch.nn.Conv2d):
        return lambda x, change: functional.linear(x, change.reshape(shape))
    stride, padding, dilation, groups = base.stride, base.padding, base.dilation, base.groups
    return lambda x, change: functional.conv2d(x, change.reshape(shape), None, stride, padding, dilation, groups)


def _base(layer: nn.Module) -> nn.Module:
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(layer, BaseTunerLayer):
        inner: nn.Module = layer.get_base_layer()
        return inner
    return layer


def adapted_layers(network: nn.Module) -> set[str]:
    """Returns the paths of the layers that carry an adapter: one of PEFT, of whatever kind, or an attached one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = {path for path, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
    buffers = (name.rpartition(".") for name, _ in network.named_buffers())
    return wrapped | {path for path, _, name in buffers if name.startswith(_BUFFER)}


def converted(updates: Mapping[str, Lycoris], dtype: torch.dtype) -> dict[str, Lycoris]:
    """Returns the updates rounded to a number format, in float32."""
    return {
        path: Lycoris({name: factor.to(dtype).float() for name, factor in update.factors.items()}, update.scale)
        for path, update in updates.items()
    }

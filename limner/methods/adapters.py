"""What the adapter methods do alike: places are checked by name, adapters of PEFT are added with a seed, in float32."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.core.rng import example_seed
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

ADAPTER_NAME = "default"  # the only name that diffusers' own metadata code knows


def check_targets(
    networks: Mapping[str, nn.Module], targets: Sequence[str], text_encoder_targets: Sequence[str] | None
) -> None:
    """Raises UserError for a target that matches no layer of its network; None: the text encoders get no adapter."""
    refuse_unmatched(networks["unet"], targets, "method.targets")
    if text_encoder_targets is not None:
        for part, network in networks.items():
            if part.startswith("text_encoder"):
                refuse_unmatched(network, text_encoder_targets, "method.text_encoder_targets")


def add_adapters(
    model: DiffusionModel,
    make_config: Callable[[list[str]], PeftConfig],
    *,
    targets: Sequence[str],
    text_encoder_targets: Sequence[str] | None,
    seed: int,
) -> dict[str, nn.Parameter]:
    """Adds an adapter to the denoiser and, with targets for them, the text encoders; returns its parameters by name.

    ``make_config`` makes PEFT's config of the names of layers. Nothing else of these networks trains afterwards.
    """
    check_targets({"unet": model.denoiser, **model.text_encoders}, targets, text_encoder_targets)
    params = add_adapter(model.denoiser, "unet", make_config(list(targets)), seed)
    if text_encoder_targets is not None:
        for part, encoder in model.text_encoders.items():
            params |= add_adapter(encoder, part, make_config(list(text_encoder_targets)), seed)
    return params


def add_adapter(network: nn.Module, part: str, config: PeftConfig, seed: int) -> dict[str, nn.Parameter]:
    """Adds an adapter, float32, to one network, of which nothing else trains then; returns its parameters by name."""
    import torch

    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(example_seed(seed, 0, f"adapter {part}"))
        network.add_adapter(config, adapter_name=ADAPTER_NAME)
    params = {f"{part}.{name}": value for name, value in network.named_parameters() if value.requires_grad}
    for parameter in params.values():
        parameter.data = parameter.data.to(torch.float32)  # the base may be in half precision
    return params


def refuse_unmatched(network: nn.Module, targets: Sequence[str], where: str) -> None:
    """Raises UserError for a target that matches no layer: PEFT is silent as long as another one matches."""
    import torch

    layers = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            ends = sorted({name.rpartition(".")[2] for name in layers if not name.rpartition(".")[2].isdigit()})
            close = difflib.get_close_matches(target, ends, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Layers end in: {', '.join(ends[:20])}."
            raise UserError(f"{target!r} matches no layer of {type(network).__name__}.", where=where, fix=hint)

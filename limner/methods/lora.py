"""Low-rank adapters (LoRA, arXiv:2106.09685; DoRA, arXiv:2402.09353) through PEFT."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rng import example_seed
from limner.methods.trainable import Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from torch import nn

ADAPTER_NAME = "default"  # the only name that diffusers' own metadata code knows


class Lora(Config):
    """Small matrices beside the attention layers train; the model's own weights stay as they are."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=4, ge=1, le=1024)
    """Width of the small matrices: more rank, more capacity and a larger file."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank. Unset: alpha = rank, a scale of 1."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability with which an input of the adapter is zeroed while training."""
    dora: bool = False
    """Train direction and magnitude apart (DoRA): closer to full fine-tuning, slower."""
    targets: tuple[str, ...] = Field(default=("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Layers of the denoiser that get an adapter, by the end of their names."""
    text_encoder: bool = False
    """Give the text encoder an adapter too."""
    text_encoder_targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "out_proj"), min_length=1)
    """Layers of the text encoder that get an adapter, by the end of their names."""
    text_encoder_lr_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the text encoder as a multiple of optimizer.lr."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision: none, the adapters have their own format."""
        return ()

    def check_targets(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises UserError for a target that matches no layer of the named ``networks``; these need no weights."""
        _refuse_unmatched(networks["unet"], self.targets, "method.targets")
        if self.text_encoder:
            for part, network in networks.items():
                if part.startswith("text_encoder"):
                    _refuse_unmatched(network, self.text_encoder_targets, "method.text_encoder_targets")

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Adds the adapters, float32, to the model; ``seed`` decides their first values."""
        self.check_targets({"unet": model.denoiser, **model.text_encoders})
        params = self._add(model.denoiser, "unet", self.targets, seed)
        if self.text_encoder:
            for part, encoder in model.text_encoders.items():
                params |= self._add(encoder, part, self.text_encoder_targets, seed)
        return Trainable(
            kind="lora",
            params=params,
            lr_scales=dict.fromkeys(model.text_encoders, self.text_encoder_lr_scale),
            waits=frozenset(name for name in params if ".lora_A." in name),
        )

    def _add(self, network: nn.Module, part: str, targets: Sequence[str], seed: int) -> dict[str, nn.Parameter]:
        import torch
        from peft import LoraConfig

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            use_dora=self.dora,
            target_modules=list(targets),
        )
        network.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(example_seed(seed, 0, f"adapter {part}"))
            network.add_adapter(config, adapter_name=ADAPTER_NAME)
        params = {f"{part}.{name}": value for name, value in network.named_parameters() if value.requires_grad}
        for parameter in params.values():
            parameter.data = parameter.data.to(torch.float32)  # the base may be in half precision
        return params


def _refuse_unmatched(network: nn.Module, targets: Sequence[str], where: str) -> None:
    """PEFT is silent about a target that matches nothing as long as another one matches."""
    import torch

    layers = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            ends = sorted({name.rpartition(".")[2] for name in layers if not name.rpartition(".")[2].isdigit()})
            close = difflib.get_close_matches(target, ends, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Layers end in: {', '.join(ends[:20])}."
            raise UserError(f"{target!r} matches no layer of {type(network).__name__}.", where=where, fix=hint)

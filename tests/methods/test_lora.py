from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limner.core.errors import UserError
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(folder: Path) -> SD1Model:
    return SD1(path=str(folder)).load()


def test_at_the_real_size_the_defaults_train_797184_numbers() -> None:
    """The settings of Stable Diffusion 1.4's denoiser, as published; the meta device holds no numbers."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
        defaults = Lora()
        unet.requires_grad_(False)
        unet.add_adapter(
            LoraConfig(r=defaults.rank, lora_alpha=defaults.rank, target_modules=list(defaults.targets)),
        )
    assert sum(p.numel() for p in unet.parameters() if not p.requires_grad) == 859_520_964
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) == 797_184


def test_only_the_adapters_train(model: SD1Model) -> None:
    trainable = Lora(rank=2, text_encoder=True).apply(model, seed=0)
    training = {
        f"{part}.{name}"
        for part, net in model.networks.items()
        for name, p in net.named_parameters()
        if p.requires_grad
    }
    assert set(trainable.params) == training
    assert all(".lora_" in name for name in training)
    assert trainable.parts == ("unet", "text_encoder")
    assert trainable.trains_text


def test_the_first_values_depend_on_the_seed_alone(folder: Path) -> None:
    def values(seed: int, before: int) -> torch.Tensor:
        torch.manual_seed(before)
        params = Lora().apply(SD1(path=str(folder)).load(), seed=seed).params
        return torch.cat([p.detach().flatten() for name, p in params.items() if ".lora_A." in name])

    assert torch.equal(values(0, 1), values(0, 2))
    assert not torch.equal(values(0, 1), values(1, 1))


def test_trained_weights_are_float32_on_a_base_in_half_precision(model: SD1Model) -> None:
    model.to(torch.device("cpu"), torch.bfloat16)
    trainable = Lora().apply(model, seed=0)
    assert {p.dtype for p in trainable.params.values()} == {torch.float32}
    assert model.unet.conv_in.weight.dtype == torch.bfloat16


def test_a_target_that_matches_nothing_is_an_error_even_beside_one_that_matches(model: SD1Model) -> None:
    with pytest.raises(UserError, match=r"method\.targets: 'to_qq' matches no layer of UNet.*Did you mean 'to_q'"):
        Lora(targets=("to_q", "to_qq")).apply(model, seed=0)


def test_alpha_and_dora_reach_the_layers(model: SD1Model) -> None:
    trainable = Lora(rank=4, alpha=2, dora=True, targets=("to_q", "conv1")).apply(model, seed=0)
    layer = model.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    assert layer.scaling["default"] == 0.5
    assert any("magnitude" in name for name in trainable.params)
    assert any("conv1.lora_A" in name for name in trainable.params)


def test_full_trains_the_denoiser_and_the_text_encoder_only_if_asked(model: SD1Model) -> None:
    assert Full().apply(model, seed=0).parts == ("unet",)
    trainable = Full(text_encoder=True, text_encoder_lr_scale=0.1).apply(model, seed=0)
    assert trainable.parts == ("unet", "text_encoder")
    assert trainable.lr_scales == {"text_encoder": 0.1}
    assert not any(p.requires_grad for p in model.vae.parameters())


def test_weights_that_half_precision_has_rounded_are_not_trained(model: SD1Model) -> None:
    model.to(torch.device("cpu"), torch.bfloat16)
    with pytest.raises(ValueError, match="half precision already"):
        Full().apply(model, seed=0)


def test_a_full_method_keeps_what_it_trains_in_float32(model: SD1Model) -> None:
    method = Full(text_encoder=True)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    model.to(torch.device("cpu"), torch.bfloat16, float32=method.float32_parts(model))
    trainable = method.apply(model, seed=0)
    assert all(torch.equal(trainable.params[f"unet.{name}"], value) for name, value in before.items())

"""What holds for every adapter method: only adapters train, by the seed alone, in float32; idle options are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limner.core.errors import UserError
from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out", "proj_in")
METHODS = {
    "lora": Lora(rank=2, text_encoder=True, targets=("to_q", *CONVOLUTIONS)),
    "dora": Lora(rank=2, text_encoder=True, targets=("to_q", *CONVOLUTIONS), dora=True),
    "loha": Loha(rank=2, text_encoder=True, targets=("to_q", *CONVOLUTIONS)),
    "lokr": Lokr(rank=2, text_encoder=True, targets=("to_q", *CONVOLUTIONS)),
}
Adapter = Lora | Loha | Lokr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(folder: Path) -> SD1Model:
    return SD1(path=str(folder)).load()


def adapted(names: list[str]) -> set[str]:
    return {name.partition(".lora_")[0].partition(".hada_")[0].partition(".lokr_")[0] for name in names}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_only_the_adapters_train_on_every_named_convolution(model: SD1Model, method: Adapter) -> None:
    layers = {
        f"unet.{name}"
        for name, layer in model.unet.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        and (name in CONVOLUTIONS or name.endswith(tuple(f".{end}" for end in ("to_q", *CONVOLUTIONS))))
    }
    trainable = method.apply(model, seed=0)
    training = {
        f"{part}.{n}" for part, net in model.networks.items() for n, p in net.named_parameters() if p.requires_grad
    }
    assert set(trainable.params) == training
    assert adapted([name for name in training if name.startswith("unet.")]) == layers
    assert {"unet.conv_in", "unet.conv_out", "unet.down_blocks.0.downsamplers.0.conv"} <= layers
    assert trainable.kind == method.kind
    assert trainable.parts == ("unet", "text_encoder")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_first_values_depend_on_the_seed_alone_and_change_nothing(folder: Path, method: Adapter) -> None:
    def values(seed: int, before: int) -> torch.Tensor:
        torch.manual_seed(before)
        return torch.cat([p.detach().flatten() for p in method.apply(fresh, seed=seed).params.values()])

    found = []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        fresh = SD1(path=str(folder)).load()
        found.append(values(seed, before))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_adapters_are_float32_on_a_base_in_half_precision(model: SD1Model, method: Adapter) -> None:
    model.to(torch.device("cpu"), torch.bfloat16, float32=method.float32_parts(model))
    trainable = method.apply(model, seed=0)
    assert {p.dtype for p in trainable.params.values()} == {torch.float32}
    assert {p.dtype for p in model.unet.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("kind", [Lora, Loha, Lokr])
def test_a_target_that_matches_nothing_is_an_error(model: SD1Model, kind: type[Adapter]) -> None:
    with pytest.raises(UserError, match=r"method\.targets: 'conv3' matches no layer of UNet"):
        kind(targets=("to_q", "conv3")).apply(model, seed=0)
    with pytest.raises(UserError, match=r"method\.text_encoder_targets: 'to_q' matches no layer of CLIP"):
        kind(text_encoder=True, text_encoder_targets=("to_q",)).apply(model, seed=0)


def test_options_of_lokr_reach_the_layers(model: SD1Model) -> None:
    trainable = Lokr(
        rank=1, alpha=3, decompose_factor=4, decompose_both=True, use_effective_conv2d=True, targets=("to_q", "conv1")
    ).apply(model, seed=0)
    conv = "unet.down_blocks.1.resnets.0.conv1.lokr"  # 32 to 64 channels, 3x3
    shapes = {name.removesuffix(".default"): tuple(p.shape) for name, p in trainable.params.items() if conv in name}
    assert shapes == {
        f"{conv}_w1_a": (4, 1), f"{conv}_w1_b": (1, 4),
        f"{conv}_w2_a": (1, 16), f"{conv}_w2_b": (1, 8), f"{conv}_t2": (1, 1, 3, 3),
    }  # fmt: skip
    assert model.unet.get_submodule(conv.removeprefix("unet.").removesuffix(".lokr")).scaling == {"default": 3.0}


@pytest.mark.parametrize(
    ("method", "option"),
    [(Lokr(use_effective_conv2d=True), "use_effective_conv2d"), (Lokr(rank=16, decompose_both=True), "decompose_both")],
)
def test_an_option_of_lokr_that_splits_nothing_is_refused(model: SD1Model, method: Lokr, option: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{option}: splits no matrix of these layers"):
        method.apply(model, seed=0)


def test_peft_still_computes_the_gradient_of_a_tucker_loha_wrongly() -> None:
    """The reason why ``loha`` does not offer use_effective_conv2d; offer it when this fails."""
    from peft.tuners.loha.layer import make_weight_cp

    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 3, 3), (2, 5), (2, 4), (2, 2, 3, 3), (2, 5), (2, 4))
    factors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    weights = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64)

    def by_equation(t1: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *second: torch.Tensor) -> torch.Tensor:
        t2, c, d = second
        return torch.einsum("ijkl,ip,jq->pqkl", t1, a, b) * torch.einsum("ijkl,ip,jq->pqkl", t2, c, d)

    found = []
    for product in (by_equation, lambda *f: make_weight_cp(*f, torch.tensor(1.0, dtype=torch.float64))):
        leaves = [factor.clone().requires_grad_() for factor in factors]
        update = product(*leaves)
        found.append((update.detach(), torch.autograd.grad((update * weights).sum(), leaves)))
    (update, right), (peft_update, wrong) = found
    torch.testing.assert_close(peft_update, update)
    same = [bool(torch.allclose(one, other)) for one, other in zip(right, wrong, strict=True)]
    assert same == [True, False, True, True, False, True]

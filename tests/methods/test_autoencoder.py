from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limner.builtin.drawings import draw_folder
from limner.methods.autoencoder import Autoencoder
from limner.models.sd1 import SD1, SD1Model
from limner.run import finetune
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny

DECODER = ("decoder.", "post_quant_conv.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = tmp_path_factory.mktemp("drawings")
    draw_folder(pictures, count=4)
    return pictures


def trained(folder: Path, drawings: Path, out: Path, encoder: bool) -> SD1Model:
    """Returns what three steps make of the model, as its export reads back."""
    config = run_config(
        folder,
        drawings,
        out,
        method={"kind": "autoencoder", "encoder": encoder},
        objective={"kind": "reconstruction"},
        train={"steps": 3, "ema_decay": None},
        export=None,
    )
    result = finetune(config)
    assert result.step == 3
    (export,) = result.exports
    assert export.max_error < 1e-5
    assert export.effect > 1e-4
    return SD1(path=str(export.path)).load()


def moments(model: SD1Model) -> torch.Tensor:
    return model.encode_images(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)


@pytest.mark.parametrize("encoder", [False, True])
def test_only_the_decoder_trains_unless_the_encoder_is_asked_for(folder: Path, encoder: bool) -> None:
    model = SD1(path=str(folder)).load()
    trainable = Autoencoder(encoder=encoder).apply(model, seed=0)
    training = {
        f"{part}.{name}"
        for part, network in model.networks.items()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    assert set(trainable.params) == training
    names = {name for name, _ in model.vae.named_parameters()}
    expected = names if encoder else {name for name in names if name.startswith(DECODER)}
    assert training == {f"vae.{name}" for name in expected}
    assert {name.partition(".")[0] for name in names - expected} == (set() if encoder else {"encoder", "quant_conv"})
    assert (trainable.kind, trainable.parts, trainable.trains_text) == ("autoencoder", ("vae",), False)


def test_training_the_decoder_leaves_every_bit_of_the_latents(folder: Path, drawings: Path, tmp_path: Path) -> None:
    before = SD1(path=str(folder)).load()
    after = trained(folder, drawings, tmp_path / "run", encoder=False)
    assert torch.equal(moments(after), moments(before))
    for name, value in before.vae.state_dict().items():
        assert torch.equal(after.vae.state_dict()[name], value) != name.startswith(DECODER), name
    for part in ("unet", "text_encoder"):
        weights = after.networks[part].state_dict()
        assert all(torch.equal(weights[name], value) for name, value in before.networks[part].state_dict().items())


def test_training_the_encoder_too_moves_every_tensor(folder: Path, drawings: Path, tmp_path: Path) -> None:
    before = SD1(path=str(folder)).load()
    after = trained(folder, drawings, tmp_path / "run", encoder=True)
    assert not torch.equal(moments(after), moments(before))
    weights = after.vae.state_dict()
    assert not [name for name, value in before.vae.state_dict().items() if torch.equal(weights[name], value)]


def test_the_autoencoder_stays_in_float32_whatever_the_precision(folder: Path) -> None:
    model = SD1(path=str(folder)).load()
    method = Autoencoder(encoder=True)
    model.to(torch.device("cpu"), torch.bfloat16, float32=method.float32_parts(model))
    assert {parameter.dtype for parameter in method.apply(model, seed=0).params.values()} == {torch.float32}
    assert model.unet.conv_in.weight.dtype == torch.bfloat16

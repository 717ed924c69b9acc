"""Reconstruction against its formula, written out a second time in numpy around diffusers' own autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from limner.core.rng import tensor_stream
from limner.data.batch import Batch
from limner.methods.autoencoder import Autoencoder
from limner.models.sd1 import SD1, SD1Model
from limner.training.objectives import Denoising, Reconstruction
from limner.training.precision import Precision

PRECISION = Precision("fp32", torch.device("cpu"))
SEED = 4


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SD1Model:
    return SD1(path=str(tiny_model)).load()


def batch(positions: Sequence[int]) -> Batch:
    generators = [torch.Generator().manual_seed(position) for position in positions]
    return Batch(
        positions=tuple(positions),
        ids=tuple(f"{position}.png" for position in positions),
        captions=tuple("" for _ in positions),
        images=torch.stack([torch.rand(3, 16, 24, generator=generator) * 2 - 1 for generator in generators]),
        conditioning=None,
        weights=torch.tensor([1.0 if position % 2 else 0.3 for position in positions]),
    )


def losses(model: SD1Model, one: Batch, seed: int = SEED, **settings: float) -> torch.Tensor:
    with torch.no_grad():
        return Reconstruction(**settings).losses(model, one, seed=seed, precision=PRECISION)


def terms(model: SD1Model, position: int) -> tuple[float, float, float]:
    """Returns the error of pixels, that of differences and the divergence of one picture."""
    pixels = batch([position]).images
    with torch.no_grad():
        posterior = model.vae.encode(pixels).latent_dist
        eps = torch.randn(posterior.mean.shape[1:], generator=tensor_stream(SEED, position, "latent"))
        rebuilt = model.vae.decode(posterior.mean + posterior.std * eps).sample
    x, y = pixels[0].double().numpy(), rebuilt[0].double().numpy()
    down = np.abs((y[:, 1:, :] - y[:, :-1, :]) - (x[:, 1:, :] - x[:, :-1, :])).mean()
    across = np.abs((y[:, :, 1:] - y[:, :, :-1]) - (x[:, :, 1:] - x[:, :, :-1])).mean()
    mean, std = posterior.mean[0].double().numpy(), posterior.std[0].double().numpy()
    nats = (mean**2 + std**2) / 2 - 0.5 - np.log(std)  # KL(N(mean, std) || N(0, 1))
    return float(np.abs(y - x).mean()), float((down + across) / 2), float(nats.mean())


@pytest.mark.parametrize(
    ("edges", "kl"), [(0, 0), (1, 0), (0, 1), (2.5, 0.3)], ids=["pixels", "edges", "divergence", "all"]
)
def test_the_loss_is_its_formula_term_by_term(model: SD1Model, edges: float, kl: float) -> None:
    found = losses(model, batch(range(3)), edges=edges, kl=kl).tolist()
    for position, (loss, weight) in enumerate(zip(found, (0.3, 1.0, 0.3), strict=True)):
        pixels, differences, nats = terms(model, position)
        assert min(pixels, differences, nats) > 0.01  # each can be seen
        assert loss == pytest.approx(weight * (pixels + edges * differences + kl * nats), rel=1e-5)


def test_the_defaults_are_one_for_edges_and_a_little_divergence(model: SD1Model) -> None:
    assert torch.equal(losses(model, batch([1])), losses(model, batch([1]), edges=1.0, kl=1e-4))


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("split", [[1] * 4, [3, 1], [1, 3]])
def test_any_split_of_a_batch_gives_the_gradient_of_the_whole(
    tiny_model: Path, encoder: bool, split: list[int]
) -> None:
    model = SD1(path=str(tiny_model)).load()
    trainable = Autoencoder(encoder=encoder).apply(model, seed=0)
    backward = Reconstruction(kl=0.1).backward(model, seed=SEED, precision=PRECISION, scale=lambda loss: loss)

    def gradients(sizes: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
        for parameter in trainable.params.values():
            parameter.grad = None
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        loss = backward([batch(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)])["loss"]
        return loss, {name: p.grad.clone() for name, p in trainable.params.items() if p.grad is not None}

    whole_loss, whole = gradients([4])
    loss, parts = gradients(split)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert whole.keys() == parts.keys() == trainable.params.keys()
    largest = max(float(gradient.norm()) for gradient in whole.values())
    for name, gradient in whole.items():  # the attention's key bias has no gradient but rounding
        assert float((parts[name] - gradient).norm()) < 1e-4 * float(gradient.norm()) + 1e-6 * largest, name


def test_the_noise_belongs_to_the_position_and_the_seed(model: SD1Model) -> None:
    one = batch([5, 6])
    first = losses(model, one)
    assert torch.equal(losses(model, one), first)
    torch.testing.assert_close(losses(model, batch([6, 5])), first.flip(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(losses(model, batch([6])), first[1:], rtol=1e-5, atol=0)
    assert not torch.allclose(losses(model, one, seed=SEED + 1), first, rtol=1e-5)
    moved = Batch((7, 8), one.ids, one.captions, one.images, None, one.weights)
    assert not torch.allclose(losses(model, moved), first, rtol=1e-5)


def test_a_posterior_far_from_normal_gives_finite_losses(tiny_model: Path) -> None:
    model = SD1(path=str(tiny_model)).load()
    for log_variance in (-100.0, 100.0):
        model.vae.quant_conv.weight.data[4:] = 0
        model.vae.quant_conv.bias.data[4:] = log_variance
        assert bool(losses(model, batch([1, 2])).isfinite().all())


def test_a_timestep_bias_makes_the_loss_look_at_noisier_pictures(model: SD1Model) -> None:
    moments = batch(range(200))
    moments = replace(moments, images=torch.zeros(200, 8, 2, 2))
    drawn = {
        bias: Denoising(timestep_bias=bias).draw(model, moments, seed=SEED)[2].double().mean() / 1000
        for bias in (-0.5, 0.0, 2.0)
    }
    for bias, mean in drawn.items():
        assert abs(mean - (1 + bias) / (2 + bias)) < 0.08, bias  # the mean of a density that grows as t^bias

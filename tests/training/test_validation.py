"""The validation loss against the same thing written out plainly with diffusers, and what must not move it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from limner.builtin.drawings import draw_folder
from limner.core.errors import NonFiniteError
from limner.core.rng import example_seed, tensor_stream
from limner.data.buckets import ImageConfig
from limner.data.cache import TensorCache
from limner.data.folder import Folder
from limner.data.ledger import Prepared, survey
from limner.data.order import Order
from limner.models.clip import Clip, ClipModel
from limner.models.sd1 import SD1, SD1Model
from limner.training.contrastive import Contrastive
from limner.training.feed import Feed
from limner.training.objectives import Denoising, Reconstruction
from limner.training.precision import Precision
from limner.training.validation import HeldOut, Validation, timestep_of
from tests.tiny import save_tiny_clip

PRECISION = Precision("fp32", torch.device("cpu"))
SEED, DRAWS = 5, 3
IMAGES = ImageConfig(resolution=32, bucket_step=8, crop="random", flip=True)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SD1Model:
    return SD1(path=str(tiny_model)).load()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    return Clip(path=str(save_tiny_clip(tmp_path_factory.mktemp("clip") / "model"))).load()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw_folder(folder, count=5)
    with Image.open(folder / "01.png") as image:
        image.convert("RGB").crop((0, 90, 256, 150)).save(folder / "01.png")
    return folder


@pytest.fixture(scope="module")
def pictures(photos: Path) -> tuple[Prepared, ...]:
    reading = Folder(path=photos).read()
    prepared = survey(reading, IMAGES, count_tokens=None, token_limit=77, cache=None).prepared
    assert len({picture.bucket for picture in prepared}) == 2
    # what a visit while training varies and a measurement does not
    return tuple(
        dataclasses.replace(
            one, example=dataclasses.replace(one.example, weight=0.3, captions=(*one.example.captions, "no"))
        )
        for one in prepared
    )


def held_out(
    model: Any, pictures: Sequence[Prepared], objective: Denoising | Reconstruction | Contrastive, **changes: Any
) -> HeldOut:
    settings: dict[str, Any] = {"micro_batch_size": 2, "batch_size": 2, "caption_dropout": 1.0, "cached": True}
    settings |= changes
    feed = Feed(
        slots=tuple(pictures),
        order=Order([0] * len(pictures), batch_size=1, seed=SEED),
        images=IMAGES,
        micro_batch_size=settings["micro_batch_size"],
        caption_dropout=settings["caption_dropout"],
        seed=SEED,
        model=model,
        precision=PRECISION,
        latents=TensorCache(None),
        captions=TensorCache(None) if settings["cached"] and objective.kind == "denoising" else None,
        reads=objective.reads,
    )
    return HeldOut(tuple(pictures), objective, feed, DRAWS, settings["batch_size"])


def measure(*args: Any, **changes: Any) -> float:
    return held_out(*args, **changes).measure(lambda done, total: None).loss


def pixels_of(picture: Prepared, root: Path) -> torch.Tensor:
    """Returns the middle of a picture at the size of its bucket, [1, 3, H, W] in [-1, 1]."""
    with Image.open(root / picture.example.id) as file:
        image = file.convert("RGB")
    width, height = picture.bucket
    scale = max(width / image.width, height / image.height)
    size = round(image.width * scale), round(image.height * scale)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    data = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(height, width, 3)
    return (data.permute(2, 0, 1) / 127.5 - 1)[None]


def noise(name: str, draw: int, purpose: str, like: torch.Tensor) -> torch.Tensor:
    return torch.randn(
        like.shape[1:], generator=tensor_stream(SEED, example_seed(SEED, draw, f"validation {name}"), purpose)
    )


def test_the_denoising_loss_is_that_of_diffusers_own_parts(
    model: SD1Model, pictures: Sequence[Prepared], tiny_model: Path, photos: Path
) -> None:
    vae = AutoencoderKL.from_pretrained(tiny_model, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(tiny_model, subfolder="unet")
    text = CLIPTextModel.from_pretrained(tiny_model, subfolder="text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_model, subfolder="tokenizer")
    scheduler = DDIMScheduler.from_pretrained(tiny_model, subfolder="scheduler")
    losses: list[list[float]] = [[], [], []]
    for picture in pictures:
        name = picture.example.id
        tokens = tokenizer(picture.example.captions[0], padding="max_length", truncation=True, return_tensors="pt")
        for draw in range(DRAWS):
            with torch.no_grad():
                posterior = vae.encode(pixels_of(picture, photos)).latent_dist
                latents = (posterior.mean + posterior.std * noise(name, draw, "latent", posterior.mean)) * 0.18215
                eps = noise(name, draw, "noise", latents)[None]
                t = torch.tensor([timestep_of(SEED, name, draw, DRAWS, 1000)])
                noisy = scheduler.add_noise(latents, eps, t)
                losses[draw].append(float(functional.mse_loss(unet(noisy, t, text(tokens.input_ids)[0]).sample, eps)))
    found = held_out(model, pictures, Denoising(caption_dropout=1.0)).measure(lambda done, total: None)
    assert found.loss == pytest.approx(sum(map(sum, losses)) / (DRAWS * len(pictures)), rel=2e-5)
    assert found.by_timestep == pytest.approx([sum(values) / len(pictures) for values in losses], rel=2e-5)


@pytest.mark.parametrize("objective", [Denoising(offset_noise=0.1, min_snr_gamma=5), Reconstruction()])
def test_neither_order_nor_micro_batches_nor_caches_move_the_loss(
    model: SD1Model, pictures: Sequence[Prepared], objective: Denoising | Reconstruction
) -> None:
    first = measure(model, pictures, objective)
    assert measure(model, pictures, objective) == first
    assert measure(model, pictures, objective, micro_batch_size=5) == pytest.approx(first, rel=1e-5)
    assert measure(model, pictures, objective, cached=False) == pytest.approx(first, rel=1e-5)
    alone = measure(model, pictures, objective, micro_batch_size=1)
    assert alone == pytest.approx(first, rel=1e-5)
    assert measure(model, pictures[::-1], objective, micro_batch_size=1) == alone
    fewer = measure(model, pictures[1:], objective), measure(model, pictures[:1], objective)
    assert (fewer[0] * (len(pictures) - 1) + fewer[1]) / len(pictures) == pytest.approx(first, rel=1e-5)


def test_each_draw_has_its_part_of_the_timesteps_and_pictures_differ() -> None:
    drawn = [[timestep_of(1, f"{n}.png", draw, 4, 1000) for n in range(200)] for draw in range(4)]
    for draw, values in enumerate(drawn):
        assert 250 * draw <= min(values) < 250 * draw + 25
        assert 250 * draw + 225 <= max(values) < 250 * (draw + 1)
    assert timestep_of(2, "0.png", 0, 4, 1000) != drawn[0][0]
    assert {timestep_of(1, "0.png", draw, 3, 2) for draw in range(3)} == {0, 1}


@pytest.mark.parametrize("objective", [Denoising(), Reconstruction()])
def test_a_measurement_leaves_no_trace(
    model: SD1Model, pictures: Sequence[Prepared], objective: Denoising | Reconstruction
) -> None:
    model.unet.requires_grad_(True)
    model.train_mode(["unet"])
    grads = {name: torch.full_like(parameter, 2.0) for name, parameter in model.unet.named_parameters()}
    for name, parameter in model.unet.named_parameters():
        parameter.grad = grads[name]
    modes = [module.training for network in model.networks.values() for module in network.modules()]
    stream = torch.random.get_rng_state()
    measure(model, pictures, objective)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert [module.training for network in model.networks.values() for module in network.modules()] == modes
    assert any(modes)
    assert all(
        parameter.grad is grads[name] and bool((grads[name] == 2).all())
        for name, parameter in model.unet.named_parameters()
    )
    model.unet.requires_grad_(False).zero_grad(set_to_none=True)
    model.train_mode([])


def test_dropout_is_off(model: SD1Model, pictures: Sequence[Prepared]) -> None:
    before = measure(model, pictures, Denoising())
    dropouts = [module for module in model.unet.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts
    for module in dropouts:
        module.p = 0.5
    model.train_mode(["unet"])
    assert measure(model, pictures, Denoising()) == before
    for module in dropouts:
        module.p = 0.0
    model.train_mode([])


@pytest.mark.parametrize(("batch_size", "batches"), [(2, [2, 3]), (3, [2, 3]), (8, [5])])
def test_the_contrastive_loss_is_the_mean_over_fixed_batches(
    clip: ClipModel, pictures: Sequence[Prepared], batch_size: int, batches: list[int]
) -> None:
    square = [dataclasses.replace(picture, bucket=(32, 32)) for picture in pictures]
    assert len(square) == 5
    ours = held_out(clip, square, Contrastive(), batch_size=batch_size)
    seen: list[tuple[str, ...]] = []
    total = 0.0
    for group in ours.batches():
        batch = ours.feed.batch(group)
        seen.append(batch.ids)
        with torch.no_grad():
            similar = clip.embed_images(batch.images) @ clip.embed_prompts(batch.captions).T * clip.logit_scale.exp()
        own = torch.arange(len(group))
        both = functional.cross_entropy(similar, own), functional.cross_entropy(similar.T, own)
        total += float(sum(both)) / 2 * len(group)
    assert sorted(map(len, seen)) == batches
    assert sorted(name for names in seen for name in names) == sorted(picture.example.id for picture in square)
    found = ours.measure(lambda done, total: None)
    assert found.loss == pytest.approx(total / 5, rel=1e-5)
    assert found.by_timestep == ()
    assert measure(clip, square[::-1], Contrastive(), batch_size=batch_size) == found.loss


def test_pictures_of_one_class_are_not_told_apart_when_held_out(clip: ClipModel, pictures: Sequence[Prepared]) -> None:
    square = [dataclasses.replace(picture, bucket=(32, 32)) for picture in pictures]
    alike = [dataclasses.replace(one, example=dataclasses.replace(one.example, group="cat")) for one in square]
    ours = held_out(clip, alike, Contrastive(), batch_size=8)
    batch = ours.feed.batch(ours.batches()[0])
    with torch.no_grad():
        similar = clip.embed_images(batch.images) @ clip.embed_prompts(batch.captions).T * clip.logit_scale.exp()
    expected = -sum(rows.log_softmax(1).mean(1).mean() for rows in (similar, similar.T)) / 2  # each fits each
    assert ours.measure(lambda done, total: None).loss == pytest.approx(float(expected), rel=1e-5)
    naive = measure(clip, square, Contrastive(), batch_size=8)
    assert measure(clip, alike, Contrastive(positives="own"), batch_size=8) == naive != pytest.approx(float(expected))


def test_half_precision_rounds_no_more_than_while_training(tmp_path: Path, pictures: Sequence[Prepared]) -> None:
    clip = Clip(path=str(save_tiny_clip(tmp_path / "model"))).load()
    half = Precision("bf16", torch.device("cpu"))
    clip.to(half.device, half.dtype, float32=("vision_model", "visual_projection"))
    square = [dataclasses.replace(picture, bucket=(32, 32)) for picture in pictures]
    ours = held_out(clip, square, Contrastive(), batch_size=8)
    ours = dataclasses.replace(ours, feed=dataclasses.replace(ours.feed, precision=half))
    batch = dataclasses.replace(ours.feed.batch(ours.batches()[0]), weights=torch.ones(len(square)))
    with torch.no_grad():
        plain = Contrastive().losses(clip, batch, precision=half).mean()
    assert ours.measure(lambda done, total: None).loss == pytest.approx(float(plain), rel=1e-6)


def test_a_loss_that_is_no_number_names_its_picture(model: SD1Model, pictures: Sequence[Prepared]) -> None:
    ours = held_out(model, pictures, Denoising())
    name = pictures[2].example.id
    good = Denoising.losses

    class Spoilt(Denoising):
        def losses(self, model: Any, batch: Any, **more: Any) -> torch.Tensor:
            losses = good(self, model, batch, **more)
            return torch.where(torch.tensor([one == name for one in batch.ids]), losses * float("nan"), losses)

    with pytest.raises(NonFiniteError, match=rf"^the validation loss of {name} is not a finite number") as caught:
        dataclasses.replace(ours, objective=Spoilt()).measure(lambda done, total: None)
    assert pictures[1].example.id not in str(caught.value)


def test_an_improvement_that_nobody_waits_for_is_refused() -> None:
    with pytest.raises(ValueError, match="min_improvement does nothing without patience"):
        Validation(min_improvement=0.01)
    assert Validation(patience=3, every=10).warnings(31) == []
    assert "before step 30" in Validation(patience=3, every=10).warnings(30)[0]

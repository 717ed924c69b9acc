"""Pictures depend on what was asked, never on how it was asked; and drawing them leaves no trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from limner.core.errors import UserError
from limner.evaluation.generate import GenerateRequest, generate
from limner.evaluation.picture import Picture, read_picture, save_picture
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.embedding_files import EmbeddingRef, load_embeddings
from limner.models.schedulers import A1111_NAMES, SCHEDULERS
from limner.models.sd1 import SD1Model

REQUEST = GenerateRequest(prompts=("a red circle",), seed=5, steps=2, size=(32, 32))


def levels(first: Picture, second: Picture) -> int:
    return int(np.abs(np.asarray(first.image).astype(int) - np.asarray(second.image).astype(int)).max())


def draw(model: SD1Model, batch_size: int = 1, **changes: object) -> list[Picture]:
    return list(generate(model, dataclasses.replace(REQUEST, **changes), batch_size=batch_size))


# ------------------------------------------------------------------------------------------------------- the picture
def test_the_picture_is_the_one_that_diffusers_draws(model: SD1Model, model_folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model_folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a red circle",
        negative_prompt="blue",
        num_inference_steps=3,
        guidance_scale=4.0,
        width=48,
        height=32,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    (drawn,) = draw(model, negative="blue", steps=3, guidance=4.0, size=(48, 32))
    assert np.abs(np.asarray(drawn.image).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    assert drawn.image.size == (48, 32)


@pytest.mark.parametrize("scheduler", ["", *SCHEDULERS])
def test_picture_k_is_the_same_alone_and_in_a_batch(model: SD1Model, scheduler: str) -> None:
    alone = [draw(model, scheduler=scheduler, seed=5 + k, steps=3)[0] for k in range(2)]
    together = draw(model, scheduler=scheduler, seed=5, count=2, steps=3, batch_size=2)
    for k in range(2):
        assert levels(alone[k], together[k]) <= 1
        assert alone[k].settings == together[k].settings
    assert levels(alone[0], alone[1]) > 20
    assert alone[0].settings.sampler == A1111_NAMES[scheduler or "ddim"]


def test_a_count_that_the_batch_does_not_divide_draws_every_picture(model: SD1Model) -> None:
    alone = [draw(model, seed=5 + k)[0] for k in range(3)]
    uneven = draw(model, seed=5, count=3, batch_size=2)
    assert [levels(first, second) <= 1 for first, second in zip(alone, uneven, strict=True)] == [True] * 3


def test_prompts_have_the_same_seeds_so_that_they_compare(model: SD1Model) -> None:
    pictures = draw(model, prompts=("a red circle", "a blue square"), count=2)
    assert [(p.settings.prompt, p.settings.seed) for p in pictures] == [
        ("a red circle", 5),
        ("a red circle", 6),
        ("a blue square", 5),
        ("a blue square", 6),
    ]
    assert levels(pictures[2], draw(model, prompts=("a blue square",))[0]) <= 1


def test_spread_seeds_go_on_from_prompt_to_prompt_and_the_pictures_are_those_drawn_alone(model: SD1Model) -> None:
    prompts = ("a red circle", "a blue square")
    pictures = draw(model, prompts=prompts, count=2, spread=True, batch_size=4)
    assert [(p.settings.prompt, p.settings.seed) for p in pictures] == [
        ("a red circle", 5), ("a red circle", 6), ("a blue square", 7), ("a blue square", 8)
    ]  # fmt: skip
    for picture in pictures:
        alone = draw(model, prompts=(picture.settings.prompt,), seed=picture.settings.seed)[0]
        assert levels(picture, alone) <= 1


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_told_and_draws_the_picture_again(model: SD1Model, seed: int | None) -> None:
    first, second = draw(model, seed=seed)[0], draw(model, seed=seed)[0]
    assert first.settings.seed != second.settings.seed
    assert levels(first, draw(model, seed=first.settings.seed)[0]) == 0


def test_without_a_size_the_models_own_is_drawn(model: SD1Model) -> None:
    assert draw(model, size=None)[0].image.size == (model.default_size, model.default_size)


def test_the_file_says_how_the_picture_was_made(model: SD1Model, tmp_path: Path) -> None:
    (picture,) = draw(model, negative="blue")
    found = read_picture(save_picture(picture, tmp_path / "x.png"))
    assert found.settings == picture.settings
    assert (found.parameters["Seed"], found.parameters["Size"], found.parameters["Model"]) == (
        "5",
        "32x32",
        "tiny-model",
    )
    assert str(tmp_path.parent).encode() not in (tmp_path / "x.png").read_bytes()


def test_adapters_are_told_by_name_weight_and_hash(load_model: Callable[[], SD1Model], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = load_model()
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    tensors = {f"{name}.lora_down.weight": torch.eye(64), f"{name}.lora_up.weight": 3 * torch.eye(64)}
    save_file(tensors, tmp_path / "sks-dog.safetensors")
    adapters = load_adapters(model.networks, [AdapterRef(tmp_path / "sks-dog.safetensors", 0.8)])
    (picture,) = generate(model, REQUEST, adapters=adapters)
    (used,) = picture.settings.adapters
    assert (used.name, used.weight, len(used.hash)) == ("sks-dog", 0.8, 12)
    assert levels(picture, draw(load_model())[0]) > 1


# ------------------------------------------------------------------------------------------------- said, not silent
def test_a_prompt_that_is_too_long_is_told(model: SD1Model) -> None:
    long = "a red circle and " * 40
    short, cut = draw(model, prompts=("a red circle", long))
    assert short.warnings == ()
    (warning,) = cut.warnings
    tokens = model.count_tokens([long])[0]
    assert f"{tokens} tokens and the model reads 77: the last {tokens - 77} had no effect" in warning
    (negative,) = draw(model, negative=long)[0].warnings
    assert "negative prompt" in negative


def test_a_prompt_without_the_word_of_an_embedding_is_told(load_model: Callable[[], SD1Model], tmp_path: Path) -> None:
    model = load_model()
    save_file({"<toy>": torch.randn(2, 32, generator=torch.Generator().manual_seed(0))}, tmp_path / "x.safetensors")
    words = load_embeddings(model.tokenizer, model.text_encoder, [EmbeddingRef(tmp_path / "x.safetensors")])

    def told(prompt: str, negative: str = "") -> tuple[tuple[str, ...], Picture]:
        request = dataclasses.replace(REQUEST, prompts=(prompt,), negative=negative, steps=1)
        (picture,) = generate(model, request, embeddings=words)
        return picture.warnings, picture

    assert told("a red circle")[0] == ("The prompt does not hold '<toy>', so its embedding has no effect.",)
    assert told("a <Toy>")[0] == ("The prompt is read with 1 of the 2 vectors of '<toy>': write it so, early.",)
    warnings, picture = told("a <toy>")
    assert warnings == told("a red circle", negative="<toy>")[0] == ()
    assert [used.token for used in picture.settings.embeddings] == ["<toy>"]
    assert levels(picture, told("a circle")[1]) > 0


WRONG = {
    "a side that is no multiple": ({"size": (33, 32)}, r"33x32 is not possible.*multiples of 4.*nearest is 32x32"),
    "a side that is nothing": ({"size": (0, 32)}, r"nearest is 4x32"),
    "no prompt": ({"prompts": ()}, "no prompt"),
    "no steps": ({"steps": 0}, "steps"),
    "no pictures": ({"count": 0}, "count"),
    "negative guidance": ({"guidance": -1.0}, "guidance"),
    "a seed below": ({"seed": -2}, "seed"),
    "a seed above": ({"seed": 2**63}, "seed"),
    "an unknown sampler": ({"scheduler": "eulr"}, "euler"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_request_is_refused_before_anything_is_drawn(
    model: SD1Model, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, dataclasses.replace(REQUEST, **changes))


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not finite"), (-1e4, "black")])
def test_black_and_broken_pictures_are_an_error(load_model: Callable[[], SD1Model], value: float, message: str) -> None:
    model = load_model()
    torch.nn.init.constant_(model.vae.decoder.conv_out.bias, value)
    with pytest.raises(UserError, match=message):
        draw(model)


# ------------------------------------------------------------------------------------------------------- no trace
@pytest.mark.parametrize("method", [Lora(text_encoder=True, dropout=0.5), Full(text_encoder=True)])
def test_drawing_while_training_leaves_no_trace(load_model: Callable[[], SD1Model], method: Lora | Full) -> None:
    model = load_model()
    trainable = method.apply(model, seed=0)
    model.checkpoint_gradients()
    model.train_mode(trainable.parts)
    modes = [m.training for network in model.networks.values() for m in network.modules()]
    state = torch.get_rng_state()
    pictures = generate(model, dataclasses.replace(REQUEST, count=2, scheduler="euler_a"))
    next(pictures)
    assert torch.is_grad_enabled()
    assert [m.training for network in model.networks.values() for m in network.modules()] == modes
    torch.rand(3)
    after_one_draw = torch.get_rng_state()
    next(pictures)
    assert torch.equal(torch.get_rng_state(), after_one_draw)
    torch.set_rng_state(state)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in trainable.params.values())


def test_dropout_does_not_reach_the_picture(load_model: Callable[[], SD1Model]) -> None:
    model = load_model()
    trainable = Lora(dropout=0.9).apply(model, seed=0)
    for parameter in trainable.params.values():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    model.train_mode(trainable.parts)
    assert levels(draw(model)[0], draw(model)[0]) == 0


@pytest.mark.parametrize("method", [None, Lora(text_encoder=True), Full(), Full(text_encoder=True)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_draw_nearly_the_same(
    load_model: Callable[[], SD1Model], method: Lora | Full | None, dtype: torch.dtype
) -> None:
    (expected,) = draw(load_model(), guidance=3.0)
    model = load_model()
    model.to(torch.device("cpu"), dtype, float32=() if method is None else method.float32_parts(model))
    if method is not None:
        method.apply(model, seed=0)
    (drawn,) = draw(model, guidance=3.0)
    off = np.abs(np.asarray(drawn.image).astype(int) - np.asarray(expected.image).astype(int))
    assert off.mean() < 4

"""Contrastive training: exact in any number of micro-batches, with a scale that comes back and an anchor that holds."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.core.errors import NonFiniteError
from limner.core.rng import tensor_stream
from limner.data.batch import Batch
from limner.methods.base_weights import keep_base
from limner.methods.trainable import Trainable
from limner.models.clip import Clip, ClipModel
from limner.training.anchor import Anchor
from limner.training.contrastive import Contrastive, embed
from limner.training.precision import Precision
from tests.tiny import save_tiny_clip

CPU = torch.device("cpu")
PRECISION = Precision("fp32", CPU)
CAPTIONS = (
    "a red circle", "a dog", "the blue square on a green background", "a dog",
    "a painting of a cat", "a cat", "an", "the red dog in the style of a painting",
)  # fmt: skip
GROUPS = (None, "dog", None, "dog", "cat", "cat", None, None)
SPLITS = ([3, 2, 3], [1] * 8, [7, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def model(folder: Path) -> ClipModel:
    loaded = Clip(path=str(folder)).load()
    loaded.network.requires_grad_(True)
    return loaded


def batch() -> Batch:
    return Batch(
        positions=tuple(range(8)),
        ids=tuple("abcdefgb"),
        captions=CAPTIONS,
        images=torch.rand(8, 3, 32, 32, generator=tensor_stream(0, 0, "test")) * 2 - 1,
        conditioning=None,
        weights=torch.tensor([1.0, 0.5, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]),
        groups=GROUPS,
    )


def split(whole: Batch, sizes: Sequence[int]) -> list[Batch]:
    ends = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    return [
        Batch(
            whole.positions[a:b], whole.ids[a:b], whole.captions[a:b], whole.images[a:b], None, whole.weights[a:b],
            groups=whole.groups[a:b],
        )
        for a, b in itertools.pairwise(ends)
    ]  # fmt: skip


def objective(model: ClipModel, **settings: Any) -> Contrastive:
    made = Contrastive(**settings)
    made.make_parameters(model, lambda: [batch()], precision=PRECISION)
    return made


def gradients(
    model: ClipModel,
    loss: Contrastive,
    batches: Sequence[Batch],
    *,
    precision: Precision = PRECISION,
    scale: Callable[[Tensor], Tensor] = lambda value: value,
    **more: Any,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    params = {**dict(model.network.named_parameters()), **dict(model.loss_parameters.items())}
    for parameter in params.values():
        parameter.grad = None
    torch.manual_seed(5)
    metrics = loss.backward(model, seed=0, precision=precision, scale=scale, **more)(batches)
    return {name: p.grad.clone() for name, p in params.items() if p.grad is not None}, metrics


def distance(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Returns the norm of the difference as a share of the norm."""
    assert ours.keys() == expected.keys()
    size = math.sqrt(sum(float(value.double().square().sum()) for value in expected.values()))
    apart = [float((ours[name].double() - expected[name].double()).square().sum()) for name in expected]
    return math.sqrt(sum(apart)) / size


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
@pytest.mark.parametrize("positives", ["own", "duplicates"])
def test_micro_batches_of_any_sizes_give_the_gradient_of_the_whole(model: ClipModel, loss: str, positives: str) -> None:
    bias = {"logit_bias": -10} if loss == "siglip" else {}
    chosen = objective(model, loss=loss, positives=positives, **bias)
    expected, told = gradients(model, chosen, [batch()])
    assert len(expected) == len(list(model.network.parameters())) + (loss == "siglip")
    for sizes in SPLITS:
        found, metrics = gradients(model, chosen, split(batch(), sizes))
        assert distance(found, expected) < 1e-6
        assert metrics == pytest.approx(told, rel=1e-6)
    assert told["duplicates"] == pytest.approx(7 / 8)  # two cats, two dogs, b twice, and its other visit's caption


def test_the_gradient_of_a_split_without_grad_cache_is_another(model: ClipModel) -> None:
    chosen = objective(model)
    expected, _ = gradients(model, chosen, [batch()])
    total: dict[str, Tensor] = {}
    for part in split(batch(), [4, 4]):
        for name, value in gradients(model, chosen, [part])[0].items():
            total[name] = total.get(name, torch.zeros_like(value)) + value / 2
    assert distance(total, expected) > 0.1


@contextlib.contextmanager
def with_dropout(model: ClipModel) -> Iterator[None]:
    layers = [module for module in model.network.modules() if hasattr(module, "k_proj")]
    assert len(layers) == 4
    for layer in layers:
        layer.dropout = 0.3
    model.network.train()
    yield
    model.network.eval()


def in_one_graph(
    model: ClipModel, loss: Contrastive, batches: Sequence[Batch], precision: Precision
) -> dict[str, Tensor]:
    """Returns the gradient with the graphs of all micro-batches in memory at once, their random numbers in order."""
    for parameter in model.network.parameters():
        parameter.grad = None
    torch.manual_seed(5)
    parts = [embed(model, part, precision=precision) for part in batches]
    images, prompts = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    logits = model.logit_scale.exp() * images @ prompts.T
    own = torch.arange(len(images))
    weights = torch.cat([part.weights for part in batches])
    each = [torch.nn.functional.cross_entropy(rows, own, reduction="none") for rows in (logits, logits.T)]
    ((each[0] + each[1]) / 2 * weights).mean().backward()
    return {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


def test_dropout_is_the_same_in_both_passes(model: ClipModel) -> None:
    with with_dropout(model):
        parts = split(batch(), [3, 2, 3])
        found, _ = gradients(model, Contrastive(positives="own"), parts)
        assert distance(found, in_one_graph(model, Contrastive(), parts, PRECISION)) < 1e-6
        model.network.eval()
        assert distance(found, in_one_graph(model, Contrastive(), parts, PRECISION)) > 1e-2


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_rounds_alike_in_both_passes(model: ClipModel, name: Any) -> None:
    half, parts = Precision(name, CPU), split(batch(), [3, 2, 3])
    found, _ = gradients(model, Contrastive(positives="own"), parts, precision=half)
    assert distance(found, in_one_graph(model, Contrastive(), parts, half)) < 1e-5
    assert distance(found, in_one_graph(model, Contrastive(), parts, PRECISION)) > 1e-4


def test_the_scaler_of_fp16_scales_every_gradient(model: ClipModel) -> None:
    chosen, parts = objective(model, loss="siglip"), split(batch(), [3, 2, 3])
    plain, told = gradients(model, chosen, parts)
    scaled, metrics = gradients(model, chosen, parts, scale=lambda value: value * 1024)
    assert all(torch.equal(scaled[name], plain[name] * 1024) for name in plain)
    assert metrics == told


def test_gradient_checkpointing_changes_nothing(model: ClipModel) -> None:
    expected, _ = gradients(model, Contrastive(), [batch()])
    model.checkpoint_gradients()
    model.network.train()
    assert model.network.text_model.is_gradient_checkpointing
    with with_dropout(model):
        parts = split(batch(), [3, 2, 3])
        found, _ = gradients(model, Contrastive(positives="own"), parts)
        assert distance(found, in_one_graph(model, Contrastive(), parts, PRECISION)) < 1e-6
    model.network.train()
    for layer in model.network.modules():
        if hasattr(layer, "k_proj"):
            layer.dropout = 0.0
    assert distance(gradients(model, Contrastive(), split(batch(), [3, 2, 3]))[0], expected) < 1e-6


def test_a_frozen_tower_is_left_alone(model: ClipModel) -> None:
    model.network.text_model.requires_grad_(False)
    model.network.text_projection.requires_grad_(False)
    expected, _ = gradients(model, Contrastive(), [batch()])
    found, _ = gradients(model, Contrastive(), split(batch(), [5, 3]))
    assert not any(name.startswith("text") for name in found)
    assert distance(found, expected) < 1e-6


def test_a_scale_beyond_its_bound_is_put_back_and_can_be_lowered(model: ClipModel) -> None:
    """A random model is wrong about everything, so it wants a lower scale; OpenAI's begin at 4.6052 > log(100)."""
    for start in (4.6052, 20.0):
        model.logit_scale.data.fill_(start)
        found, metrics = gradients(model, Contrastive(), [batch()])
        assert metrics["similarity_factor"] == pytest.approx(100, rel=1e-6)
        assert float(model.logit_scale.detach()) == pytest.approx(math.log(100), rel=1e-6)
        assert float(found["logit_scale"]) > 0.1
        torch.optim.SGD([model.logit_scale], lr=0.1).step()
        assert gradients(model, Contrastive(), [batch()])[1]["similarity_factor"] < 99


def test_a_scale_that_does_not_train_is_not_moved(model: ClipModel) -> None:
    model.logit_scale.requires_grad_(False).fill_(5.0)
    assert gradients(model, Contrastive(), [batch()])[1]["similarity_factor"] == pytest.approx(100, rel=1e-6)
    assert float(model.logit_scale) == 5.0


def test_the_floor_and_the_loss_are_told_together(model: ClipModel) -> None:
    _, told = gradients(model, Contrastive(), [batch()])
    captions_of_picture, pictures_of_caption = [1, 3, 1, 2, 2, 2, 1, 3], [1, 3, 1, 3, 2, 2, 1, 2]
    counts = zip(captions_of_picture, pictures_of_caption, batch().weights.tolist(), strict=True)
    assert told["loss_floor"] == pytest.approx(sum(w * (math.log(a) + math.log(b)) / 2 for a, b, w in counts) / 8)
    assert told["loss"] > told["loss_floor"]
    assert "loss_floor" not in gradients(model, Contrastive(positives="own"), [batch()])[1]


def test_the_bias_begins_where_its_gradient_is_zero_or_where_it_is_told(model: ClipModel) -> None:
    fitted, alike = objective(model, loss="siglip"), dataclasses.replace(batch(), weights=torch.ones(8))
    assert abs(float(gradients(model, fitted, [alike])[0]["logit_bias"])) < 1e-5
    told = objective(model, loss="siglip", logit_bias=-10)
    found, metrics = gradients(model, told, [batch()])
    assert metrics["logit_bias"] == -10
    assert abs(float(found["logit_bias"])) > 1e-2
    with pytest.raises(ValueError, match="does nothing with loss 'info_nce'"):
        Contrastive(logit_bias=-10)


def test_losses_without_gradients_may_be_embedded_in_parts(model: ClipModel) -> None:
    with torch.no_grad():
        whole = Contrastive().losses(model, batch(), precision=PRECISION)
        parts = Contrastive().losses(model, batch(), precision=PRECISION, at_once=3)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_equal_captions_go_through_the_text_tower_once_and_each_picture_gets_its_own(model: ClipModel) -> None:
    seen: list[int] = []
    with model.network.text_model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0]))):
        _, prompts = embed(model, batch(), precision=PRECISION)
    assert seen == [len(set(CAPTIONS))] == [7]
    each = torch.cat([model.embed_prompts([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(prompts, each, rtol=0, atol=1e-6)


def test_a_loss_that_is_no_number_is_refused_in_parts_too(model: ClipModel) -> None:
    spoilt = batch()
    spoilt.images[2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"c \('the blue square"):
        gradients(model, Contrastive(), split(spoilt, [4, 4]))


def test_padding_to_the_longest_caption_gives_the_embeddings_of_padding_to_the_limit(model: ClipModel) -> None:
    captions = (*CAPTIONS, "", "a dog " * 200)
    for chosen in (CAPTIONS, captions):
        inputs = model.tokenizer(
            list(chosen), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            pooled = model.network.text_model(inputs.input_ids).pooler_output
            expected = torch.nn.functional.normalize(model.network.text_projection(pooled), dim=-1)
            torch.testing.assert_close(model.embed_prompts(chosen), expected, rtol=0, atol=1e-6)
            for place, one in enumerate(chosen):
                torch.testing.assert_close(model.embed_prompts([one])[0], expected[place], rtol=0, atol=1e-6)
        rows = [
            tuple(row[:length])
            for row, length in zip(inputs.input_ids.tolist(), inputs.attention_mask.sum(1).tolist(), strict=True)
        ]
        assert model.token_ids(chosen) == rows == model.token_ids(chosen)
    assert len(model.token_ids(["a dog " * 200])[0]) == 77


def base_of(model: ClipModel) -> Any:
    params = {f"text_encoder.{name}": value for name, value in model.network.text_model.named_parameters()}
    return keep_base(Trainable(kind="full", params=params), {"text_encoder": model.network.text_model}).in_place


@pytest.mark.parametrize("layer", ["last", "penultimate"])
def test_the_anchor_is_the_relative_distance_to_an_independent_copy_of_the_base(model: ClipModel, layer: Any) -> None:
    base, as_base = copy.deepcopy(model.network.text_model), base_of(model)
    anchor = Anchor(weight=2.5, layer=layer)
    start = anchor.losses(model, batch(), precision=PRECISION, as_base=as_base)
    assert start.tolist() == [0.0] * 8
    with torch.no_grad():
        for parameter in model.network.text_model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=tensor_stream(1, 0, "test")))
    found = anchor.losses(model, batch(), precision=PRECISION, as_base=as_base)
    inputs = model.tokenizer(list(CAPTIONS), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    expected = []
    for ids in inputs.input_ids:
        states = []
        for tower in (model.network.text_model, base):
            with torch.no_grad():
                layers = tower(ids[None], output_hidden_states=True).hidden_states
                states.append(tower.final_layer_norm(layers[-1 if layer == "last" else -2])[0].double())
        expected.append(2.5 * float((states[0] - states[1]).square().mean() / states[1].square().mean()))
    assert min(expected) > 1e-4
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_anchor_adds_its_gradient_and_is_told(model: ClipModel) -> None:
    as_base = base_of(model)
    with torch.no_grad():
        for parameter in model.network.text_model.parameters():
            parameter.mul_(1.02)
    plain, without = gradients(model, Contrastive(), [batch()])
    held, told = gradients(model, Contrastive(anchor=Anchor(weight=3.0)), [batch()], as_base=as_base)
    assert told["loss_contrastive"] == pytest.approx(without["loss"], rel=1e-6)
    assert told["loss_anchor"] > 0
    assert told["loss"] == pytest.approx(told["loss_contrastive"] + told["loss_anchor"], rel=1e-6)
    model.network.zero_grad(set_to_none=True)
    Anchor(weight=3.0).losses(model, batch(), precision=PRECISION, as_base=as_base).mean().backward()
    for name, parameter in model.network.named_parameters():
        alone = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(held[name], plain[name] + alone, rtol=1e-4, atol=1e-6)
    parts, metrics = gradients(model, Contrastive(anchor=Anchor(weight=3.0)), split(batch(), [3, 5]), as_base=as_base)
    assert distance(parts, held) < 1e-6
    assert metrics == pytest.approx(told, rel=1e-6)


def test_pictures_with_the_same_bytes_are_one_picture(model: ClipModel) -> None:
    names = tuple("abcdefgh")
    apart = dataclasses.replace(batch(), ids=names, groups=(), captions=tuple(f"a {'red ' * n}dog" for n in range(8)))
    alike = dataclasses.replace(apart, contents=tuple("xxcdefgh"))
    assert gradients(model, Contrastive(), [apart])[1]["duplicates"] == 0
    assert gradients(model, Contrastive(), [alike])[1]["duplicates"] == pytest.approx(2 / 8)

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limner.builtin.untrained import clip_tokenizer
from limner.builtin.world.vocabulary import vocabulary
from limner.evaluation.hidden_states import (
    LARGEST_MOVE,
    PHOTOS,
    POSITIONS,
    WORLD,
    Gauge,
    LayerMove,
    fitting_prompts,
    measure_move,
    share,
)
from limner.models.sd1 import SD1, SD1Model


def tuned(model: SD1Model, size: float) -> Any:
    encoder = copy.deepcopy(model.text_encoder)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=stream))
    return encoder


def outputs(encoder: nn.Module, ids: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """What each layer gives, caught on its way, and the last one normed."""
    caught: list[torch.Tensor] = []
    places = [encoder.embeddings, *encoder.encoder.layers]  # type: ignore[union-attr, misc, list-item]
    hooks = [place.register_forward_hook(lambda _m, _i, out: caught.append(out)) for place in places]
    with torch.no_grad():
        last = encoder(ids).last_hidden_state
    for hook in hooks:
        hook.remove()
    return [one.double().numpy() for one in (*caught[:-1], last)]


def test_the_gauge_is_that_of_an_independent_computation(model: SD1Model) -> None:
    other = tuned(model, 0.01)
    gauge = measure_move(model.text_encoder, other, model.tokenizer)
    tokens = [model.tokenizer(prompt).input_ids for prompt in gauge.prompts]
    ids = torch.tensor([one + [model.tokenizer.pad_token_id] * (77 - len(one)) for one in tokens])
    base, moved = outputs(model.text_encoder, ids), outputs(other, ids)
    assert len(gauge.layers) == len(base) == 3
    for layer, own, new in zip(gauge.layers, base, moved, strict=True):
        sums = {name: np.zeros(2) for name in POSITIONS}
        for prompt, words in enumerate(tokens):
            for place in range(77):
                pair = np.array([((new - own)[prompt, place] ** 2).sum(), (own[prompt, place] ** 2).sum()])
                end = len(words) - 1
                kind = 0 if place == 0 else 1 if place < end else 2 if place == end else 3
                sums[POSITIONS[kind]] += pair
                sums["all tokens"] += pair
        for name, (difference, length) in sums.items():
            assert layer.distances[name] == pytest.approx((difference / length) ** 0.5, rel=1e-5)
    assert gauge.moved == gauge.layers[-1].distances["all tokens"] > 0
    assert [layer.layer for layer in gauge.layers] == ["embeddings", "layer 1", "read by the pipeline"]


def test_equal_encoders_have_not_moved_at_all(model: SD1Model) -> None:
    gauge = measure_move(model.text_encoder, copy.deepcopy(model.text_encoder), model.tokenizer)
    assert {value for layer in gauge.layers for value in layer.distances.values()} == {0.0}
    assert "no picture will change" in (gauge.warning() or "")
    assert not gauge.too_far


def test_the_warning_comes_beyond_the_bound_only() -> None:
    def gauge(moved: float) -> Gauge:
        return Gauge("photos", ("a",), (LayerMove("read by the pipeline", {"all tokens": moved}),))

    assert gauge(LARGEST_MOVE).warning() is None
    assert "is beyond 10.0 %" in (gauge(LARGEST_MOVE * 1.01).warning() or "")
    assert "moved by 5.0 %" in gauge(0.05).sentence()
    assert gauge(0.05).rows()[0] == ("read by the pipeline", "none", "none", "none", "none", "5.0 %")
    assert (share(0), share(0.0001), share(0.1234)) == ("0.0 %", "under 0.05 %", "12.3 %")


def test_the_encoders_are_left_as_they_were(load_model: Callable[[], SD1Model]) -> None:
    model = load_model()
    model.text_encoder.train()
    before = torch.random.get_rng_state()
    measure_move(model.text_encoder, tuned(model, 0.1), model.tokenizer)
    assert model.text_encoder.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_captions_are_those_that_the_vocabulary_can_read() -> None:
    world = clip_tokenizer(vocabulary(), 40)
    about, prompts = fitting_prompts(world)
    assert (about, prompts) == ("the built-in world", WORLD)
    words = sorted({word.strip(",") for prompt in WORLD for word in prompt.split()})
    assert [word for word in words if len(world.tokenize(word)) != 1] == []
    photos = clip_tokenizer(sorted({word.strip(",") for prompt in PHOTOS for word in prompt.split()}))
    assert fitting_prompts(photos) == ("photos", PHOTOS)


def test_captions_that_are_too_long_for_a_model_are_left_out() -> None:
    short = clip_tokenizer(vocabulary(), 12)
    prompts = fitting_prompts(short)[1]
    assert 0 < len(prompts) < len(WORLD)
    assert all(len(short(prompt).input_ids) <= 12 for prompt in prompts)


def test_where_no_prompt_is_padded_there_is_no_such_distance(model: SD1Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.evaluation.hidden_states.PROMPTS", {"one": ("a red circle",)})
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.model_max_length = 5
    gauge = measure_move(model.text_encoder, tuned(model, 0.1), tokenizer)
    assert set(gauge.layers[-1].distances) == set(POSITIONS) - {"padding"}
    assert "none" in gauge.rows()[-1]
    assert all(np.isfinite(value) for value in gauge.layers[-1].distances.values())


def test_the_bound_is_well_below_what_one_other_word_moves_in_the_built_in_model_and_the_guide_tells_how_far() -> None:
    """So far apart are two captions that the denoiser has learned to draw as two pictures."""
    model = SD1(path="builtin").load()
    pairs = {"black": "blue", "orange": "green", "mushroom": "apple", "whale": "cat", "star": "heart", "left": "right"}
    captions = [(text, text.replace(old, new, 1)) for text in WORLD for old, new in pairs.items() if old in text]
    with torch.no_grad():
        one, other = (
            model.encode_prompts(texts)["encoder_hidden_states"] for texts in map(list, zip(*captions, strict=True))
        )
    moves = (other - one).flatten(1).norm(dim=1) / one.flatten(1).norm(dim=1)
    smallest = float(moves.min())
    assert len(moves) == 10
    assert smallest > 1.3 * LARGEST_MOVE
    guide = Path(__file__).parents[2].joinpath("docs", "guides", "clip_in_pictures.md").read_text(encoding="utf-8")
    assert f"by {int(100 * smallest)} % or more (ten pairs of captions)" in " ".join(guide.split())

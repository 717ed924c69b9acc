from __future__ import annotations

import random
import re

import pytest
import torch
from diffusers import StableDiffusionPipeline

from limner.builtin.untrained import BUILTIN_TOKENS, clip_tokenizer, new_builtin
from limner.builtin.world import HELD_OUT_STYLE, caption, scene_at
from limner.builtin.world.vocabulary import vocabulary


@pytest.fixture(scope="module")
def builtin() -> StableDiffusionPipeline:
    return new_builtin()


def test_every_caption_of_the_world_has_one_token_per_word_and_comma(builtin: StableDiffusionPipeline) -> None:
    longest = 0
    for position in range(300):
        scene = scene_at(7, position, "test" if position % 3 == 0 else "train")
        for complete in (True, False):
            text = caption(scene, random.Random(position), complete=complete)
            words = re.findall(r"[a-z]+|,", text)
            assert "".join(words) == text.replace(" ", "")
            tokens = builtin.tokenizer.tokenize(text)
            assert tokens == [f"{word}</w>" for word in words]
            assert builtin.tokenizer.unk_token_id not in builtin.tokenizer(text).input_ids[1:-1]
            longest = max(longest, len(words) + 2)
    assert 20 < longest <= BUILTIN_TOKENS


def test_the_longest_caption_is_within_the_limit() -> None:
    tokenizer = clip_tokenizer(vocabulary(), BUILTIN_TOKENS)
    texts = [
        caption(scene_at(3, position), random.Random(f"{position} {wording}"), complete=True)
        for position in range(700)
        for wording in range(3)
    ]
    lengths = [len(ids) for ids in tokenizer(texts, truncation=False).input_ids]
    assert 25 <= max(lengths) <= 28  # what BUILTIN_TOKENS' docstring says


@pytest.mark.parametrize(
    "text", ["zebra", "a sks cat", "stained glass", "naïve ☃ 東京", "a cat's hat, 1890!", HELD_OUT_STYLE]
)
def test_unknown_words_are_spelt_and_come_back(text: str) -> None:
    tokenizer = clip_tokenizer(vocabulary(), BUILTIN_TOKENS)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    assert len(ids) - 2 > len(text.split())  # a token for every known word, several for the others


def test_words_that_repeat_a_part_of_themselves_become_one_token() -> None:
    words = ("cocoa", "abcabd", "banana", "bcd", "abcd", "xbcd", "aa", "aaaa", "aaa")
    tokenizer = clip_tokenizer(words)
    assert [tokenizer.tokenize(word) for word in words] == [[f"{word}</w>"] for word in words]
    assert tokenizer.tokenize("banana cocoa") == ["banana</w>", "cocoa</w>"]


def test_special_tokens_come_last_and_the_text_encoder_knows_them(builtin: StableDiffusionPipeline) -> None:
    tokenizer, config = builtin.tokenizer, builtin.text_encoder.config
    assert tokenizer.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"]) == [
        len(tokenizer) - 2,
        len(tokenizer) - 1,
    ]
    assert (config.bos_token_id, config.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert (config.vocab_size, config.max_position_embeddings) == (len(tokenizer), BUILTIN_TOKENS)
    assert tokenizer.model_max_length == BUILTIN_TOKENS


def test_pictures_of_128_pixels_have_latents_of_8_x_16_x_16(builtin: StableDiffusionPipeline) -> None:
    states = torch.zeros(1, BUILTIN_TOKENS, builtin.text_encoder.config.hidden_size)
    with torch.no_grad():
        latents = builtin.vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mode()
        assert latents.shape == (1, 8, 16, 16)
        assert builtin.vae.decode(latents).sample.shape == (1, 3, 128, 128)
        assert builtin.unet(latents, 3, encoder_hidden_states=states).sample.shape == latents.shape
    assert (builtin.unet.config.sample_size, builtin.vae_scale_factor) == (16, 8)


def test_at_the_end_nearly_nothing_but_noise_is_left_and_v_is_predicted(builtin: StableDiffusionPipeline) -> None:
    left = float(builtin.scheduler.alphas_cumprod[-1])
    assert 0.0004 < left < 0.0006  # Stable Diffusion 1.x leaves 0.0047
    assert builtin.scheduler.config.prediction_type == "v_prediction"
    builtin.scheduler.set_timesteps(20)
    assert int(builtin.scheduler.timesteps[0]) == 999


def test_the_seed_decides_the_weights(builtin: StableDiffusionPipeline) -> None:
    def weights(pipeline: StableDiffusionPipeline) -> torch.Tensor:
        networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        return torch.cat([value.flatten() for network in networks for value in network.state_dict().values()])

    torch.manual_seed(5)
    assert torch.equal(weights(new_builtin()), weights(builtin))
    assert not torch.equal(weights(new_builtin(seed=1)), weights(builtin))

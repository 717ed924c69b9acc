"""Small Stable Diffusion pipelines with random weights: real classes, real formats, nothing learned yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.models.clip_vocabulary import byte_alphabet

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from torch import nn
    from transformers import CLIPTokenizer

TOKENS = 77
BUILTIN_TOKENS = 40
"""What the built-in model reads of a prompt; the longest caption of its world has 29 tokens."""
_SMALL = 0.1


def clip_tokenizer(words: Sequence[str], limit: int = TOKENS) -> CLIPTokenizer:
    """Returns a tokenizer that spells any text byte by byte, knows ``words`` as single tokens, and reads ``limit``.

    As in OpenAI's vocabulary the two special tokens come last.
    """
    from transformers import CLIPTokenizer

    vocab: dict[str, int] = {}
    for suffix in ("", "</w>"):
        for char in byte_alphabet():
            vocab[char + suffix] = len(vocab)
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := _pieces(word, merges)) > 1:  # anew each time: a merge may fit at several places of a word
            merges[pieces[0], pieces[1]] = len(merges)
            vocab.setdefault(pieces[0] + pieces[1], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=limit, pad_token="<|endoftext|>")


def _pieces(word: str, merges: Mapping[tuple[str, str], int]) -> list[str]:
    """Returns what byte pair encoding leaves of a word: the earliest merge first, everywhere that it fits."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while True:
        known = [pair for pair in pairwise(pieces) if pair in merges]
        if not known:
            return pieces
        first = min(known, key=merges.__getitem__)
        joined: list[str] = []
        while pieces:
            take = 2 if tuple(pieces[:2]) == first else 1
            joined.append("".join(pieces[:take]))
            del pieces[:take]
        pieces = joined


def untrained_pipeline(
    *,
    seed: int = 0,
    words: Sequence[str] = (),
    unet_channels: tuple[int, ...] = (32, 64, 64),
    text_width: int = 64,
    sample_size: int = 16,
) -> StableDiffusionPipeline:
    """Returns a pipeline whose latents have an eighth of the picture's side, as those of Stable Diffusion 1.x.

    The denoiser has one attention level less than channels; ``sample_size`` is the side of its latents.
    """
    levels = len(unet_channels)
    return _assemble(
        clip_tokenizer(words),
        text={"hidden_size": text_width, "num_hidden_layers": 2, "num_attention_heads": 4},
        vae={"block_out_channels": (32, 32, 64, 64), "scaling_factor": 0.18215},
        unet={
            "block_out_channels": unet_channels,
            "down_block_types": ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            "attention_head_dim": 8,
        },
        noise={"beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": False, "steps_offset": 1},
        sample_size=sample_size,
        seed=seed,
    )


def new_builtin(seed: int = 0) -> StableDiffusionPipeline:
    """Returns the built-in model as it is before its training: pictures of 128 pixels, latents of 8 x 16 x 16.

    Attention begins at 8 x 8, where it is cheap and fine enough for things of at least 36 pixels. The noise goes
    further than that of Stable Diffusion 1.x (a_T is 0.0005, not 0.005), so that the mean of what is left at the end
    does not give the background away, which pure noise cannot tell when pictures are drawn (arXiv:2305.08891).
    """
    from limner.builtin.world.vocabulary import vocabulary

    pipeline = _assemble(
        clip_tokenizer(vocabulary(), BUILTIN_TOKENS),
        text={"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6, "projection_dim": 128},
        vae={"block_out_channels": (16, 24, 48, 96), "norm_num_groups": 2, "latent_channels": 8, "scaling_factor": 1.0},
        unet={
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": (64, 96, 160),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": (2, 3, 5),
            "norm_num_groups": 16,
        },
        noise={
            "beta_start": 0.00085,
            "beta_end": 0.018,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "steps_offset": 1,
        },
        sample_size=16,
        seed=seed,
    )
    _start_gently(pipeline.vae, seed)
    return pipeline


def _start_gently(network: nn.Module, seed: int) -> None:
    """Draws the convolutions anew, so that they keep the variance, and makes what they add to the whole small.

    The network then begins as a nearly linear one, and colours find their way through it within some hundred steps.
    """
    import torch
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
                module.bias.zero_()
        for module in network.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.mul_(_SMALL)
            if isinstance(module, Attention):
                module.to_out[0].weight.mul_(_SMALL)


def _assemble(
    tokenizer: CLIPTokenizer,
    *,
    text: Mapping[str, Any],
    vae: Mapping[str, Any],
    unet: Mapping[str, Any],
    noise: Mapping[str, Any],
    sample_size: int,
    seed: int,
) -> StableDiffusionPipeline:
    """Returns a pipeline of networks with these settings; ``sample_size`` is the side of its latents."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    width = text["hidden_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                intermediate_size=4 * width,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **{"projection_dim": width, **text},
            )
        ).eval()
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            sample_size=8 * sample_size,
            **{"latent_channels": 4, **vae},
        ).eval()
        denoiser = UNet2DConditionModel(
            layers_per_block=1, cross_attention_dim=width, sample_size=sample_size, **unet
        ).eval()
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, **noise),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_untrained(folder: Path) -> None:
    """Writes a pipeline of some two million parameters for pictures of 128 pixels as a diffusers folder."""
    untrained_pipeline(words=("a", "of", "on", "the", "stained", "glass", "window")).save_pretrained(folder)

"""Small Stable Diffusion 1.x pipelines with random weights: real classes, real formats, nothing learned yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

TOKENS = 77


def byte_alphabet() -> list[str]:
    """Returns the 256 printable stand-ins of byte-level BPE, in GPT-2's order."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in kept] + [chr(256 + index) for index in range(256 - len(kept))]


def clip_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """Returns a tokenizer that spells any text byte by byte and knows ``words`` as single tokens.

    As in OpenAI's vocabulary the two special tokens come last.
    """
    from transformers import CLIPTokenizer

    vocab: dict[str, int] = {}
    for suffix in ("", "</w>"):
        for char in byte_alphabet():
            vocab[char + suffix] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in words:
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            vocab.setdefault(left, len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS, pad_token="<|endoftext|>")


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
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    levels = len(unet_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer(words)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=text_width,
                intermediate_size=4 * text_width,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=TOKENS,
                projection_dim=text_width,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).eval()
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            sample_size=8 * sample_size,
            scaling_factor=0.18215,
        ).eval()
        unet = UNet2DConditionModel(
            block_out_channels=unet_channels,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            layers_per_block=1,
            attention_head_dim=8,
            cross_attention_dim=text_width,
            sample_size=sample_size,
        ).eval()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_untrained(folder: Path) -> None:
    """Writes a pipeline of some two million parameters for pictures of 128 pixels as a diffusers folder."""
    untrained_pipeline(words=("a", "of", "on", "the", "stained", "glass", "window")).save_pretrained(folder)

"""Tiny Stable Diffusion pipelines with random weights: real classes of the real libraries, built in memory.

Everything here is deterministic for its arguments. The autoencoder has two levels, so latents have half the side of the
picture (64 pixels, 32 latents; the real ones have an eighth); the denoiser has two as well: sides are multiples of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.builtin import untrained

WORDS = (
    "a", "an", "the", "of", "on", "in", "red", "green", "blue", "yellow",
    "circle", "square", "triangle", "photo", "painting", "dog", "cat", "style", "background",
)  # fmt: skip
PredictionType = Literal["epsilon", "v_prediction", "sample"]


def clip_tokenizer(words: Sequence[str] = WORDS) -> CLIPTokenizer:
    """Returns a tokenizer of 77 tokens at most that spells any text and knows ``words`` as single tokens."""
    return untrained.clip_tokenizer(words)


def clip_text_config(tokenizer: CLIPTokenizer, width: int = 32) -> CLIPTextConfig:
    """Returns the settings of a text encoder of two layers for this tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def vae() -> AutoencoderKL:
    """Returns an autoencoder of two levels with Stable Diffusion's scaling factor."""
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        sample_size=64,
        scaling_factor=0.18215,
    ).eval()


def unet(size: int = 64, width: int = 32, sd2: bool = False, in_channels: int = 4) -> UNet2DConditionModel:
    """Returns a denoiser of two levels; ``sd2`` gives it SD 2's linear projections and a head size per level."""
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=size // 2,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=(2, 4) if sd2 else 8,
        use_linear_projection=sd2,
        norm_num_groups=32,
    ).eval()


def scheduler(prediction_type: PredictionType = "epsilon") -> DDIMScheduler:
    """Returns Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def sd15(
    seed: int = 0,
    prediction_type: PredictionType = "epsilon",
    size: int = 64,
    words: Sequence[str] = WORDS,
    sd2: bool = False,
    in_channels: int = 4,
) -> StableDiffusionPipeline:
    """Returns a whole pipeline in float32, without a safety checker, its weights decided by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer(words)
        pipeline = StableDiffusionPipeline(
            vae=vae(),
            text_encoder=CLIPTextModel(clip_text_config(tokenizer)).eval(),
            tokenizer=tokenizer,
            unet=unet(size, sd2=sd2, in_channels=in_channels),
            scheduler=scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: PredictionType = "epsilon",
    size: int = 64,
    words: Sequence[str] = WORDS,
    sd2: bool = False,
    in_channels: int = 4,
) -> Path:
    """Writes :func:`sd15` as a diffusers folder, safetensors only, and returns the folder."""
    pipeline = sd15(seed, prediction_type, size, words, sd2, in_channels)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_tiny_clip(folder: Path, *, seed: int = 0, size: int = 32) -> Path:
    """Writes a dual encoder of two layers a tower, for pictures of ``size`` pixels, as a transformers folder."""
    tokenizer = clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                text_config=clip_text_config(tokenizer).to_dict(),
                vision_config={
                    "hidden_size": 32,
                    "intermediate_size": 37,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "image_size": size,
                    "patch_size": 8,
                },
                projection_dim=16,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(
        folder
    )
    return folder

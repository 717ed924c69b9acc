"""A writer of single-file checkpoints in CompVis' layout, for tests: the inverse of what diffusers reads."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, layers: int, attends: set[str]) -> str:
    """Returns the original name of a tensor of diffusers' UNet; ``attends`` are the up blocks with attention."""
    per_level = layers + 1
    for new, old in _UNET_ENDS.items():
        if name.startswith(new):
            return name.replace(new, old)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_inner(kind, rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    assert match is not None, name
    side, level, kind, index, rest = match.group(1), int(match.group(2)), *match.group(3, 4, 5)
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * per_level}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        place = 2 if match.group(2) in attends else 1
        return f"output_blocks.{level * per_level + layers}.{place}.{rest}"
    block = level * per_level + int(index) + (1 if side == "down" else 0)
    place = 1 if kind == "attentions" else 0
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{place}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    head, _, tail = rest.partition(".")
    return f"{_RESNET[head]}.{tail}"


def vae_name(name: str, levels: int) -> str:
    """Returns the original name of a tensor of diffusers' AutoencoderKL."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for new, old in _VAE_ATTENTION.items():
            name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    return name


def single_file_state(pipeline: StableDiffusionPipeline, *, text_model: bool = True) -> dict[str, Tensor]:
    """Returns all tensors of a pipeline under the original names; ``text_model=False`` as transformers 5 names them."""
    state: dict[str, Tensor] = {}
    attends = {str(i) for i, block in enumerate(pipeline.unet.config.up_block_types) if "Attn" in block}
    for name, tensor in pipeline.unet.state_dict().items():
        original = unet_name(name, pipeline.unet.config.layers_per_block, attends)
        state[f"model.diffusion_model.{original}"] = tensor
    for name, tensor in pipeline.vae.state_dict().items():
        original = vae_name(name, len(pipeline.vae.config.block_out_channels))
        linear = "attn_1" in original and tensor.dim() == 2
        state[f"first_stage_model.{original}"] = tensor[:, :, None, None] if linear else tensor
    prefix = "cond_stage_model.transformer." + ("text_model." if text_model else "")
    for name, tensor in pipeline.text_encoder.state_dict().items():
        state[f"{prefix}{name.removeprefix('text_model.')}"] = tensor
    if text_model:
        state[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]  # old files have it
    return state


def save_single_file(pipeline: StableDiffusionPipeline, file: Path, *, text_model: bool = True) -> Path:
    """Writes :func:`single_file_state` and returns the file."""
    state = single_file_state(pipeline, text_model=text_model)
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file, metadata={"format": "pt"})
    return file

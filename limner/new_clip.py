"""A CLIP model to train from scratch: a picture tower of any size beside the text encoder of a pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from limner.core.config import Config
from limner.core.rundir import write_json
from limner.export.result import staged
from limner.export.transformers import preprocessor_settings
from limner.models.clip_vocabulary import TOKENIZER_FILES
from limner.models.sd1 import SD1
from limner.models.weights import BUILTIN, quiet

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextModel


class PictureTower(Config):
    """A vision transformer (arXiv:2010.11929) as CLIP has it. The defaults are those of the built-in model."""

    image_size: int = Field(default=128, ge=8, le=1024)
    """Side of the square pictures that it reads, in pixels."""
    patch_size: int = Field(default=16, ge=1)
    """Side of the squares that a picture is cut into; smaller ones see more and take longer."""
    width: int = Field(default=160, ge=32)
    """Numbers for each square: a multiple of 32, since each attention head has 32."""
    layers: int = Field(default=4, ge=1, le=64)
    """Layers of attention and MLP; the MLP is four times as wide."""

    @field_validator("patch_size")
    @classmethod
    def _fits_the_picture(cls, size: int, info: ValidationInfo) -> int:
        side = info.data.get("image_size", size)
        if side % size:
            raise ValueError(f"pictures of {side} pixels cannot be cut into squares of {size}.")
        return size

    @field_validator("width")
    @classmethod
    def _has_whole_heads(cls, width: int) -> int:
        if width % 32:
            raise ValueError(f"{width} is no multiple of 32, the numbers of an attention head.")
        return width


def new_clip(out: Path, tower: PictureTower | None = None, *, text: str = BUILTIN, seed: int = 0) -> CLIPModel:
    """Writes a folder of transformers' CLIPModel with a random picture tower, and returns the model.

    ``text`` is a diffusers folder, a Hub id or ``builtin``: its text encoder and tokenizer are taken as they are, both
    projections are random. Raises UserError where ``out`` holds files.
    """
    source = SD1(path=text).load()
    model = random_clip(source.text_encoder, tower or PictureTower(), seed=seed)
    with staged(out) as part:
        with quiet():
            model.save_pretrained(part, safe_serialization=True)
        for name in TOKENIZER_FILES:
            if (file := source.folder / "tokenizer" / name).is_file():
                shutil.copyfile(file, part / name)
        side = model.config.vision_config.image_size
        write_json(part / "preprocessor_config.json", preprocessor_settings(side, (0.5,) * 3, (0.5,) * 3))
    return model


def random_clip(text: CLIPTextModel, tower: PictureTower, *, seed: int) -> CLIPModel:
    """Returns a CLIPModel with this text encoder, bit for bit, and all else random by ``seed``."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                text_config=text.config.to_dict(),
                vision_config={
                    "hidden_size": tower.width,
                    "intermediate_size": 4 * tower.width,
                    "num_hidden_layers": tower.layers,
                    "num_attention_heads": tower.width // 32,
                    "image_size": tower.image_size,
                    "patch_size": tower.patch_size,
                },
                projection_dim=text.config.projection_dim,
            )
        ).eval()
    model.text_model.load_state_dict(text.state_dict())
    return model

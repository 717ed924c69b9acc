"""Reads exports with older releases of diffusers, transformers and PEFT, and draws a picture with each.

Run by test_older_releases.py in an environment of its own; nothing of Limner is there.

    python older_reader.py BASE EXPORTS OUT
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftModel


def load(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, file: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    image = pipeline("a red circle", num_inference_steps=4, generator=generator, height=64, width=64).images[0]
    np.save(file, np.asarray(image))


def main(base: Path, exports: Path, out: Path) -> None:
    told: dict[str, str] = {}
    draw(load(base), out / "base.npy")
    for folder in sorted(exports.iterdir()):
        if folder.name.startswith("full"):
            draw(load(folder), out / f"{folder.name}.npy")
            continue
        pipeline = load(base)
        if folder.name.startswith("lora"):
            pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
        elif folder.name.startswith("kohya"):
            pipeline.load_lora_weights(folder, weight_name="kohya.safetensors")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                PeftModel.from_pretrained(pipeline.unet, folder / "unet")
                if (folder / "text_encoder").is_dir():
                    try:
                        PeftModel.from_pretrained(load(base).text_encoder, folder / "text_encoder")
                    except ValueError as error:
                        told[folder.name] = str(error)
                    PeftModel.from_pretrained(pipeline.text_encoder.text_model, folder / "text_encoder")
        draw(pipeline, out / f"{folder.name}.npy")
    (out / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))

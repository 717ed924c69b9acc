"""What the networks of a report cost beside drawing the pictures that they look at.

    python benchmarks/report_time.py [--pictures 100] [--threads 2]

draws pictures with the built-in model and scores them with a CLIP ViT-B/32 and a DINOv2-small, both of the published
sizes with random weights: what they cost does not depend on what the numbers are. Prints seconds and the ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def clip(folder: Path, builtin: Path) -> Path:
    """Writes a CLIP of ViT-B/32's sizes that reads the built-in model's words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(builtin / "tokenizer"))
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def dinov2(folder: Path) -> Path:
    """Writes a DINOv2 of the small one's sizes."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
                "do_center_crop": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    import torch

    from limner.builtin.world import caption, draw, scene_at
    from limner.core.config import validate
    from limner.core.progress import Silent
    from limner.core.rng import stream
    from limner.evaluation.generate import GenerateRequest, generate
    from limner.evaluation.report import Report
    from limner.models.sd1 import SD1
    from limner.models.weights import BUILTIN_FOLDER
    from limner.report.copies import calibrate
    from limner.report.encoders import load_encoders, world_encoder
    from limner.report.prompts import Asked
    from limner.report.scores import Drawn, Known, Seen, scores

    torch.set_num_threads(chosen.threads)
    model: Any = validate(SD1, {"path": "builtin"}, where="model").load()
    half = chosen.pictures // 2
    prompts = tuple(caption(scene_at(5, k), stream(5, k, "asked")) for k in range(half))
    request = GenerateRequest(prompts=prompts, seed=0, spread=True)
    known = [draw(scene_at(6, k)) for k in range(40)]
    started = time.perf_counter()
    images = {
        name: [picture.image for picture in generate(model, GenerateRequest(**{**vars(request), "seed": seed}))]
        for seed, name in ((0, "base"), (1000, "tuned"))
    }
    drawing = time.perf_counter() - started
    drawn = Drawn(tuple(Asked(prompt, "recipe") for prompt in prompts), 1)
    with tempfile.TemporaryDirectory() as place:
        report = Report(clip=str(clip(Path(place) / "clip", BUILTIN_FOLDER)), vision=str(dinov2(Path(place) / "dino")))
        encoders, missing = load_encoders(report, torch.device("cpu"), Silent())
        assert not missing, missing
    print(f"{chosen.pictures} pictures of {model.default_size} px, {chosen.threads} threads: drawn in {drawing:.1f} s")
    for encoder in [world_encoder(), *encoders]:
        started = time.perf_counter()
        learned, held_out = encoder.pictures(known[:30]), encoder.pictures(known[30:])
        rows = {name: encoder.pictures(own) for name, own in images.items()}
        seen = time.perf_counter() - started
        eyes = Seen(encoder, Known(learned, held_out), rows, calibrate(learned, held_out))
        found, _ = scores(eyes, drawn, "base", "tuned")
        whole = time.perf_counter() - started
        print(
            f"{Path(encoder.name).name}: sees them and {len(known)} known ones in {seen:.1f} s; {len(found)} numbers "
            f"and intervals too: {whole:.1f} s, {whole / drawing:.1%} of drawing"
        )


if __name__ == "__main__":
    main()

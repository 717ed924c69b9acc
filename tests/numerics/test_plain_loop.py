"""A run of Limner against a plain loop over diffusers' own scheduler, PEFT and torch: the same losses.

The loop below shares with Limner the pictures' order, crops, captions and random numbers, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image

from limner.core.rng import example_seed, tensor_stream
from limner.core.rundir import RunDir, read_metrics
from limner.data.batch import Visit, visit
from limner.data.order import Order
from limner.preflight import plan
from limner.run import finetune
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny

STEPS, BATCH, SEED = 12, 3, 3


def randn(position: int, purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=tensor_stream(SEED, position, purpose))


def latents(pipeline: Any, one: Visit) -> torch.Tensor:
    width, height = one.placement.resize
    left, top, wide, high = one.placement.crop
    with Image.open(one.picture.example.image.path) as file:  # type: ignore[attr-defined]
        picture = file.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    picture = picture.crop((left, top, left + wide, top + high))
    array = np.asarray(picture, dtype=np.float32)
    if one.placement.flip:
        array = array[:, ::-1].copy()
    pixels = torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        distribution = pipeline.vae.encode(pixels).latent_dist
    noise = randn(one.position, "latent", tuple(distribution.mean.shape[1:]))
    return (distribution.mean + distribution.std * noise) * pipeline.vae.config.scaling_factor


def plain_loop(
    model: Path, visits: list[list[Visit]], *, lora: bool, prediction_type: str, gamma: float | None
) -> list[float]:
    """Trains as a diffusers example script does: one picture after the other, gradients added up."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    unet, encoder, tokenizer = pipeline.unet, pipeline.text_encoder, pipeline.tokenizer
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, prediction_type=prediction_type)
    for network in (unet, encoder, pipeline.vae):
        network.requires_grad_(False)
    if lora:
        torch.manual_seed(example_seed(SEED, 0, "adapter unet"))
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    else:
        unet.requires_grad_(True)
    unet.train()
    params = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-2, foreach=False, fused=False)
    losses = []
    for batch in visits:
        total = 0.0
        optimizer.zero_grad()
        for one in batch:
            x_0 = latents(pipeline, one)
            eps = randn(one.position, "noise", tuple(x_0.shape[1:]))[None]
            t = torch.randint(0, 1000, (1,), generator=tensor_stream(SEED, one.position, "timestep"))
            ids = tokenizer(one.caption, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            with torch.no_grad():
                states = encoder(ids.input_ids)[0]
            prediction = unet(scheduler.add_noise(x_0, eps, t), t, encoder_hidden_states=states).sample
            target = scheduler.get_velocity(x_0, eps, t) if prediction_type == "v_prediction" else eps
            loss = torch.nn.functional.mse_loss(prediction, target)
            if gamma is not None:
                a = scheduler.alphas_cumprod[t]
                snr = (a / (1 - a)).item()
                loss = loss * min(snr, gamma) / (snr + 1 if prediction_type == "v_prediction" else snr)
            (loss / len(batch)).backward()
            total += loss.item() / len(batch)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        losses.append(total)
    return losses


CASES: dict[str, tuple[bool, str, float | None]] = {
    "lora": (True, "epsilon", None),
    "full": (False, "epsilon", None),
    "lora, v, min-SNR": (True, "v_prediction", 5.0),
    "lora, min-SNR": (True, "epsilon", 5.0),
}


@pytest.mark.parametrize(("lora", "prediction_type", "gamma"), CASES.values(), ids=CASES)
def test_the_losses_equal_those_of_a_plain_loop(
    tmp_path: Path, drawings: Path, lora: bool, prediction_type: Any, gamma: float | None
) -> None:
    model = save_tiny(tmp_path / "model", prediction_type=prediction_type)
    config = run_config(
        model,
        drawings,
        tmp_path / "run",
        method={"kind": "lora"} if lora else {"kind": "full"},
        objective={"min_snr_gamma": gamma, "offset_noise": 0.0},
        schedule={"kind": "constant", "warmup_steps": 0},
        train={"steps": STEPS, "ema_decay": None},
    )
    ledger = plan(config).ledger
    buckets = sorted({picture.bucket for picture in ledger.prepared})
    order = Order([buckets.index(p.bucket) for p in ledger.prepared], batch_size=BATCH, seed=SEED)
    visits = [
        [
            visit(ledger.prepared[slot], step * BATCH + k, images=config.images, seed=SEED, caption_dropout=0.2)
            for k, slot in enumerate(order.examples_at(step))
        ]
        for step in range(STEPS)
    ]
    expected = plain_loop(model, visits, lora=lora, prediction_type=prediction_type, gamma=gamma)
    finetune(config)
    losses = [line["loss"] for line in read_metrics(RunDir(config.out).metrics)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len({round(loss, 4) for loss in losses}) > STEPS / 2  # twelve losses, not one twelve times

"""The family against diffusers: encode and predict equal a step of its pipeline, the process equals its scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from limner.models import SD1
from limner.models.protocol import DiffusionModel
from limner.models.schedulers import noise_process
from limner.models.sd1 import SD1Model
from tests.tiny import save_tiny

PROMPTS = ["a photo of a red circle", "", "a zebra, 12 years old: naïve? " + "long " * 90]


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample", "sd2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SD1Model, Any]:
    """Our model, and diffusers' pipeline loaded from the same folder by diffusers itself."""
    sd2 = request.param == "sd2"
    prediction_type = "v_prediction" if sd2 else request.param
    folder = save_tiny(tmp_path_factory.mktemp("family") / "model", prediction_type=prediction_type, sd2=sd2, seed=1)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return SD1(path=str(folder)).load(), pipeline


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_prompts_are_encoded_as_the_pipeline_does(pair: tuple[SD1Model, Any]) -> None:
    model, pipeline = pair
    with torch.no_grad():
        ours = model.encode_prompts(PROMPTS)["encoder_hidden_states"]
        theirs, negative = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    assert ours.shape == (3, 77, 32)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours[1], negative[0])
    assert not torch.equal(ours[0], ours[1])


def test_an_attention_mask_is_used_where_an_old_text_encoder_asks_for_it(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    model = SD1(path=str(folder)).load()
    plain = model.encode_prompts(PROMPTS)["encoder_hidden_states"]
    for encoder in (pipeline.text_encoder, model.text_encoder):
        encoder.config.use_attention_mask = True
    masked = model.encode_prompts(PROMPTS)["encoder_hidden_states"]
    assert torch.equal(masked, pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0])
    assert not torch.equal(masked, plain)


def test_a_placeholder_of_several_vectors_is_encoded_as_the_pipeline_does(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.load_textual_inversion({"<toy>": noise(3, 32)}, token="<toy>")
    pipeline.save_pretrained(tmp_path / "with", safe_serialization=True)
    model = SD1(path=str(tmp_path / "with")).load()
    prompts = ["a photo of <toy> on the moon", "a dog"]
    ours = model.encode_prompts(prompts)["encoder_hidden_states"]
    assert torch.equal(ours, pipeline.encode_prompt(prompts, "cpu", 1, False)[0])
    written_out = model.encode_prompts(["a photo of <toy> <toy>_1 <toy>_2 on the moon"])["encoder_hidden_states"]
    assert torch.equal(ours[:1], written_out)


def test_predict_is_the_pipelines_call_of_the_unet(pair: tuple[SD1Model, Any]) -> None:
    model, pipeline = pair
    x_t, t = noise(3, 4, 16, 16), torch.tensor([0, 500, 999])
    with torch.no_grad():
        ours = model.predict(x_t, t, model.encode_prompts(PROMPTS))
        states, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
        theirs = pipeline.unet(x_t, t, encoder_hidden_states=states, return_dict=False)[0]
    assert torch.equal(ours, theirs)


def test_one_step_of_the_pipeline_is_our_prediction_and_ddims_formula(pair: tuple[SD1Model, Any]) -> None:
    """DDIM with eta 0 (arXiv:2010.02502, eq. 12), written out, against the latents after the pipeline's only step."""
    model, pipeline = pair
    x_t = noise(1, 4, 16, 16)
    drawn = pipeline(
        PROMPTS[0], num_inference_steps=1, guidance_scale=1.0, latents=x_t, height=32, width=32, output_type="latent"
    ).images
    (t,) = pipeline.scheduler.timesteps
    with torch.no_grad():
        prediction = model.predict(x_t, t[None], model.encode_prompts(PROMPTS[:1]))
    a_t, a_last = model.process.alphas_cumprod[t], model.process.alphas_cumprod[0]
    eps, x_0 = {
        "epsilon": lambda: (prediction, (x_t - (1 - a_t).sqrt() * prediction) / a_t.sqrt()),
        "sample": lambda: ((x_t - a_t.sqrt() * prediction) / (1 - a_t).sqrt(), prediction),
        "v_prediction": lambda: (
            a_t.sqrt() * prediction + (1 - a_t).sqrt() * x_t,
            a_t.sqrt() * x_t - (1 - a_t).sqrt() * prediction,
        ),
    }[model.process.prediction_type]()
    torch.testing.assert_close(a_last.sqrt() * x_0 + (1 - a_last).sqrt() * eps, drawn, rtol=1e-5, atol=1e-5)


def test_our_pipeline_draws_what_diffusers_draws(pair: tuple[SD1Model, Any]) -> None:
    model, pipeline = pair
    ours, theirs = (
        pipe(
            PROMPTS[0],
            num_inference_steps=3,
            height=32,
            width=32,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for pipe in (model.pipeline(), pipeline)
    )
    assert (ours == theirs).all()


def test_latents_are_the_posterior_with_our_noise_times_the_scale(pair: tuple[SD1Model, Any]) -> None:
    model, pipeline = pair
    pixels, eps = noise(2, 3, 32, 48).clamp(-1, 1), noise(2, 4, 16, 24, seed=1)
    with torch.no_grad():
        posterior = pipeline.vae.encode(pixels).latent_dist
    theirs = (posterior.mean + posterior.std * eps) * pipeline.vae.config.scaling_factor
    moments = model.encode_images(pixels)
    assert torch.equal(moments, posterior.parameters)
    torch.testing.assert_close(model.sample_latents(moments, eps), theirs, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model.sample_latents(moments, eps * 0), posterior.mode() * 0.18215, rtol=1e-6, atol=1e-7)
    assert torch.equal(model.encode_images(pixels), moments), "no randomness"


def test_the_scale_is_the_autoencoders_own(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.5}))
    model = SD1(path=str(folder)).load()
    assert torch.equal(
        model.sample_latents(torch.ones(1, 8, 2, 2), torch.zeros(1, 4, 2, 2)), torch.full((1, 4, 2, 2), 0.5)
    )
    latents = noise(1, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.decode_latents(latents), model.vae.decode(latents / 0.5).sample)


def test_log_variances_are_clamped_as_in_diffusers(tiny_model: SD1Model) -> None:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    moments = torch.cat([torch.zeros(1, 4, 2, 2), torch.full((1, 4, 2, 2), 50.0)], dim=1)
    moments[:, 4:6] = -50.0
    expected = DiagonalGaussianDistribution(moments).std * 0.18215
    assert torch.equal(tiny_model.sample_latents(moments, torch.ones(1, 4, 2, 2)), expected)


def test_decoding_is_the_pipelines(pair: tuple[SD1Model, Any]) -> None:
    model, pipeline = pair
    latents = noise(1, 4, 16, 16) * 0.18215
    with torch.no_grad():
        theirs = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    assert torch.equal(model.decode_latents(latents), theirs)
    assert not model.decode_latents(latents).requires_grad


def test_gradients_flow_to_whatever_trains(tmp_path: Path) -> None:
    model: DiffusionModel = SD1(path=str(save_tiny(tmp_path / "model"))).load()
    for network in (model.denoiser, *model.text_encoders.values()):
        network.requires_grad_(True)
    x_t = noise(1, 4, 8, 8).requires_grad_()
    model.predict(x_t, torch.tensor([3]), model.encode_prompts(["a dog"])).square().sum().backward()
    for network in (model.denoiser, *model.text_encoders.values()):
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        assert sum(float(grad.abs().sum()) for grad in grads) > 0
    assert all(p.grad is None for p in model.networks["vae"].parameters())


# ----------------------------------------------------------------------------------------------- the noise process
@pytest.mark.parametrize(
    ("schedule", "zero_snr"),
    [
        ("linear", False),
        ("scaled_linear", False),
        ("squaredcos_cap_v2", False),
        ("trained", False),
        ("linear", True),
        ("scaled_linear", True),
        ("squaredcos_cap_v2", True),
    ],
)
def test_the_process_is_that_of_diffusers_ddpm_scheduler(schedule: str, zero_snr: bool) -> None:
    config: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear" if schedule == "trained" else schedule,
        "trained_betas": torch.linspace(0.001, 0.02, 500).tolist() if schedule == "trained" else None,
        "num_train_timesteps": 500 if schedule == "trained" else 1000,
        "rescale_betas_zero_snr": zero_snr,
        "prediction_type": "v_prediction",
    }
    theirs = diffusers.DDPMScheduler(**config)
    ours = noise_process({**config, "_class_name": "DDPMScheduler"})
    assert ours.timesteps == config["num_train_timesteps"]
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=2e-5, atol=1e-7)
    if zero_snr:
        assert ours.alphas_cumprod[-1] == 0
    x_0, eps = noise(4, 4, 8, 8), noise(4, 4, 8, 8, seed=1)
    t = torch.tensor([0, 17, 250, ours.timesteps - 1])
    tolerance = {"rtol": 1e-4, "atol": 2e-6} if not zero_snr else {"rtol": 1e-4, "atol": 2e-4}
    torch.testing.assert_close(ours.add_noise(x_0, eps, t), theirs.add_noise(x_0, eps, t), **tolerance)
    torch.testing.assert_close(ours.target(x_0, eps, t), theirs.get_velocity(x_0, eps, t), **tolerance)

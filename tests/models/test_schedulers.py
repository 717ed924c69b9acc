"""The samplers by name, over the model's own noise process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from limner.core.errors import UserError
from limner.models.schedulers import A1111_NAMES, MODEL_CLASSES, SCHEDULERS, make_scheduler, noise_process
from limner.models.sd1 import SD1Model

SD: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""The scheduler_config.json of Stable Diffusion 1.x, as its authors wrote it; it says nothing of prediction_type."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array")  # diffusers with numpy 2.4
        yield


@pytest.mark.parametrize("name", ["", *SCHEDULERS])
def test_each_sampler_draws_from_the_tiny_model(tiny_model: SD1Model, name: str) -> None:
    def draw() -> torch.Tensor:
        pipeline = tiny_model.pipeline(name)
        generator = torch.Generator().manual_seed(3)
        images = pipeline(
            "a red circle", num_inference_steps=3, height=32, width=32, generator=generator, output_type="np"
        ).images
        return torch.from_numpy(np.asarray(images))

    pixels = draw()
    assert pixels.shape == (1, 32, 32, 3)
    assert bool(pixels.isfinite().all())
    assert pixels.std() > 0
    assert torch.equal(pixels, draw()), "a pipeline must leave nothing behind in the model"


@pytest.mark.parametrize("name", list(SCHEDULERS))
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_each_sampler_keeps_the_models_noise_and_prediction_type(name: str, prediction_type: str) -> None:
    scheduler = make_scheduler(name, {**SD, "prediction_type": prediction_type})
    assert type(scheduler).__name__ == SCHEDULERS[name]
    assert scheduler.config.prediction_type == prediction_type
    expected = diffusers.PNDMScheduler.from_config(SD).alphas_cumprod
    assert torch.equal(scheduler.alphas_cumprod, expected)


def test_samplers_of_latents_do_not_clip_them() -> None:
    euler = {key: SD[key] for key in SD if key not in ("clip_sample", "set_alpha_to_one", "steps_offset")}
    for name in ("ddim", "ddpm"):
        config = make_scheduler(name, {**euler, "_class_name": "EulerDiscreteScheduler"}).config
        assert config.clip_sample is False
        assert config.steps_offset == 1
    assert make_scheduler("ddim", {**SD, "clip_sample": True}).config.clip_sample is False
    assert make_scheduler("ddim", euler | {"_class_name": "EulerDiscreteScheduler"}).config.set_alpha_to_one is False


def test_names_differ_in_what_they_promise() -> None:
    assert make_scheduler("dpmpp_2m", {**SD, "use_karras_sigmas": True}).config.use_karras_sigmas is False
    assert make_scheduler("dpmpp_2m_karras", SD).config.use_karras_sigmas is True
    assert make_scheduler("dpmpp_2m", SD).config.algorithm_type == "dpmsolver++"
    assert make_scheduler("dpmpp_2m_sde", SD).config.algorithm_type == "sde-dpmsolver++"
    karras = make_scheduler("dpmpp_2m_sde_karras", SD).config
    assert (karras.algorithm_type, karras.use_karras_sigmas) == ("sde-dpmsolver++", True)


def test_the_models_own_sampler_is_the_one_that_diffusers_would_use(tiny_model: SD1Model) -> None:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tiny_model.folder, use_safetensors=True)
    own = tiny_model.pipeline().scheduler
    assert type(own) is type(pipeline.scheduler)
    left, right = (
        {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
        for scheduler in (own, pipeline.scheduler)
    )
    assert left == right


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"'euler_b' is no sampler\. Did you mean 'euler_a'\?"):
        make_scheduler("euler_b", SD)
    with pytest.raises(UserError, match="Known: ddim"):
        make_scheduler("xyzzy", SD)


def test_a_sampler_that_cannot_do_what_the_model_needs_is_refused() -> None:
    zero = {**SD, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    assert make_scheduler("ddim", zero).alphas_cumprod[-1] == 0
    for name in ("pndm", "heun"):
        with pytest.raises(UserError, match="cannot sample a model with zero terminal SNR"):
            make_scheduler(name, zero)
    sample = {**SD, "prediction_type": "sample"}
    for name in ("pndm", "euler_a", ""):
        with pytest.raises(UserError, match="cannot sample a model that predicts x_0"):
            make_scheduler(name, sample)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in ("pndm", "euler_a")])
def test_every_other_sampler_can_draw_with_a_model_that_predicts_x_0(tiny_model: SD1Model, name: str) -> None:
    pipeline = tiny_model.pipeline()
    pipeline.scheduler = make_scheduler(name, {**SD, "prediction_type": "sample"})
    latents = pipeline("a dog", num_inference_steps=3, height=32, width=32, output_type="latent").images
    assert bool(latents.isfinite().all())


@pytest.mark.parametrize("class_name", MODEL_CLASSES)
def test_every_class_that_a_model_may_name_can_be_built(class_name: str) -> None:
    assert type(make_scheduler("", {**SD, "_class_name": class_name})).__name__ == class_name


def test_what_a_config_leaves_out_is_its_own_classs_default() -> None:
    heun = {"_class_name": "HeunDiscreteScheduler"}
    expected = diffusers.HeunDiscreteScheduler().alphas_cumprod
    assert torch.equal(make_scheduler("ddim", heun).alphas_cumprod, expected)
    torch.testing.assert_close(noise_process(heun).alphas_cumprod, expected, rtol=1e-6, atol=0)
    assert noise_process(heun).prediction_type == "epsilon"


def test_every_name_has_a_name_in_other_programs() -> None:
    assert A1111_NAMES.keys() == SCHEDULERS.keys()
    assert len(set(A1111_NAMES.values())) == len(A1111_NAMES)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prediction_type": "flow"}, "unknown prediction_type 'flow'"),
        ({"beta_schedule": "laplace"}, "unknown beta_schedule 'laplace'"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR"),
        ({"trained_betas": "0.1"}, "no list of numbers"),
        ({"num_train_timesteps": "1000"}, "'1000' timesteps"),
        ({"beta_start": None}, "betas from None"),
    ],
)
def test_a_noise_process_that_is_not_understood_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        noise_process({**SD, "_class_name": "DDIMScheduler", **changes})

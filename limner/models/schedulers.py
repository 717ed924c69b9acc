"""The samplers by name, built from a model's own noise schedule."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from limner.core.errors import UserError
from limner.diffusion.process import BetaSchedule, NoiseProcess, PredictionType, alphas_cumprod

SCHEDULERS: dict[str, str] = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_karras": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde_karras": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The names that users give, and diffusers' classes behind them."""

A1111_NAMES: dict[str, str] = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PLMS",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_karras": "DPM++ 2M SDE Karras",
    "unipc": "UniPC",
}
"""The same samplers as the text in a picture made by AUTOMATIC1111's program calls them."""

MODEL_CLASSES: tuple[str, ...] = (
    *dict.fromkeys(SCHEDULERS.values()),
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
"""The scheduler classes that a model's scheduler_config.json may name."""

_SETTINGS: dict[str, dict[str, Any]] = {
    "pndm": {"skip_prk_steps": True},
    "dpmpp_2m_karras": {"use_karras_sigmas": True},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
    "dpmpp_2m_sde_karras": {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
}
_LATENT_SPACE = {"clip_sample": False, "steps_offset": 1}  # StableDiffusionPipeline.__init__ sets both
_NO_SAMPLE_PREDICTION = (
    "PNDMScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
)
_NOISE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


def noise_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what decides the noise process; what a scheduler_config.json leaves out is its own class's default."""
    defaults = _parameters(str(config["_class_name"]))
    settings = {key: config[key] if key in config else defaults.get(key) for key in _NOISE_KEYS}
    settings["prediction_type"] = settings["prediction_type"] or "epsilon"
    settings["rescale_betas_zero_snr"] = bool(settings["rescale_betas_zero_snr"])
    return settings


def noise_process(config: Mapping[str, Any]) -> NoiseProcess:
    """Returns the forward process that a scheduler_config.json describes."""
    import torch

    settings = noise_settings(config)
    prediction_type: PredictionType = settings["prediction_type"]
    schedule: BetaSchedule = settings["beta_schedule"]
    betas, zero_snr = settings["trained_betas"], settings["rescale_betas_zero_snr"]
    if prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise _unusable(f"has the unknown prediction_type {prediction_type!r}", "Set model.prediction_type.")
    if zero_snr and prediction_type == "epsilon":
        what = "ends in pure noise (zero terminal SNR), where a model that predicts the noise learns nothing"
        raise _unusable(what, "Such models predict v: set model.prediction_type: v_prediction.")
    if betas is not None:
        if zero_snr or not isinstance(betas, list) or not all(isinstance(beta, float) for beta in betas):
            raise _unusable("has trained_betas that are no list of numbers, or are to be rescaled", "")
        return NoiseProcess(torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), dim=0), prediction_type)
    if schedule not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        what = f"has the unknown beta_schedule {schedule!r}"
        raise _unusable(what, "Known: linear, scaled_linear, squaredcos_cap_v2.")
    timesteps, start, end = settings["num_train_timesteps"], settings["beta_start"], settings["beta_end"]
    if type(timesteps) is not int or timesteps < 1 or not isinstance(start, float) or not isinstance(end, float):
        raise _unusable(f"has {timesteps!r} timesteps with betas from {start!r} to {end!r}", "")
    products = alphas_cumprod(
        schedule=schedule, timesteps=timesteps, beta_start=start, beta_end=end, zero_terminal_snr=zero_snr
    )
    return NoiseProcess(products, prediction_type)


def _unusable(what: str, fix: str) -> UserError:
    return UserError(
        f"{what}.", where="scheduler_config.json", fix=fix or "Use the file of the model that this one was made from."
    )


def check_scheduler_name(name: str, *, where: str) -> None:
    """Raises UserError with a suggestion where ``name`` is neither "" nor one of the samplers."""
    if name and name not in SCHEDULERS:
        close = difflib.get_close_matches(name, SCHEDULERS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(SCHEDULERS)}."
        raise UserError(f"{name!r} is no sampler.", where=where, fix=hint)


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """Returns a new diffusers scheduler over the model's noise process; ``name`` "" is the model's own.

    ``config`` is the model's scheduler_config.json.
    """
    check_scheduler_name(name, where="scheduler")
    noise = noise_settings(config)
    if name == "":
        class_name = str(config["_class_name"])
        settings = {**config, **_LATENT_SPACE}
    else:
        class_name = SCHEDULERS[name]
        settings = {"set_alpha_to_one": False, **noise, **_SETTINGS.get(name, {}), **_LATENT_SPACE}
        if "timestep_spacing" in config:
            settings["timestep_spacing"] = config["timestep_spacing"]
    accepted = _parameters(class_name)
    _refuse_misfit(name or class_name, class_name, noise, accepted)
    return _scheduler_class(class_name)(**{key: value for key, value in settings.items() if key in accepted})


def _refuse_misfit(name: str, class_name: str, noise: Mapping[str, Any], accepted: Mapping[str, Any]) -> None:
    fix = "Use ddim, which can."
    if noise["rescale_betas_zero_snr"] and "rescale_betas_zero_snr" not in accepted:
        raise UserError(f"{name!r} cannot sample a model with zero terminal SNR.", where="scheduler", fix=fix)
    if noise["prediction_type"] == "sample" and class_name in _NO_SAMPLE_PREDICTION:
        raise UserError(f"{name!r} cannot sample a model that predicts x_0.", where="scheduler", fix=fix)


def _scheduler_class(class_name: str) -> Any:
    import diffusers

    classes = (
        diffusers.DDIMScheduler,
        diffusers.DDPMScheduler,
        diffusers.PNDMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.EulerAncestralDiscreteScheduler,
        diffusers.HeunDiscreteScheduler,
        diffusers.DPMSolverMultistepScheduler,
        diffusers.UniPCMultistepScheduler,
        diffusers.DPMSolverSinglestepScheduler,
        diffusers.KDPM2DiscreteScheduler,
        diffusers.KDPM2AncestralDiscreteScheduler,
        diffusers.DEISMultistepScheduler,
        diffusers.LCMScheduler,
        diffusers.TCDScheduler,
    )
    return {cls.__name__: cls for cls in classes}[class_name]


def _parameters(class_name: str) -> dict[str, Any]:
    """Returns the settings of a scheduler class and their defaults."""
    parameters = inspect.signature(_scheduler_class(class_name).__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "self"}

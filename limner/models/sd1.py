"""Stable Diffusion 1.x, and 2.x from diffusers folders: one dataclass around diffusers' and transformers' networks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.diffusion.process import NoiseProcess
from limner.models.evaluating import in_float32
from limner.models.placeholder import add_trained_word
from limner.models.protocol import Conditioning, ModelSource
from limner.models.safety import CONVERT
from limner.models.schedulers import make_scheduler, noise_process, noise_settings
from limner.models.sd1_folder import SMALL_FILES, STEMS, SD1Folder, check_folder, hub_patterns
from limner.models.text_encoder import TextEncoder
from limner.models.tokens import TokenCounter, spell_out
from limner.models.weights import content_hash, download, find_weights, locate, weight_patterns

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor, nn
    from transformers import CLIPTextModel, CLIPTokenizer

SINGLE_FILE_SETTINGS = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""The Hub model whose settings and vocabulary a single file gets where none are named."""


class SD1(Config):
    """Stable Diffusion 1.x (from a folder also 2.x), and the many models made from it."""

    kind: Literal["sd1"] = "sd1"
    path: str = Field(min_length=1)
    """A Hub id such as CompVis/stable-diffusion-v1-4, a diffusers folder, a single .safetensors file, or builtin."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; unset is its main branch."""
    prediction_type: Literal["auto", "epsilon", "v_prediction", "sample"] = "auto"
    """What the denoiser predicts: noise, v or the picture. auto is what the model's scheduler says."""
    config_path: str | None = None
    """For a single file without the Hub: a diffusers folder with the settings and the tokenizer that the file lacks."""
    text_encoder: TextEncoder | None = None
    """The text encoder of a tuned CLIP in place of the model's own: PATH, PATH:BLEND, or path and blend as keys."""

    def load(self) -> SD1Model:
        """Returns the model in float32, not training. A Hub model is downloaded first."""
        from limner.models.sd1_networks import load_file, load_folder, load_tokenizer

        place = locate(self.path, self.revision, hub_patterns=hub_patterns())
        if place.path.is_file():
            folder = self._settings_of(place.path)
            networks = load_file(place.path, folder)
        else:
            folder = self._whole_folder(place.path, place.revision)
            networks = load_folder(folder)
        scheduler, notice = self._scheduler(folder)
        family = "sd2" if folder.configs["unet"].get("use_linear_projection") else "sd1"
        model = SD1Model(
            unet=networks.unet,
            vae=networks.vae,
            text_encoder=networks.text_encoder,
            tokenizer=load_tokenizer(folder),
            process=noise_process(scheduler),
            scheduler_config=scheduler,
            source=ModelSource(self.path, family, place.revision),
            folder=folder.path,
            left_out=folder.left_out,
            notices=(*networks.notices, *notice),
            size_multiple=folder.size_multiple,
            default_size=folder.default_size,
        )
        return model if self.text_encoder is None else model.with_text_encoder(self.text_encoder)

    def token_counter(self) -> TokenCounter:
        """Returns what can be said of captions and sizes without reading weights."""
        from limner.models.sd1_networks import load_tokenizer

        folder = self._small_files()
        tokenizer = load_tokenizer(folder)
        if self.text_encoder is not None:
            self.text_encoder.check(folder.configs["text_encoder"], tokenizer)
        return TokenCounter(tokenizer, limit=tokenizer.model_max_length, size_multiple=folder.size_multiple)

    def outline(self) -> dict[str, nn.Module]:
        """Returns the networks that may train, by name and without numbers (on the meta device): their layers only."""
        import torch
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        configs = self._small_files().configs
        with torch.device("meta"):
            return {
                "unet": UNet2DConditionModel.from_config(configs["unet"]),
                "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
            }

    def _small_files(self) -> SD1Folder:
        """Returns the settings and the tokenizer's files, without weights."""
        place = locate(self.path, self.revision, hub_patterns=SMALL_FILES)
        if place.path.is_file():
            return self._settings_of(place.path)
        self._refuse_config_path()
        return check_folder(place.path)

    def _settings_of(self, file: Path) -> SD1Folder:
        from limner.models.sd1_networks import check_file

        check_file(file)
        if self.config_path is None:
            try:
                return check_folder(download(SINGLE_FILE_SETTINGS, None, SMALL_FILES))
            except UserError as error:
                raise UserError(
                    f"a single file has no tokenizer and no settings, and those of {error.what}",
                    where=self.path,
                    fix="Set model.config_path to a diffusers folder of the same kind of model.",
                ) from None
        folder = Path(self.config_path).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"{self.config_path!r} is no folder.", where="model.config_path", fix="Name a diffusers folder."
            )
        return check_folder(folder)

    def _whole_folder(self, path: Path, commit: str | None) -> SD1Folder:
        """Checks a folder; of a Hub model without float32 files the half precision ones are downloaded too."""
        self._refuse_config_path()
        folder = check_folder(path)
        missing = [] if commit is None else _without_weights(path)
        if missing:
            patterns = [name for part in missing for name in weight_patterns(part, STEMS[part], "fp16")]
            download(self.path, commit, patterns)
            folder = check_folder(path)
            if _without_weights(path):
                raise UserError(
                    f"{self.path!r} offers no safetensors for {', '.join(_without_weights(path))}.",
                    where="model.path",
                    fix=f"Look for another revision or model. If it offers pickles (.bin): {CONVERT}",
                )
        return folder

    def _refuse_config_path(self) -> None:
        if self.config_path is not None:
            raise UserError(
                f"{self.config_path!r} has no meaning for {self.path!r}, which has settings of its own.",
                where="model.config_path",
                fix="Leave it out; it is for single files.",
            )

    def _scheduler(self, folder: SD1Folder) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Returns the scheduler's settings with the prediction type in force, and what a person should be told."""
        config = folder.configs["scheduler"]
        says = noise_settings(config)["prediction_type"]
        if self.prediction_type in ("auto", says):
            return config, ()
        told = (
            f"{self.path} says that it predicts {says}; used as {self.prediction_type} because of model.prediction_type"
        )
        return {**config, "prediction_type": self.prediction_type}, (told,)


def _without_weights(path: Path) -> list[str]:
    return [part for part, stem in STEMS.items() if find_weights(path / part, stem) is None]


@dataclass(frozen=True, eq=False)
class SD1Model:
    """A :class:`~limner.models.protocol.DiffusionModel` of three networks and a tokenizer."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    process: NoiseProcess
    scheduler_config: Mapping[str, Any]
    """The model's scheduler_config.json, with the prediction type in force."""
    source: ModelSource
    folder: Path
    """The diffusers folder whose small files (tokenizer, settings) belong to the model; single files borrow one."""
    left_out: tuple[str, ...]
    """Components of the folder that are not loaded, such as ``safety_checker``."""
    notices: tuple[str, ...]
    """What a person should be told about the files and settings, a sentence each."""
    size_multiple: int
    """Both sides of a picture must be multiples of this many pixels."""
    default_size: int
    """The side, in pixels, of the pictures that the model was made for."""

    def with_text_encoder(self, choice: TextEncoder) -> SD1Model:
        """Returns a model of the same denoiser and autoencoder with a tuned text encoder in place of the own one.

        Call it on a model as it was loaded: in float32, nothing put on it. Raises UserError where it does not fit.
        """
        swapped = choice.in_place_of(self.text_encoder, self.tokenizer)
        source = dataclasses.replace(self.source, text_encoder=swapped.source)
        notices = (*self.notices, *swapped.notices)
        return dataclasses.replace(self, text_encoder=swapped.network, source=source, notices=notices)

    @property
    def denoiser(self) -> nn.Module:
        return self.unet

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.text_encoder}

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    @property
    def token_limit(self) -> int:
        return int(self.tokenizer.model_max_length)

    def identity(self) -> dict[str, str]:
        """Returns what must stay for a checkpoint to be continued: hashes of weights and settings, before training."""
        return {
            "denoiser": self.denoiser_hash(),
            "text_encoder": self.text_encoder_hash(),
            "autoencoder": self.image_encoder_hash(),
            "prediction_type": self.process.prediction_type,
            "noise": hashlib.sha256(self.process.alphas_cumprod.numpy().tobytes()).hexdigest(),
        }

    def full_parts(self, *, text_encoder: bool) -> dict[str, nn.Module]:
        """Returns what full fine-tuning trains: the denoiser, and the text encoder if asked for."""
        return {"unet": self.unet, **(self.text_encoders if text_encoder else {})}

    def to(self, device: torch.device, dtype: torch.dtype, *, float32: Collection[str] = ()) -> None:
        """Moves the networks; those named in ``float32`` keep it, and so does the autoencoder, which would overflow."""
        import torch
        from torch import nn

        for name, network in self.networks.items():
            nn.Module.to(network, device, torch.float32 if name == "vae" or name in float32 else dtype)

    def train_mode(self, parts: Collection[str]) -> None:
        """Puts the networks named in ``parts`` into training mode and the others into evaluation mode."""
        for name, network in self.networks.items():
            network.train(name in parts)

    def checkpoint_gradients(self) -> None:
        """Makes what trains compute activations again in the backward pass: less memory, more time.

        Call it after the method was applied: a frozen text encoder is left alone, it would keep a graph for nothing.
        """
        self.unet.enable_gradient_checkpointing()
        if any(parameter.requires_grad for parameter in self.vae.parameters()):
            self.vae.enable_gradient_checkpointing()
        if any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            self.text_encoder.activation_checkpointing_enable({"use_reentrant": False})

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Returns the tokens of each prompt, the two special ones included, before any cut."""
        return TokenCounter(self.tokenizer, self.token_limit, self.size_multiple).count(prompts)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Returns the moments of the posterior (means, then log variances), [B, 2C, h, w] float32; no randomness."""
        import torch

        device = self.vae.device
        with torch.no_grad(), in_float32(device):
            moments: Tensor = self.vae.encode(pixels.to(device, torch.float32)).latent_dist.parameters
        return moments

    def reconstruct(self, pixels: Tensor, noise: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the moments [B, 2C, h, w] of pixels and the pixels [B, 3, H, W] decoded from a sample of them.

        ``noise`` gives the sample's normal numbers, [B, C, h, w] for the shape (C, h, w). Gradients flow; float32.
        """
        with in_float32(pixels.device):
            moments: Tensor = self.vae.encode(pixels).latent_dist.parameters
            shape = (moments.shape[1] // 2, *moments.shape[2:])
            rebuilt: Tensor = self.vae.decode(_sample(moments, noise(shape).to(pixels.device))).sample
        return moments, rebuilt

    def sample_latents(self, moments: Tensor, eps: Tensor) -> Tensor:
        """Returns scaled latents [B, C, h, w] = scale * (mean + std * eps)."""
        scaled: Tensor = _sample(moments, eps) * self.vae.config.scaling_factor
        return scaled

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] float32, about in [-1, 1]; latents of any type."""
        import torch

        device = self.vae.device
        with torch.no_grad(), in_float32(device):
            unscaled = latents.to(device, torch.float32) / self.vae.config.scaling_factor
            pixels: Tensor = self.vae.decode(unscaled).sample
        return pixels

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Returns ``encoder_hidden_states`` [B, L, D]; prompts are cut at the token limit and padded to it."""
        device = self.text_encoder.device
        inputs = self.tokenizer(
            spell_out(prompts, self.tokenizer),
            padding="max_length",
            max_length=self.token_limit,
            truncation=True,
            return_tensors="pt",
        )
        masked = self.text_encoder.config.to_dict().get("use_attention_mask", False)  # a few old models ask for it
        mask = inputs.attention_mask.to(device) if masked else None
        return {"encoder_hidden_states": self.text_encoder(inputs.input_ids.to(device), attention_mask=mask)[0]}

    def add_placeholder(self, token: str, vectors: int, initialise: str) -> dict[str, nn.Parameter]:
        """Makes ``token`` a new word of ``vectors`` vectors that train, and returns them by name, [D] float32 each.

        They begin as those of the word ``initialise``. Raises UserError where one of the two words does not do.
        """
        params = add_trained_word(self.tokenizer, self.text_encoder, token, vectors, initialise)
        return {f"text_encoder.{name}": parameter for name, parameter in params.items()}

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the denoiser's output, [B, C, h, w] float32; t is [B]."""
        dtype = self.unet.conv_in.weight.dtype
        states = conditioning["encoder_hidden_states"].to(dtype)
        prediction: Tensor = self.unet(x_t.to(dtype), t, encoder_hidden_states=states).sample
        return prediction.float()

    def image_encoder_hash(self) -> str:
        """Returns the hash of the autoencoder's weights and settings at the first call."""
        return self._vae_hash

    def text_encoder_hash(self) -> str:
        """Returns the hash of the text encoder's weights and settings and the tokenizer at the first call."""
        return self._text_hash

    def denoiser_hash(self) -> str:
        """Returns the hash of the denoiser's weights and settings at the first call, which must be before training."""
        return self._unet_hash

    @functools.cached_property
    def _vae_hash(self) -> str:
        _refuse_trained("vae", self.vae)
        return content_hash(self.vae, self.vae.config)

    @functools.cached_property
    def _text_hash(self) -> str:
        _refuse_trained("text_encoder", self.text_encoder)
        words = json.loads(self.tokenizer.backend_tokenizer.to_str())
        words = {key: value for key, value in words.items() if key not in ("truncation", "padding")}  # set at each call
        settings = (str(self.token_limit), str(self.tokenizer.pad_token))
        return content_hash(self.text_encoder, self.text_encoder.config.to_dict(), json.dumps(words), *settings)

    @functools.cached_property
    def _unet_hash(self) -> str:
        _refuse_trained("unet", self.unet)
        return content_hash(self.unet, self.unet.config)

    def pipeline(self, scheduler: str = "") -> StableDiffusionPipeline:
        """Returns a diffusers pipeline around the same networks, with the sampler of that name or the model's own.

        Where :meth:`to` chose half precision the pipeline cannot decode, since the autoencoder stays in float32: call
        it with ``output_type="latent"`` and give the latents to :meth:`decode_latents`, right in every precision.
        """
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=make_scheduler(scheduler, self.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _sample(moments: Tensor, eps: Tensor) -> Tensor:
    """Returns mean + std * eps, [B, C, h, w]."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance.clamp(-30.0, 20.0)).exp() * eps  # bounds as in DiagonalGaussianDistribution


def _refuse_trained(name: str, network: nn.Module) -> None:
    if any(parameter.requires_grad for parameter in network.parameters()):
        raise RuntimeError(f"the hash of {name} must be taken before it is trained: it stands for the base model")

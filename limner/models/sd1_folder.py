"""A Stable Diffusion folder in diffusers' layout, checked from top to bottom before a library reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.models.safety import MAX_VOCABULARY_BYTES, check_tree, read_config, read_json
from limner.models.schedulers import MODEL_CLASSES
from limner.models.weights import weight_patterns

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""The networks of a folder, and the names of their weight files."""

SMALL_FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/added_tokens.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
"""Everything but the weights; the names are also Hub patterns."""

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
_OTHER_PIPELINES = {
    "StableDiffusionInpaintPipeline": "an inpainting model",
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
    "StableDiffusionXLImg2ImgPipeline": "a Stable Diffusion XL refiner",
    "StableDiffusionXLInpaintPipeline": "a Stable Diffusion XL inpainting model",
    "StableDiffusionDepth2ImgPipeline": "a depth-conditioned model",
    "StableDiffusionUpscalePipeline": "an upscaler",
    "StableDiffusionInstructPix2PixPipeline": "an InstructPix2Pix model",
    "StableDiffusion3Pipeline": "Stable Diffusion 3",
    "FluxPipeline": "FLUX",
}
_COMPONENTS = {
    "unet": (("diffusers", "UNet2DConditionModel"),),
    "vae": (("diffusers", "AutoencoderKL"),),
    "text_encoder": (("transformers", "CLIPTextModel"),),
    "tokenizer": (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")),
    "scheduler": tuple(("diffusers", name) for name in MODEL_CLASSES),
}
_LEFT_OUT = {
    "safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),),
    "feature_extractor": tuple(
        ("transformers", name)
        for name in ("CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
    ),
    "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
}
_CHANNELS = {9: "an inpainting model", 8: "an InstructPix2Pix model", 7: "an upscaler", 5: "a depth-conditioned model"}
_UNSUPPORTED = {
    "addition_embed_type": "takes a second text embedding or sizes, as Stable Diffusion XL does",
    "class_embed_type": "takes a class or a noise level beside the prompt",
    "num_class_embeds": "takes a class or a noise level beside the prompt",
    "encoder_hid_dim_type": "projects its prompts or pictures by a layer of its own",
    "time_cond_proj_dim": "takes the guidance scale as an input, as distilled LCM models do",
}
_WRONG_SIZES = tuple(f"0.{minor}." for minor in range(9))  # diffusers below 0.9 often wrote 32 where 64 was meant
_THIS_VERSION = "This version of Limner trains Stable Diffusion 1.x and 2.x."


@dataclass(frozen=True)
class SD1Folder:
    """A checked folder. ``configs`` holds the settings of ``unet``, ``vae``, ``text_encoder`` and ``scheduler``."""

    path: Path
    configs: dict[str, dict[str, Any]]
    left_out: tuple[str, ...]
    """Components that are there and that Limner does not load, such as ``safety_checker``."""

    @property
    def size_multiple(self) -> int:
        """Both sides of a picture must be multiples of this: what autoencoder and denoiser halve."""
        return self._latent_factor * int(2 ** (len(self.configs["unet"]["block_out_channels"]) - 1))

    @property
    def default_size(self) -> int:
        """The side, in pixels, of the pictures that the model was made for."""
        unet = self.configs["unet"]
        size = unet.get("sample_size") or 64
        side = max(size) if isinstance(size, list) else int(size)
        if str(unet.get("_diffusers_version", "0.9")).startswith(_WRONG_SIZES):
            side = max(side, 64)
        return side * self._latent_factor

    @property
    def _latent_factor(self) -> int:
        return int(2 ** (len(self.configs["vae"]["block_out_channels"]) - 1))


def hub_patterns(variant: str = "") -> list[str]:
    """Returns the Hub patterns of a whole model."""
    return [*SMALL_FILES, *(name for part, stem in STEMS.items() for name in weight_patterns(part, stem, variant))]


def check_folder(path: Path) -> SD1Folder:
    """Returns the folder's settings; raises for another kind of model, and for whatever could make a library run code.

    Weights are not looked for: a folder with only the small files will do for counting tokens.
    """
    if not (path / "model_index.json").is_file():
        raise _no_index(path)
    check_tree(path)
    index = read_config(path / "model_index.json")
    _check_index(index, path / "model_index.json")
    for part in _COMPONENTS:
        if (path / part / "adapter_config.json").exists():
            raise UserError("is a PEFT adapter inside a model.", where=str(path / part), fix="Merge it, or remove it.")
    configs = {part: read_config(path / part / "config.json") for part in STEMS}
    configs["scheduler"] = read_config(path / "scheduler" / "scheduler_config.json")
    _check_classes(configs, path)
    _check_denoiser(configs, path)
    _check_tokenizer(path / "tokenizer")
    left_out = tuple(part for part in _LEFT_OUT if index.get(part, [None, None]) != [None, None])
    return SD1Folder(path, configs, left_out)


def _no_index(path: Path) -> UserError:
    """Returns the error for a folder without model_index.json; says what it is where that is known."""
    where, fix = str(path), "Name a diffusers folder (with model_index.json), a Hub id or a .safetensors file."
    if (path / "adapter_config.json").exists() or (path / "pytorch_lora_weights.safetensors").exists():
        fix = "Name the model that it belongs to; use the LoRA with --adapter."
        return UserError("holds a LoRA, a change to a model, not a model.", where=where, fix=fix)
    if (path / "config.json").exists():
        return UserError("is one network, not a whole model: it has no model_index.json.", where=where, fix=fix)
    files = sorted(path.glob("*.safetensors"))
    if files:
        return UserError("has no model_index.json.", where=where, fix=f"Name the file itself, as in {files[0]}")
    return UserError("has no model_index.json, so it is no model.", where=where, fix=fix)


def _check_index(index: dict[str, Any], file: Path) -> None:
    name = index.get("_class_name")
    if name not in _PIPELINES:
        what = _OTHER_PIPELINES.get(str(name), f"a {name}")
        raise UserError(
            f"says that this is {what}, not Stable Diffusion 1.x or 2.x.", where=str(file), fix=_THIS_VERSION
        )
    allowed = {**_COMPONENTS, **_LEFT_OUT}
    for part, value in index.items():
        if not isinstance(value, list | dict) or (part in _LEFT_OUT and value == [None, None]):
            continue
        if part not in allowed or not isinstance(value, list) or tuple(value) not in allowed[part]:
            known = ", ".join(" ".join(pair) for pair in allowed.get(part, ()))
            fix = f"Known there: {known}." if known else "Stable Diffusion has no such part."
            raise UserError(f"wants {value!r} for {part!r}, which Limner does not load.", where=str(file), fix=fix)
    missing = [part for part in _COMPONENTS if part not in index]
    if missing:
        raise UserError(f"names no {', no '.join(missing)}.", where=str(file), fix="Download the model again, whole.")


def _check_classes(configs: dict[str, dict[str, Any]], path: Path) -> None:
    """Raises where a network's own config names another class than the index does."""
    expected = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    for part, name in expected.items():
        found = configs[part].get("_class_name")
        if found != name:
            raise UserError(f"is a {found}, not a {name}.", where=str(path / part / "config.json"), fix=_THIS_VERSION)
    text = configs["text_encoder"]
    found = text.get("model_type"), text.get("architectures", ["CLIPTextModel"])
    if found != ("clip_text_model", ["CLIPTextModel"]):
        where = str(path / "text_encoder" / "config.json")
        raise UserError(f"is {found[0]} {found[1]}, not a CLIPTextModel.", where=where, fix=_THIS_VERSION)
    found = configs["scheduler"].get("_class_name")
    if found not in MODEL_CLASSES:
        where = str(path / "scheduler" / "scheduler_config.json")
        raise UserError(f"names {found!r}.", where=where, fix=f"Known: {', '.join(MODEL_CLASSES)}.")


def _check_denoiser(configs: dict[str, dict[str, Any]], path: Path) -> None:
    unet, where = configs["unet"], str(path / "unet" / "config.json")
    channels, latents = unet.get("in_channels", 4), configs["vae"].get("latent_channels", 4)
    if channels != latents:
        what = _CHANNELS.get(channels, "a model of another kind") if isinstance(channels, int) else "damaged"
        raise UserError(
            f"takes {channels} input channels for latents of {latents}: it is {what}.", where=where, fix=_THIS_VERSION
        )
    for key, what in _UNSUPPORTED.items():
        if unet.get(key) is not None:
            raise UserError(f"{what} ({key}: {unet[key]!r}).", where=where, fix=_THIS_VERSION)
    width, wanted = configs["text_encoder"].get("hidden_size"), unet.get("cross_attention_dim")
    if width != wanted:
        raise UserError(
            f"reads text states of width {wanted}, and the text encoder gives {width}.",
            where=where,
            fix="Use the text encoder that the model was trained with.",
        )
    for part in ("unet", "vae"):
        levels = configs[part].get("block_out_channels")
        if not isinstance(levels, list) or not levels:
            raise UserError("has no block_out_channels.", where=str(path / part / "config.json"), fix=_THIS_VERSION)


def _check_tokenizer(folder: Path) -> None:
    """Raises without a vocabulary: transformers would make up one of three words and say nothing."""
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        if (folder / name).exists():
            read_json(folder / name, limit=MAX_VOCABULARY_BYTES)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            read_config(folder / name)
    classic = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if not classic and not (folder / "tokenizer.json").is_file():
        raise UserError(
            "has no vocabulary: neither tokenizer.json nor vocab.json with merges.txt.",
            where=str(folder),
            fix="Download the model again, whole.",
        )

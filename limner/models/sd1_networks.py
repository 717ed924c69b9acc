"""Checked files to networks in float32: every tensor of the file in its place, none made up."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.models.safety import TensorInfo, read_safetensors_header
from limner.models.sd1_folder import STEMS, SD1Folder
from limner.models.weights import WeightFiles, find_weights, no_weights, quiet, recognise, refuse_kind

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import Tensor, nn
    from transformers import CLIPTextModel, CLIPTokenizer

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_DAMAGED = "Download the model again, whole."


@dataclass(frozen=True)
class SD1Networks:
    """Three networks that do not train: evaluation mode, float32, no gradients."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    notices: tuple[str, ...] = ()
    """What a person should be told about the files, a sentence each."""


def load_folder(folder: SD1Folder) -> SD1Networks:
    """Returns the networks of a checked diffusers folder; only safetensors are read."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    weights = {part: _weights(folder.path / part, stem) for part, stem in STEMS.items()}
    with quiet():
        networks = SD1Networks(
            unet=_diffusers_network(UNet2DConditionModel, folder.path / "unet", weights["unet"]),
            vae=_diffusers_network(AutoencoderKL, folder.path / "vae", weights["vae"]),
            text_encoder=_text_encoder(folder, _tensors(weights["text_encoder"].files), folder.path / "text_encoder"),
            notices=tuple(_notices(folder.path, weights)),
        )
    return _settled(networks)


def load_file(file: Path, config: SD1Folder) -> SD1Networks:
    """Returns the networks of a single file in CompVis' layout; ``config`` has the settings that the file lacks."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    tensors = check_file(file)
    with quiet():
        networks = SD1Networks(
            unet=_original_network(UNet2DConditionModel, file, _UNET, tensors, config.path, "unet"),
            vae=_original_network(AutoencoderKL, file, _VAE, tensors, config.path, "vae"),
            text_encoder=_text_encoder(config, _tensors([file], prefix=_TEXT), file),
        )
    return _settled(networks)


def check_file(file: Path) -> dict[str, TensorInfo]:
    """Returns the tensors that a single file names; raises unless it is a whole Stable Diffusion 1.x model."""
    tensors = read_safetensors_header(file).tensors
    kind = recognise(tensors)
    if kind != "sd1":
        raise refuse_kind(kind, str(file))
    return tensors


def load_tokenizer(folder: SD1Folder) -> CLIPTokenizer:
    """Returns the tokenizer; its ``model_max_length`` is what the text encoder can read."""
    from transformers import CLIPTokenizer

    where = folder.path / "tokenizer"
    with _as_user_error(where):
        tokenizer = CLIPTokenizer.from_pretrained(str(where), local_files_only=True)
    settings = folder.configs["text_encoder"]
    words = settings.get("vocab_size", 49408)
    if len(tokenizer) > words:
        raise UserError(
            f"has {len(tokenizer):,} words, and the text encoder knows {words:,}.",
            where=str(where),
            fix="Use the tokenizer that belongs to the text encoder.",
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, settings.get("max_position_embeddings", 77))
    return tokenizer


def _weights(folder: Path, stem: str) -> WeightFiles:
    weights = find_weights(folder, stem)
    if weights is None:
        raise no_weights(folder, stem)
    return weights


def _notices(path: Path, weights: dict[str, WeightFiles]) -> Iterator[str]:
    half = [part for part, files in weights.items() if files.variant]
    if half:
        yield f"{path}: {', '.join(half)} in half precision (fp16 files), there are no others; used as float32"


def _diffusers_network(cls: Any, folder: Path, weights: WeightFiles) -> Any:
    import torch

    with _as_user_error(folder):
        network, info = cls.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            variant=weights.variant or None,
            dtype=torch.float32,
            output_loading_info=True,
        )
    _refuse_gaps(folder, info["missing_keys"], info["unexpected_keys"])
    return network


def _original_network(
    cls: Any, file: Path, prefix: str, tensors: dict[str, TensorInfo], config: Path, part: str
) -> Any:
    import torch

    with _as_user_error(file):
        network = cls.from_single_file(
            str(file), config=str(config), subfolder=part, dtype=torch.float32, local_files_only=True
        )
    given = sum(name.startswith(prefix) for name in tensors)
    missing = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    wanted = len(network.state_dict())
    if not missing and given != wanted:
        raise UserError(
            f"has {given} tensors for {part}, and its settings in {config} want {wanted}.",
            where=str(file),
            fix="Name the settings of the right model with model.config_path.",
        )
    _refuse_gaps(file, missing, [])
    return network


def _tensors(files: Sequence[Path], *, prefix: str = "") -> dict[str, Tensor]:
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no dict
            tensors.update({name.removeprefix(prefix): opened.get_tensor(name) for name in names})
    return tensors


def _text_encoder(folder: SD1Folder, tensors: dict[str, Tensor], where: Path) -> CLIPTextModel:
    """Builds the text encoder; its tensors may be named as transformers 5 does, or with ``text_model.`` before."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    with _as_user_error(where):
        network, info = CLIPTextModel.from_pretrained(
            None,
            config=CLIPTextConfig.from_dict(folder.configs["text_encoder"]),
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    misshapen = [str(name) for name, *_ in info["mismatched_keys"]]
    _refuse_gaps(where, [*info["missing_keys"], *misshapen], info["unexpected_keys"])
    return network


def _refuse_gaps(where: Path, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raises for tensors that would be made up, and for tensors that would be ignored."""
    for names, what in ((missing, "lacks in the right shape"), (unexpected, "has, beside what its settings ask for,")):
        if names:
            raise UserError(f"{what} {len(names)} tensors, such as {min(names)!r}.", where=str(where), fix=_DAMAGED)


@contextlib.contextmanager
def _as_user_error(where: Path) -> Iterator[None]:
    """Says that a file does not fit its settings where the libraries say so by one of these exceptions."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"does not fit its settings: {reason}", where=str(where), fix=_DAMAGED) from error


def _settled(networks: SD1Networks) -> SD1Networks:
    every: tuple[nn.Module, ...] = (networks.unet, networks.vae, networks.text_encoder)
    for network in every:
        network.requires_grad_(False).eval()
    return networks

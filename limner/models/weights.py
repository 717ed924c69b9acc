"""Where a model's files are: Hub ids, diffusers folders and single files, the family recognised from the keys."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.models.safety import (
    CONVERT,
    MAX_JSON_BYTES,
    PICKLE_SUFFIXES,
    TensorInfo,
    read_json,
    read_safetensors_header,
    resolve_under,
)

if TYPE_CHECKING:
    from torch import nn

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", *PICKLE_SUFFIXES)
_USE_A_WHOLE_MODEL = "Name a whole model: a Hub id, a diffusers folder, or a single file of Stable Diffusion 1.x."


# ------------------------------------------------------------------------------------------------ finding a model
BUILTIN = "builtin"
"""The name of the model that ships with the package; a folder of that name is ``./builtin``."""
BUILTIN_FOLDER = Path(__file__).resolve().parent.parent / "builtin" / "weights"


@dataclass(frozen=True)
class Located:
    """A model's place on this disk: a folder, or a single file."""

    path: Path
    revision: str | None = None
    """The Hub commit, where the folder is a snapshot."""


def locate(name: str, revision: str | None, *, hub_patterns: Sequence[str]) -> Located:
    """Returns where the model called ``name`` is; of a Hub id the files that ``hub_patterns`` match are downloaded."""
    path = Path(name).expanduser()
    if name == BUILTIN:
        return Located(builtin_folder(revision))
    if path.exists():
        if revision is not None:
            raise UserError(
                f"{revision!r} has no meaning for {name!r}, which is on this disk.",
                where="model.revision",
                fix="Leave it out; it is for models on the Hub.",
            )
        return Located(path)
    looks_local = name.startswith((".", "/", "~")) or path.suffix.lower() in _WEIGHT_SUFFIXES
    if looks_local or not _HUB_ID.fullmatch(name):
        raise UserError(
            f"{name!r} is not there{_did_you_mean(path)}", where="model.path", fix="Name a folder, a file or a Hub id."
        )
    folder = download(name, revision, hub_patterns)
    return Located(folder, revision=folder.name)


def builtin_folder(revision: str | None = None) -> Path:
    """Returns the folder of the model that ships with the package."""
    if revision is not None:
        raise UserError(
            f"{revision!r} has no meaning for the built-in model.", where="model.revision", fix="Leave it out."
        )
    if not (BUILTIN_FOLDER / "model_index.json").is_file():
        raise UserError(
            "the built-in model's weights are not in this installation.",
            where=str(BUILTIN_FOLDER),
            fix="Install the whole package, or make them: docs/builtin.md says how.",
        )
    return BUILTIN_FOLDER


def _did_you_mean(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f": there is no folder {str(path.parent)!r}."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f". Did you mean {str(path.with_name(close[0]))!r}?" if close else "."


_ON_DISK: ContextVar[bool] = ContextVar("on_disk", default=False)


@contextlib.contextmanager
def only_on_disk() -> Iterator[None]:
    """Lets no model be downloaded inside: what is not on this disk yet is a UserError at once."""
    token = _ON_DISK.set(True)
    try:
        yield
    finally:
        _ON_DISK.reset(token)


def download(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Returns the folder of a Hub snapshot, named by its commit, with the files that the patterns match."""
    import huggingface_hub
    from huggingface_hub import errors

    at, local = f"{repo!r}" if revision is None else f"{repo!r} at revision {revision!r}", _ON_DISK.get()
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=list(patterns), local_files_only=local
            )
        )
    except errors.LocalEntryNotFoundError as error:
        if not local:
            raise _unreachable(at, error) from None
        raise UserError(f"{at} is not on this disk.", where="model.path", fix="Let it be downloaded.") from None
    except errors.GatedRepoError:
        what, fix = "must be asked for on its page on the Hub first", "Accept its terms there, then: hf auth login"
    except errors.RepositoryNotFoundError:
        what = f"is neither a folder here nor a model on the Hub{_did_you_mean(Path(repo)).rstrip('.')}"
        fix = "Check the spelling; for a private model: hf auth login"
    except errors.RevisionNotFoundError:
        what, fix = "does not exist on the Hub", "Name a branch, a tag or a commit of that model."
    except (OSError, ValueError, errors.HTTPError) as error:
        raise _unreachable(at, error) from None
    raise UserError(f"{at} {what}.", where="model.path", fix=fix)


def _unreachable(at: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(
        f"{at} is not a folder here, and the Hub could not be reached for it ({reason}).",
        where="model.path",
        fix="Check the connection, or name a folder or a file on this disk.",
    )


# ----------------------------------------------------------------------------------------- weights of a component
@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of one network; ``variant`` is "" or "fp16"."""

    files: tuple[Path, ...]
    variant: str = ""


def weight_patterns(component: str, stem: str, variant: str = "") -> list[str]:
    """Returns the Hub patterns that match one network's safetensors files, whole or in shards, of one variant."""
    middle = f".{variant}" if variant else ""
    names = (
        f"{stem}{middle}.safetensors",
        f"{stem}.safetensors.index{middle}.json",
        f"{stem}{middle}-*-of-*.safetensors",
        f"{stem}-*-of-*{middle}.safetensors",
    )
    return [f"{component}/{name}" for name in names]


def find_weights(folder: Path, stem: str) -> WeightFiles | None:
    """Returns a network's weights, float32 files before fp16 ones, headers checked; None where there are none.

    As in diffusers, shards go before a whole file.
    """
    for variant in ("", "fp16"):
        middle = f".{variant}" if variant else ""
        single = folder / f"{stem}{middle}.safetensors"
        index = folder / f"{stem}.safetensors.index{middle}.json"
        if index.is_file():
            return WeightFiles(_shards(index), variant)
        if single.is_file():
            read_safetensors_header(single)
            return WeightFiles((single,), variant)
    return None


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index, limit=10 * MAX_JSON_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError("has no weight_map of file names.", where=str(index), fix="Download it again.")
    files = [resolve_under(index.parent, name, where=str(index)) for name in sorted(set(weight_map.values()))]
    present = {name for file in files for name in read_safetensors_header(file).tensors}
    if present != set(weight_map):
        odd = sorted(present ^ set(weight_map))
        raise UserError(f"and its files disagree about {odd[0]!r}.", where=str(index), fix="Download them again.")
    return tuple(files)


def no_weights(folder: Path, stem: str) -> UserError:
    """Returns the error for a component folder without safetensors; says so where it has pickles instead."""
    wanted = f"{stem}.safetensors"
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    pickles = [entry.name for entry in entries if entry.suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        return UserError(
            f"has no {wanted}, only the pickle {pickles[0]}; reading one can run any code, so it is not opened.",
            where=str(folder),
            fix=CONVERT,
        )
    return UserError(f"has no {wanted}.", where=str(folder), fix="Download the model again, whole. " + CONVERT)


# ---------------------------------------------------------------------------------------- what a single file holds
_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_LORA = re.compile(
    r"lora[._](up|down|mid|a|b)\b|\.lora\.|lora_linear_layer|^lora_(unet|te)|\.(hada|lokr)_", re.IGNORECASE
)

_KINDS: dict[str, tuple[str, str]] = {
    "sd1": ("a Stable Diffusion 1.x model", ""),
    "sd1 without autoencoder": ("a Stable Diffusion 1.x model without its autoencoder", _USE_A_WHOLE_MODEL),
    "sd2": (
        "a Stable Diffusion 2.x model in a single file",
        "Make a folder of it: diffusers' StableDiffusionPipeline.from_single_file(file).save_pretrained(folder).",
    ),
    "sd inpainting": ("an inpainting model (9 input channels)", "Use the model that it was made from."),
    "sd depth": ("a depth-conditioned model (5 input channels)", "Use the model that it was made from."),
    "sd edit": ("an InstructPix2Pix model (8 input channels)", "Use the model that it was made from."),
    "sd upscaler": ("an upscaler (7 input channels)", _USE_A_WHOLE_MODEL),
    "sdxl": ("a Stable Diffusion XL model", "This version of Limner trains Stable Diffusion 1.x and 2.x."),
    "sdxl refiner": ("a Stable Diffusion XL refiner", "This version of Limner trains Stable Diffusion 1.x and 2.x."),
    "sd3": ("a Stable Diffusion 3 model", "This version of Limner trains Stable Diffusion 1.x and 2.x."),
    "flux": ("a FLUX model", "This version of Limner trains Stable Diffusion 1.x and 2.x."),
    "lora": ("a LoRA, a change to a model", "Name the model that it belongs to; use the LoRA with --adapter."),
    "textual inversion": (
        "a textual-inversion embedding",
        "Name the model that it belongs to; use the embedding with --embedding.",
    ),
    "controlnet": ("a ControlNet", _USE_A_WHOLE_MODEL),
    "denoiser": ("a denoiser (UNet) alone", _USE_A_WHOLE_MODEL),
    "transformer": ("a diffusion transformer alone", _USE_A_WHOLE_MODEL),
    "autoencoder": ("an autoencoder (VAE) alone", _USE_A_WHOLE_MODEL),
    "clip": ("a CLIP model or text encoder alone", _USE_A_WHOLE_MODEL),
    "unknown": ("no model that Limner knows", _USE_A_WHOLE_MODEL),
}


def describe(kind: str) -> str:
    """Returns what :func:`recognise` found in words, for instance "a LoRA, a change to a model"."""
    return _KINDS[kind][0]


def refuse_kind(kind: str, where: str) -> UserError:
    """Returns the error for a file that holds ``kind`` where a Stable Diffusion 1.x model is wanted."""
    what, fix = _KINDS[kind]
    return UserError(f"is {what}, not a whole Stable Diffusion 1.x model.", where=where, fix=fix)


def recognise(tensors: Mapping[str, TensorInfo]) -> str:
    """Returns what a safetensors file holds, by the names and shapes of its tensors; see :func:`describe`."""
    if any(_LORA.search(name) for name in tensors):
        return "lora"
    if any(name.startswith(("control_model.", "controlnet_")) for name in tensors):
        return "controlnet"
    if _CONV_IN in tensors:
        return _recognise_original(tensors)
    for kind, marks in _MARKS:
        if any(name.startswith(marks) for name in tensors):
            return kind
    two_dimensional = all(len(info.shape) <= 2 for info in tensors.values())
    return "textual inversion" if 0 < len(tensors) <= 4 and two_dimensional else "unknown"


_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sd3", ("model.diffusion_model.joint_blocks.", "joint_blocks.")),
    ("flux", ("model.diffusion_model.double_blocks.", "double_blocks.")),
    ("transformer", ("transformer_blocks.", "model.diffusion_model.", "single_transformer_blocks.")),
    ("denoiser", ("down_blocks.", "input_blocks.")),
    ("autoencoder", ("first_stage_model.", "encoder.down", "decoder.up")),
    ("clip", ("text_model.", "vision_model.", "cond_stage_model.", "conditioner.", "visual.", "encoder.layers.")),
)  # fmt: skip
_BY_CHANNELS = {9: "sd inpainting", 8: "sd edit", 7: "sd upscaler", 5: "sd depth"}


def _recognise_original(tensors: Mapping[str, TensorInfo]) -> str:
    """Tells apart the files that have a UNet under CompVis' original names."""

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    shape = tensors[_CONV_IN].shape
    if has("conditioner.embedders."):
        return "sdxl" if has("conditioner.embedders.1.") else "sdxl refiner"
    if len(shape) == 4 and shape[1] in _BY_CHANNELS:
        return _BY_CHANNELS[shape[1]]
    if has("cond_stage_model.model."):
        return "sd2"
    if not has("cond_stage_model.transformer."):
        return "denoiser"
    return "sd1" if has("first_stage_model.") else "sd1 without autoencoder"


# ---------------------------------------------------------------------------------------------- weights in memory
_VOLATILE = ("dtype", "torch_dtype", "transformers_version", "architectures", "sample_size")


def content_hash(network: nn.Module, config: Mapping[str, Any], *extra: str) -> str:
    """Returns the SHA-256 of a network's tensors (name, type, shape, bytes) and settings, wherever it is.

    Left out: names of folders, versions, and ``sample_size``, which decide nothing that the network computes.
    """
    import torch

    digest = hashlib.sha256()
    settings = {key: value for key, value in config.items() if not key.startswith("_") and key not in _VOLATILE}
    for text in (json.dumps(settings, sort_keys=True, default=str), *extra):
        digest.update(f"{len(text)}:{text}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars and load reports off the terminal while weights are read."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled(), diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            diffusers_logging.enable_progress_bar()

"""Putting LoRA files on a model: found in whatever layout they come, every tensor accounted for, or refused."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.models.adapter_files import (
    PARTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    WEIGHTS,
    AdapterFile,
    LowRank,
    Update,
    read_adapter_file,
)
from limner.models.lycoris import Attached, Lycoris, adapted_layers, attach, fits

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor, nn

_WEIGHT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_HASHED_BYTES = 2**20


@dataclass(frozen=True)
class AdapterRef:
    """A LoRA file or folder, and how strongly it is used: 0 not at all, 1 as it was trained."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class LoadedAdapter:
    """A LoRA that is on a model now."""

    name: str
    """For people and for file formats: the file's or folder's name."""
    weight: float
    files: tuple[Path, ...]
    layers: Mapping[str, tuple[str, ...]]
    """The adapted layers of each network: ``{"unet": (...), "text_encoder": (...)}``."""
    tensors_hash: str
    """SHA-256 of the first file's tensors, without its header: what A1111 calls the hash of a LoRA."""
    metadata: Mapping[str, str]
    attached: tuple[Attached, ...] = field(default=(), compare=False, repr=False)
    """What holds the weight of its LoHa and LoKr layers, by network."""


def parse_adapter(text: str) -> AdapterRef:
    """Returns the adapter of ``path`` or ``path:weight``; a path that exists is taken whole, colons and all."""
    head, colon, tail = text.rpartition(":")
    if colon and head and _WEIGHT.fullmatch(tail) and not Path(text).exists():
        return AdapterRef(Path(head), float(tail))
    return AdapterRef(Path(text))


# ------------------------------------------------------------------------------------------------ finding the files
def adapter_files(path: Path) -> list[Path]:
    """Returns the LoRA files of a file, a diffusers or PEFT folder, a folder of PEFT folders, or a Limner run."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError("does not exist.", where=str(path), fix="Name a LoRA file, its folder, or a run folder.")
    run = RunDir(path)
    if run.config.is_file() and run.status.is_file():
        return _files_of_run(run)
    files = _files_in(path)
    if files:
        return files
    pickles = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in (".bin", ".pt", ".ckpt", ".pth"))
    if pickles:
        raise UserError(
            f"has only a pickled file ({pickles[0]}); reading one can run any code.",
            where=str(path),
            fix="Convert it to safetensors.",
        )
    raise UserError(
        f"holds no LoRA: neither {WEIGHTS} nor {PEFT_CONFIG} with {PEFT_WEIGHTS}.",
        where=str(path),
        fix="Name the file itself, or a folder that has one of them.",
    )


def _files_in(folder: Path) -> list[Path]:
    """Returns the LoRA files of one folder by their fixed names, else its only .safetensors file, else none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / PEFT_CONFIG).is_file():
        return [folder / PEFT_WEIGHTS]
    nested = [folder / part / PEFT_WEIGHTS for part in PARTS if (folder / part / PEFT_CONFIG).is_file()]
    if nested:
        return nested
    single = sorted(folder.glob("*.safetensors"))
    return single if len(single) == 1 else []


def _files_of_run(run: RunDir) -> list[Path]:
    """Returns the LoRA files of a run's export/, or of the first folder in it that has some."""
    folders = [run.export, *sorted(run.export.glob("[!.]*/"))] if run.export.is_dir() else []
    for folder in folders:
        files = _files_in(folder)
        if files:
            return files
    if (run.export / "diffusers" / "model_index.json").is_file():
        raise UserError(
            "is a run that trained a whole model, no LoRA.", where=str(run.path), fix="Use it as the model: --model."
        )
    raise UserError("has no exported LoRA yet.", where=str(run.path), fix="Let the run finish.")


# --------------------------------------------------------------------------------------------- names to the layers
def layer_names(networks: Mapping[str, nn.Module]) -> dict[str, tuple[str, str]]:
    """Returns for every name by which a LoRA file may call a layer the network and the layer's path in it.

    CLIP's ``text_model.`` is in the names of older releases of transformers and in those of kohya's files.
    """
    import torch

    names: dict[str, tuple[str, str]] = {}
    for part, network in networks.items():
        if part not in PARTS:
            continue
        is_text = part.startswith("text_encoder")
        marks = ("te", "te1") if part == "text_encoder" else ("te2",) if is_text else ("unet",)
        for raw, module in network.named_modules():
            if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or ".lora_" in raw:
                continue
            path = raw.removesuffix(".base_layer")
            bare = path.removeprefix("text_model.")
            for written in {path, bare, f"text_model.{bare}"} if is_text else {path}:
                names[f"{part}.{written}"] = (part, path)
                names[f"base_model.model.{written}"] = (part, path)
                names[written] = (part, path)
                if part == "unet":
                    names[f"lycoris_{written.replace('.', '_')}"] = (part, path)
                for mark in marks:
                    names[f"lora_{mark}_{written.replace('.', '_')}"] = (part, path)
    return names


def _sort_layers(
    file: AdapterFile, names: Mapping[str, tuple[str, str]], networks: Mapping[str, nn.Module]
) -> dict[str, dict[str, Update]]:
    """Returns the file's updates by network and layer; raises UserError for the first that has no place."""
    unknown = [name for name in file.layers if name not in names]
    if unknown:
        raise UserError(
            f"{len(unknown)} of its {len(file.layers)} layers are not in this model; the first is {unknown[0]!r}.",
            where=str(file.path),
            fix="It was trained for another kind of model: `limner inspect` says which.",
        )
    sorted_layers: dict[str, dict[str, Update]] = {}
    for name, update in file.layers.items():
        part, path = names[name]
        if path in sorted_layers.setdefault(part, {}):
            raise UserError(f"has {part}.{path} twice, under two names.", where=str(file.path), fix="Make it again.")
        sorted_layers[part][path] = _fitted(update, networks[part].get_submodule(path), f"{file.path}, {name}")
    return sorted_layers


def _fitted(update: Update, layer: nn.Module, where: str) -> Update:
    """Returns the update in the shape of the layer; a 1x1 convolution and a linear layer are the same thing."""
    weight = _weight(layer)
    if isinstance(update, Lycoris):
        if not fits(update.shape(), tuple(weight.shape)):
            raise UserError(
                f"its product {list(update.shape())} does not fit the layer's weight {list(weight.shape)}.",
                where=where,
                fix="It was trained for another base model; use it with that one.",
            )
        return update
    down, up = update.down, update.up
    pointwise = all(int(side) == 1 for side in (*down.shape[2:], *up.shape[2:]))
    if weight.dim() == 2 and pointwise:
        down, up = down.flatten(1), up.flatten(1)
    elif weight.dim() == 4 and down.dim() == 2:
        down, up = down[..., None, None], up[..., None, None]
    needed_down, needed_up = (update.rank, *weight.shape[1:]), (weight.shape[0], update.rank)
    if tuple(down.shape) != needed_down or tuple(up.shape[:2]) != needed_up or any(n != 1 for n in up.shape[2:]):
        raise UserError(
            f"its matrices {list(update.down.shape)} and {list(update.up.shape)} do not fit the layer's weight "
            f"{list(weight.shape)}.",
            where=where,
            fix="It was trained for another base model; use it with that one.",
        )
    return LowRank(down, up, update.alpha, update.magnitude)


def _weight(layer: nn.Module) -> Tensor:
    from peft.tuners.lora import LoraLayer

    inner = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    weight: Tensor = inner.get_parameter("weight")
    return weight


# -------------------------------------------------------------------------------------------------------- loading
def load_adapters(networks: Mapping[str, nn.Module], refs: Sequence[AdapterRef]) -> tuple[LoadedAdapter, ...]:
    """Puts LoRA files on the networks of a model, each with its weight, and returns what is on them.

    ``networks`` is ``model.networks`` or ``pipeline.components``; pipelines around the same networks have the adapters
    too. Every file is read and every tensor placed before the first layer is touched: an error leaves the model as it
    was. With all weights 0 the model predicts exactly as without. Raises ValueError where the networks have adapters.
    """
    from torch import nn

    networks = {part: network for part, network in networks.items() if isinstance(network, nn.Module)}
    if any(adapted_layers(network) for network in networks.values()):
        raise ValueError("these networks carry adapters already")
    names = layer_names(networks)
    plans: list[tuple[str, AdapterRef, list[AdapterFile], dict[str, dict[str, Update]]]] = []
    for index, ref in enumerate(refs):
        files = [read_adapter_file(path) for path in adapter_files(ref.path)]
        layers: dict[str, dict[str, Update]] = {}
        for file in files:
            for part, found in _sort_layers(file, names, networks).items():
                layers.setdefault(part, {}).update(found)
        plans.append((f"limner_{index}", ref, files, layers))
    for key, _, _, layers in plans:
        for part, found in layers.items():
            inject(networks[part], key, {path: u for path, u in found.items() if isinstance(u, LowRank)})
    for network in networks.values():
        _activate(network, {key: ref.weight for key, ref, _, _ in plans})
    attached: dict[str, list[Attached]] = {key: [] for key, _, _, _ in plans}
    for key, ref, _, layers in plans:  # last, so that what PEFT wraps is the layer itself
        for part, found in layers.items():
            products = {path: u for path, u in found.items() if isinstance(u, Lycoris)}
            attached[key].append(attach(networks[part], key, products, ref.weight))
    return tuple(
        LoadedAdapter(
            name=_display_name(ref.path),
            weight=ref.weight,
            files=tuple(file.path for file in files),
            layers={part: tuple(found) for part, found in layers.items()},
            tensors_hash=hash_tensors(files[0].path),
            metadata=files[0].metadata,
            attached=tuple(attached[key]),
        )
        for key, ref, files, layers in plans
    )


def set_weights(
    networks: Mapping[str, nn.Module], adapters: Sequence[LoadedAdapter], weights: Sequence[float]
) -> tuple[LoadedAdapter, ...]:
    """Gives the adapters other weights, in place, and returns them with these; a weight of 0 is exactly without.

    ``adapters`` are all that :func:`load_adapters` put on these networks, in its order, with a weight for each.
    """
    for network in networks.values():
        _activate(network, {f"limner_{index}": weight for index, weight in enumerate(weights)})
    for adapter, weight in zip(adapters, weights, strict=True):
        for one in adapter.attached:
            one.weight = weight
    return tuple(replace(adapter, weight=weight) for adapter, weight in zip(adapters, weights, strict=True))


def inject(network: Any, key: str, layers: Mapping[str, LowRank]) -> None:
    """Adds an adapter to exactly these layers and copies its matrices, float32."""
    import torch
    from peft import LoraConfig

    if not layers:
        return
    first = next(iter(layers.values()))
    doras = {update.magnitude is not None for update in layers.values()}
    if len(doras) == 2:
        raise UserError("mixes LoRA and DoRA layers in one network.", fix="Use one or the other.")
    config = LoraConfig(
        r=first.rank,
        lora_alpha=first.alpha,
        target_modules=list(layers),
        rank_pattern={f"^{re.escape(p)}": u.rank for p, u in layers.items() if u.rank != first.rank},
        alpha_pattern={f"^{re.escape(p)}": u.alpha for p, u in layers.items() if u.alpha != first.alpha},
        use_dora=first.magnitude is not None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
        network.add_adapter(config, adapter_name=key)
    placed = {path: layer for path, layer in lora_layers(network).items() if key in layer.lora_A}
    if placed.keys() != layers.keys():
        raise RuntimeError(f"PEFT adapted {len(placed)} layers, the file has {len(layers)}")
    for path, update in layers.items():
        _fill(placed[path], key, update)


def _fill(layer: LoraLayer, key: str, update: LowRank) -> None:
    targets = [(layer.lora_A[key].weight, update.down), (layer.lora_B[key].weight, update.up)]
    if update.magnitude is not None:
        magnitude = layer.lora_magnitude_vector[key].weight
        targets.append((magnitude, update.magnitude.reshape(magnitude.shape)))
    for parameter, value in targets:
        if parameter.shape != value.shape:
            raise RuntimeError(f"PEFT made {list(parameter.shape)}, the file has {list(value.shape)}")
        parameter.data = value.to(parameter.device, parameter.data.float().dtype).clone()


def _activate(network: nn.Module, weights: Mapping[str, float]) -> None:
    """Makes exactly the adapters with a weight other than 0 active, and checks that each layer agrees.

    A DoRA of weight 0 is not the base model (its magnitudes stay), so weight 0 means not active.
    """
    active = [key for key, weight in weights.items() if weight != 0]
    for layer in lora_layers(network).values():
        layer.set_adapter(active, inference_mode=True)
        for key, weight in weights.items():
            layer.set_scale(key, weight)
        wrong = layer.disable_adapters or layer.merged or list(layer.active_adapters) != active
        if wrong or any(parameter.requires_grad for parameter in layer.lora_A.parameters()):
            raise RuntimeError(f"the active adapters are {layer.active_adapters}, asked for were {active}")


def lora_layers(network: nn.Module) -> dict[str, LoraLayer]:
    """Returns the layers of a network that PEFT has wrapped for LoRA, by their path."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}


def _display_name(path: Path) -> str:
    return path.stem if path.suffix == ".safetensors" else path.resolve().name


def hash_tensors(path: Path) -> str:
    """Returns the SHA-256 of a safetensors file without its header, so that other metadata does not change it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(_HASHED_BYTES):
            digest.update(block)
    return digest.hexdigest()

"""CLIP models in open_clip's and OpenAI's files, as transformers' CLIPModel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from limner.core.errors import UserError
from limner.models.clip_vocabulary import MERGES_FILE, TOKENIZER_FILES, tokenizer_for
from limner.models.open_clip import OPENAI_MARKS, Activation, Sizes, clip_config, sizes_of, stripped, to_transformers
from limner.models.open_clip_config import CONFIG, OpenClipSettings, read_open_clip_config
from limner.models.preprocessing import Preprocessing, from_open_clip
from limner.models.safety import check_tree, read_safetensors_header
from limner.models.torch_file import SUFFIXES, TorchFile, open_torch_file
from limner.models.weights import Located, quiet

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, CLIPTokenizer

ActivationChoice = Literal["auto", "quick_gelu", "gelu"]

SMALL_FILES = (CONFIG, MERGES_FILE, *TOKENIZER_FILES)
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls its weights, the one that is taken first."""
UNUSED = ("attn_mask", *OPENAI_MARKS)
"""Names, and ends of names, of what older files keep among their weights although it is none."""


def is_foreign(path: Path) -> bool:
    """Returns whether a path is a single file, or a folder of open_clip's that transformers does not know."""
    return path.is_file() or ((path / CONFIG).is_file() and not (path / "config.json").is_file())


@dataclass(frozen=True)
class ForeignClip:
    """A checkpoint that was checked and is not read yet."""

    weights: Path
    tensors: Mapping[str, str]
    """The names under which OpenAI's layout knows the file's tensors."""
    sizes: Sizes
    activation: Activation
    settings: OpenClipSettings | None
    file: TorchFile | None
    """None for a safetensors file."""
    notices: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the tokenizer may lie."""
        return self.weights.parent

    def tokenizer(self, named: str | None) -> CLIPTokenizer:
        """Returns the tokenizer, whose last word must be the one that the model pools at."""
        tokenizer = tokenizer_for(self.folder, named, self.sizes.tokens)
        last = self.sizes.words - 1
        if len(tokenizer) != self.sizes.words or tokenizer.eos_token_id != last:
            raise UserError(
                f"knows {self.sizes.words:,} words of which the last ends a caption; the tokenizer has "
                f"{len(tokenizer):,}, and its end is number {tokenizer.eos_token_id}.",
                where=str(self.weights),
                fix="Name the tokenizer that it was trained with: model.tokenizer.",
            )
        return tokenizer

    def preprocessing(self) -> Preprocessing:
        """Returns how the model's pictures are prepared."""
        if self.settings is None:
            return Preprocessing(self.sizes.side)
        return from_open_clip(self.settings.preprocess, self.sizes.side, where=self.settings.path)

    def load(self, tokenizer: CLIPTokenizer) -> CLIPModel:
        """Returns the network in float32."""
        import torch
        from transformers import CLIPConfig, CLIPModel

        words = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
        config = CLIPConfig(**clip_config(self.sizes, activation=self.activation, **words))
        read = read_floats(self.weights, self.file, list(self.tensors))
        state = to_transformers({self.tensors[name]: value for name, value in read.items()})
        with quiet():
            network, info = CLIPModel.from_pretrained(
                None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
            )
        gaps = sorted([*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])])
        if gaps:
            raise RuntimeError(f"{self.weights}: {gaps[0]} found no place")
        return network


def read_floats(weights: Path, file: TorchFile | None, names: Collection[str]) -> dict[str, Tensor]:
    """Returns these tensors in float32, of a file of PyTorch's or, where that is None, of safetensors."""
    from safetensors import safe_open

    if file is not None:
        read = file.read(names)
    else:
        with safe_open(weights, framework="pt") as opened:
            read = {name: opened.get_tensor(name) for name in names}
    whole = sorted(name for name, value in read.items() if not value.is_floating_point())
    if whole:
        raise UserError(f"has {whole[0]!r} in whole numbers.", where=str(weights), fix="Use float weights.")
    return {name: value.float() for name, value in read.items()}


def open_foreign(place: Located, activation: ActivationChoice) -> ForeignClip:
    """Returns what a single file, or a folder with open_clip_config.json, holds.

    Raises UserError for other kinds of model, and where neither the file nor ``activation`` says what the towers
    compute between the layers of their MLPs.
    """
    weights = place.path if place.path.is_file() else weights_in(place.path)
    beside = weights.parent / CONFIG
    settings = read_open_clip_config(beside) if beside.is_file() else None
    file, shapes, half = shapes_in(weights)
    names = {name: plain for name, plain in stripped(shapes).items() if not plain.endswith(UNUSED)}
    heads = {} if settings is None else {"vision_heads": settings.vision_heads, "text_heads": settings.text_heads}
    sizes = sizes_of({plain: shapes[name] for name, plain in names.items()}, where=str(weights), **heads)
    if settings is not None:
        settings.check(sizes)
    notices = [f"{weights}: in half precision, used as float32"] if half else []
    if file is not None and "state_dict_ema" in file.others:
        notices.append(f"{weights}: holds averaged weights too (state_dict_ema); those of the last step are used")
    if settings is None:
        notices.append(f"{weights}: does not say how its pictures were made; OpenAI's way is used")
    said = activation_said(settings, file, shapes)
    return ForeignClip(weights, names, sizes, _decided(said, activation, weights), settings, file, tuple(notices))


def weights_in(folder: Path) -> Path:
    check_tree(folder)
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"has no {WEIGHTS[0]}.", where=str(folder), fix="Download the model again, whole.")
    return found


def shapes_in(weights: Path) -> tuple[TorchFile | None, dict[str, tuple[int, ...]], bool]:
    """Returns the file, unless it is safetensors, the shape of each tensor, and whether it is in half precision."""
    if weights.suffix.lower() in SUFFIXES:
        file = open_torch_file(weights)
        half = any(tensor.kind in ("HalfStorage", "BFloat16Storage") for tensor in file.tensors.values())
        return file, {name: tensor.shape for name, tensor in file.tensors.items()}, half
    tensors = read_safetensors_header(weights).tensors
    half = any(info.dtype in ("F16", "BF16") for info in tensors.values())
    return None, {name: info.shape for name, info in tensors.items()}, half


def activation_said(
    settings: OpenClipSettings | None, file: TorchFile | None, names: Collection[str]
) -> Activation | None:
    """Returns what the file says that its towers compute; None where it says nothing.

    OpenAI's models have QuickGELU. Their archives name its class, and have numbers among their tensors that no other
    program writes.
    """
    if settings is not None:
        return settings.activation
    classes = file.classes if file is not None else frozenset()
    if "QuickGELU" in classes or all(mark in names for mark in OPENAI_MARKS):
        return "quick_gelu"
    return "gelu" if "GELU" in classes else None


def _decided(said: Activation | None, choice: ActivationChoice, weights: Path) -> Activation:
    if said is None and choice == "auto":
        raise UserError(
            f"{weights} does not say whether its towers compute GELU or QuickGELU, and the wrong one ruins the model "
            "without an error.",
            where="model.activation",
            fix="Set quick_gelu for OpenAI's models and what was tuned from them, gelu for most of open_clip's others.",
        )
    if said is not None and choice not in ("auto", said):
        raise UserError(
            f"{choice!r} is not what {weights} says that its towers compute: {said}.",
            where="model.activation",
            fix="Leave it out.",
        )
    return said or ("quick_gelu" if choice == "quick_gelu" else "gelu")

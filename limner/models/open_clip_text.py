"""The text tower of a CLIP in open_clip's and OpenAI's files, as transformers' CLIPTextModel; the rest is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.models.clip_files import UNUSED, WEIGHTS, activation_said, read_floats, shapes_in, weights_in
from limner.models.clip_vocabulary import MERGES_FILE, has_tokenizer
from limner.models.open_clip import stripped, text_sizes_of, text_to_transformers
from limner.models.open_clip_config import CONFIG, OpenClipSettings, read_open_clip_config
from limner.models.safety import check_tree, read_safetensors_header
from limner.models.torch_file import SUFFIXES, TorchFile

if TYPE_CHECKING:
    from torch import Tensor

_MARKS = ("visual.", "text.", "token_embedding.", "transformer.resblocks.", "ln_final.")
_OF_TRANSFORMERS = ("text_model.", "vision_model.")
_ALWAYS: Mapping[str, Any] = {"layer_norm_eps": 1e-5}
"""What open_clip and OpenAI never change; where a caption ends they take the highest id, which is the last word's."""
_NOT_READ = ("visual.", "text_projection", "logit_scale")


def has_open_clips_names(file: Path) -> bool:
    """Returns whether a file is one of PyTorch's, or has tensors under OpenAI's names."""
    if file.suffix.lower() in SUFFIXES:
        return True
    names = stripped(read_safetensors_header(file).tensors).values()
    return any(name.startswith(_MARKS) for name in names) and not any(n.startswith(_OF_TRANSFORMERS) for n in names)


@dataclass(frozen=True)
class OpenClipText:
    """A text tower that was checked and is not read yet."""

    weights: Path
    tensors: Mapping[str, str]
    """The names of its tensors in the file, by those of a state dict."""
    file: TorchFile | None
    """None for a safetensors file."""

    def read(self) -> dict[str, Tensor]:
        """Returns its tensors under the names of transformers' CLIPTextModel, float32."""
        read = read_floats(self.weights, self.file, list(self.tensors.values()))
        return text_to_transformers({plain: read[name] for plain, name in self.tensors.items()})


@dataclass(frozen=True)
class OpenClipFacts:
    """What is known of a text tower before its weights are read."""

    settings: Mapping[str, Any]
    """By the names of transformers' CLIPTextConfig, only what the files tell."""
    vocabulary: Path | None
    """A folder with a tokenizer, or OpenAI's list of merges."""
    openais_words: bool
    """Whether its words are OpenAI's without a file: so open_clip reads where its settings name no others."""
    text: OpenClipText | None
    """None where its weights are not on this disk."""
    notices: tuple[str, ...] = ()


def open_text(path: Path, *, weights: bool) -> OpenClipFacts:
    """Returns what a checkpoint, or a folder with open_clip_config.json, holds of a text tower; no tensor is read.

    Raises UserError for other kinds of text tower, for settings that are not those of the weights, and, with
    ``weights``, where there are none. What a file does not tell (heads, activation) is left out.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        check_tree(path)
    settings = read_open_clip_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    vocabulary = next((place for place in (folder, folder / MERGES_FILE) if _has_words(place)), None)
    openais = settings is not None and vocabulary is None
    if path.is_dir() and not weights and not any((path / name).is_file() for name in WEIGHTS):
        return OpenClipFacts({} if settings is None else _told(settings), vocabulary, openais, None)
    file = weights_in(path) if path.is_dir() else path
    opened, shapes, _ = shapes_in(file)
    names = {plain: name for name, plain in stripped(shapes).items() if not plain.endswith(UNUSED)}
    known = _told_by_shapes({plain: shapes[name] for plain, name in names.items()}, file)
    if settings is not None:
        known |= _agreed(_told(settings), known, settings.path)
    activation = activation_said(settings, opened, shapes)
    if activation is not None:
        known["hidden_act"] = activation
    averaged = opened is not None and "state_dict_ema" in opened.others
    notice = f"{path}: holds averaged weights too (state_dict_ema); those of the last step are used"
    read = {plain: name for plain, name in names.items() if not plain.startswith(_NOT_READ)}
    text = OpenClipText(file, read, opened)
    return OpenClipFacts(known, vocabulary, openais, text, (notice,) if averaged else ())


def _has_words(place: Path) -> bool:
    return place.is_file() or has_tokenizer(place)


def _told_by_shapes(shapes: Mapping[str, tuple[int, ...]], file: Path) -> dict[str, Any]:
    if any(name.startswith(_OF_TRANSFORMERS) for name in shapes):
        raise UserError(
            "is a file of PyTorch's under transformers' names.",
            where=str(file),
            fix="Save the model with save_pretrained, which writes safetensors, and name its folder.",
        )
    sizes = text_sizes_of(shapes, where=str(file))
    return {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.hidden,
        "max_position_embeddings": sizes.tokens,
        "vocab_size": sizes.words,
        **_ALWAYS,
        "eos_token_id": sizes.words - 1,
    }


def _told(settings: OpenClipSettings) -> dict[str, Any]:
    text = settings.text
    sizes = {key: text[key] for key in ("width", "layers", "context_length", "vocab_size", "mlp_ratio")}
    if not all(type(value) in (int, float) and value > 0 for value in sizes.values()):
        raise UserError(f"has impossible sizes: {sizes}.", where=str(settings.path), fix="Download the model again.")
    return {
        "hidden_size": text["width"],
        "num_hidden_layers": text["layers"],
        "num_attention_heads": settings.text_heads,
        "intermediate_size": int(text["width"] * text["mlp_ratio"]),
        "hidden_act": settings.activation,
        "max_position_embeddings": text["context_length"],
        "vocab_size": text["vocab_size"],
        **_ALWAYS,
        "eos_token_id": text["vocab_size"] - 1,
    }


def _agreed(told: Mapping[str, Any], there: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for key, value in told.items():
        if there.get(key, value) != value:
            raise UserError(
                f"says that the text tower's {key} is {value}, and the weights have {there[key]}.",
                where=str(path),
                fix="Use the settings that belong to these weights.",
            )
    return told

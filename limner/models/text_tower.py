"""A tuned CLIP's text encoder on the disk: found in whatever shape it comes, compared with a model's, read whole."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.models.clip_files import WEIGHTS, is_foreign
from limner.models.clip_vocabulary import MERGES_FILE, is_openais, read_merges
from limner.models.open_clip_config import CONFIG
from limner.models.open_clip_text import OpenClipText, has_open_clips_names, open_text
from limner.models.safety import TensorInfo, check_tree, read_config, read_safetensors_header
from limner.models.weights import BUILTIN, find_weights, locate, no_weights, weight_patterns

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTokenizer

_STEM = "model"
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                "merges.txt", "added_tokens.json", CONFIG, MERGES_FILE)  # fmt: skip
_MODEL_TYPES = ("clip", "clip_text_model")
_PREFIX = "text_model."
_OF_OTHER_PARTS = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
_COMPARED = {
    "hidden_size": "hidden size",
    "num_hidden_layers": "number of layers",
    "num_attention_heads": "number of attention heads",
    "intermediate_size": "width between the layers",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon of the layer norms",
    "max_position_embeddings": "number of positions",
    "vocab_size": "size of the vocabulary",
    "eos_token_id": "id of the end token",
}
_LEGACY_EOS = 2
"""Old settings say so; transformers then takes the highest id of a prompt, which is the last of the vocabulary."""
_USE_ANOTHER = "Use a CLIP that was tuned from the model's own text encoder."


# ---------------------------------------------------------------------------------------------------------- finding
@dataclass(frozen=True)
class Tower:
    """A text encoder on the disk, not read yet."""

    place: Path
    """Its folder or file, for messages."""
    files: tuple[Path, ...]
    """Its safetensors files; none where only its small files were asked for."""
    settings: Mapping[str, Any]
    """What is known of transformers' settings; of a file alone only what the shapes tell."""
    vocabulary: Path | None
    """The folder of its tokenizer, or OpenAI's list of merges, if there is one."""
    openais_words: bool = False
    """Whether its words are OpenAI's although no file lists them."""
    open_clip: OpenClipText | None = None
    """Its weights where they are under OpenAI's names; ``files`` is empty then."""
    notices: tuple[str, ...] = ()


def find_tower(name: str, *, weights: bool) -> Tower:
    """Returns the text encoder called ``name``; raises UserError where there is none. No tensor is read."""
    path = _located(name, weights)
    if path.is_file():
        return _of_open_clip(path, weights) if has_open_clips_names(path) else _of_file(path)
    path = _export_of_run(path)
    if (path / "model_index.json").is_file():
        raise _refused(path, "is a whole pipeline.", f"Name its text encoder: {path / 'text_encoder'}")
    if is_foreign(path):
        return _of_open_clip(path, weights)
    if not (path / "config.json").is_file():
        raise _refused(
            path,
            f"has neither config.json nor {CONFIG}.",
            "Name a run of CLIP, a folder of CLIPModel, CLIPTextModel or open_clip, or a file.",
        )
    check_tree(path)
    found = find_weights(path, _STEM)
    if found is None and weights:
        raise no_weights(path, _STEM)
    return Tower(path, () if found is None else found.files, _settings(path / "config.json"), _vocabulary_of(path))


def _located(name: str, weights: bool) -> Path:
    """Returns where it is; of a Hub model the small files come first, since they tell which weights it has."""
    of_transformers = [one.removeprefix("./") for one in weight_patterns(".", _STEM)]
    try:
        place = locate(name, None, hub_patterns=_SMALL_FILES)
        if place.revision is not None and weights:
            for choice in [[one] for one in WEIGHTS] if is_foreign(place.path) else [of_transformers]:
                place = locate(name, None, hub_patterns=[*_SMALL_FILES, *choice])
                if (place.path / choice[0]).is_file():
                    break
    except UserError as error:
        raise UserError(error.what, where="text encoder", fix=error.fix) from None
    return place.path / "clip" if name == BUILTIN else place.path


def _of_open_clip(path: Path, weights: bool) -> Tower:
    facts = open_text(path, weights=weights)
    return Tower(path, (), facts.settings, facts.vocabulary, facts.openais_words, facts.text, facts.notices)


def _export_of_run(path: Path) -> Path:
    run = RunDir(path)
    if not run.status.is_file():
        return path
    if (run.export / "transformers" / "config.json").is_file():
        return run.export / "transformers"
    raise _refused(path, "is a run without export/transformers.", "Name a run of CLIP that has finished.")


def _settings(file: Path) -> dict[str, Any]:
    """Returns the settings of the text encoder in a config.json, defaults filled in."""
    from transformers import CLIPConfig, CLIPTextConfig

    values = read_config(file)
    if values.get("model_type") not in _MODEL_TYPES:
        raise _refused(file, f"is {values.get('model_type')!r}, no CLIP.", _USE_ANOTHER)
    try:
        whole = values["model_type"] == "clip"
        config = CLIPConfig.from_dict(values).text_config if whole else CLIPTextConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise _refused(file, f"is damaged: {' '.join(str(error).split())[:200]}", "Download it again.") from None
    return dict(config.to_dict())


def _vocabulary_of(folder: Path) -> Path | None:
    """Returns where the tokenizer is: in the folder, or beside it in a pipeline."""
    beside = [folder.parent / "tokenizer"] if (folder.parent / "model_index.json").is_file() else []
    for place in (folder, *beside):
        if (place / "tokenizer.json").is_file() or (place / "vocab.json").is_file():
            return place
    return None


def _of_file(file: Path) -> Tower:
    """Returns the text encoder in a file; the settings beside it are its own where there are some."""
    tensors = _text_tensors(read_safetensors_header(file).tensors, file)
    beside = file.with_name("config.json")
    if beside.is_file():
        return Tower(file, (file,), _settings(beside), _vocabulary_of(file.parent))
    return Tower(file, (file,), _told_by_shapes(tensors), None)


def _text_tensors(tensors: Mapping[str, TensorInfo], where: Path) -> dict[str, TensorInfo]:
    """Returns the text encoder's tensors by the names of transformers 5; raises for what is not of a CLIP."""
    prefixed = any(name.startswith(_PREFIX) for name in tensors)
    found, strange = {}, []
    for name, info in tensors.items():
        if name.endswith("position_ids") or name.startswith(_OF_OTHER_PARTS):
            continue
        if name.startswith(_PREFIX) or not prefixed:
            found[name.removeprefix(_PREFIX)] = info
        else:
            strange.append(name)
    if strange or "embeddings.token_embedding.weight" not in found:
        names = f"such as {min(strange or tensors)!r}" if tensors else "and no tensors at all"
        raise _refused(
            where,
            f"is no text encoder of CLIP under transformers' names (text_model.*): it has other tensors, {names}.",
            _USE_ANOTHER,
        )
    return found


def _told_by_shapes(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    shapes = {name: info.shape for name, info in tensors.items()}
    layers = {match.group(1) for name in shapes if (match := re.match(r"encoder\.layers\.(\d+)\.", name))}
    told: dict[str, Any] = {"num_hidden_layers": len(layers)}
    for key, name, axis in (
        ("vocab_size", "embeddings.token_embedding.weight", 0),
        ("hidden_size", "embeddings.token_embedding.weight", 1),
        ("max_position_embeddings", "embeddings.position_embedding.weight", 0),
        ("intermediate_size", "encoder.layers.0.mlp.fc1.weight", 0),
    ):
        if len(shapes.get(name, ())) == 2:
            told[key] = shapes[name][axis]
    return told


def _refused(where: Path, what: str, fix: str) -> UserError:
    return UserError(what, where=str(where), fix=fix)


# --------------------------------------------------------------------------------------------------------- checking
def compare(tower: Tower, settings: Mapping[str, Any], tokenizer: CLIPTokenizer) -> tuple[str, ...]:
    """Compares a text encoder with the model's own, by settings and vocabulary.

    Returns what its files do not tell, in a sentence, or nothing. Raises UserError with everything that does not fit.
    """
    mine, theirs = _comparable(settings), _comparable(tower.settings)
    wrong = [
        f"its {label} is {theirs[key]!r}, the model's {mine[key]!r}"
        for key, label in _COMPARED.items()
        if key in theirs and theirs[key] != mine[key]
    ]
    wrong += [] if tower.vocabulary is None else _other_words(tower.vocabulary, tokenizer)
    if tower.openais_words and not is_openais(tokenizer):
        wrong.append("its vocabulary is OpenAI's, and the model's is another")
    if wrong:
        raise _refused(
            tower.place, f"does not fit in place of the model's text encoder: {'; '.join(wrong)}.", _USE_ANOTHER
        )
    missing = [label for key, label in _COMPARED.items() if key not in theirs]
    missing += ["vocabulary"] if tower.vocabulary is None and not tower.openais_words else []
    if not missing:
        return tower.notices
    return (*tower.notices, f"{tower.place}: does not tell its {', '.join(missing)}; taken to be the model's")


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: settings[key] for key in _COMPARED if key in settings}
    if found.get("eos_token_id") == _LEGACY_EOS:
        found["eos_token_id"] = found["vocab_size"] - 1
    return found


def _other_words(folder: Path, tokenizer: CLIPTokenizer) -> list[str]:
    """Returns how a tokenizer on the disk differs from the model's: ids of words, how words are put together."""
    from transformers import CLIPTokenizer

    try:
        if folder.is_file():
            other = read_merges(folder, tokenizer.model_max_length)
        else:
            other = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, TypeError, OSError) as error:
        raise _refused(folder, f"its vocabulary is damaged: {' '.join(str(error).split())[:200]}", "") from None
    mine, theirs = tokenizer.get_vocab(), other.get_vocab()
    if mine != theirs:
        word = min(word for word in mine.keys() | theirs.keys() if mine.get(word) != theirs.get(word))
        return [f"its vocabulary has {word!r} as {_id(theirs, word)}, the model's as {_id(mine, word)}"]
    wrong = [] if _merges(other) == _merges(tokenizer) else ["its vocabulary puts words together in another way"]
    if other.eos_token_id != tokenizer.eos_token_id:
        wrong.append(f"its end token is {other.eos_token!r}, the model's {tokenizer.eos_token!r}")
    return wrong


def _id(vocabulary: Mapping[str, int], word: str) -> str:
    return f"{vocabulary[word]}" if word in vocabulary else "no word"


def _merges(tokenizer: CLIPTokenizer) -> list[tuple[str, ...]]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


# ---------------------------------------------------------------------------------------------------------- reading
def read_tower(tower: Tower, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors under the names of ``base``; all of them in its shapes and finite, or UserError."""
    found = _read_files(tower) if tower.open_clip is None else tower.open_clip.read()
    odd = sorted(found.keys() ^ base.keys())
    odd += [name for name in sorted(base) if name in found and found[name].shape != base[name].shape]
    if odd:
        raise _refused(
            tower.place,
            f"does not fit in place of the model's text encoder: {len(odd)} tensors are missing, too many or of "
            f"another shape, such as {odd[0]!r}.",
            "Nothing was loaded. " + _USE_ANOTHER,
        )
    for name, value in found.items():
        if not bool(value.float().isfinite().all()):
            raise _refused(tower.place, f"{name!r} is not finite (NaN): its training has ruined it.", _USE_ANOTHER)
    return found


def _read_files(tower: Tower) -> dict[str, Tensor]:
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    headers = {file: read_safetensors_header(file).tensors for file in tower.files}
    wanted = _text_tensors({name: info for tensors in headers.values() for name, info in tensors.items()}, tower.place)
    for file, tensors in headers.items():
        with safe_open(file, framework="pt") as opened:
            for name in tensors:
                bare = name.removeprefix(_PREFIX)
                if bare in wanted and not name.startswith(_OF_OTHER_PARTS):
                    found[bare] = opened.get_tensor(name)
    return found

"""A diffusers folder that older releases of diffusers and transformers read as well.

transformers 5 dropped ``text_model.`` from the names in CLIPTextModel's files (an older release then makes up random
weights and only warns) and writes no vocab.json and merges.txt (an older release then fails).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limner.core.rundir import write_json
from limner.models.safety import read_safetensors_header

_PREFIX = "text_model."
_BLOCK = 2**24


def make_portable(folder: Path, base_tokenizers: Mapping[str, Path], base_index: Path | None) -> None:
    """Rewrites a saved pipeline in place.

    ``base_tokenizers`` are the base model's own tokenizer folders by component: they are copied byte for byte.
    ``base_index`` is the base model's model_index.json, whose class names are kept.
    """
    index_path = folder / "model_index.json"
    index: dict[str, Any] = json.loads(index_path.read_text(encoding="utf-8"))
    if base_index is not None:
        kept = json.loads(base_index.read_text(encoding="utf-8"))
        index = {name: kept.get(name, value) if _is_component(value) else value for name, value in index.items()}
        write_json(index_path, index)
    for name, value in index.items():
        if not _is_component(value):
            continue
        _forget_origin(folder / name)
        if value[1] == "CLIPTextModel":
            for file in sorted((folder / name).glob("*.safetensors")):
                _prefix_names(file)
            for shards in sorted((folder / name).glob("*.safetensors.index.json")):
                _prefix_index(shards)
        elif name in base_tokenizers:
            shutil.rmtree(folder / name)
            shutil.copytree(base_tokenizers[name], folder / name)
        if value[1].startswith("CLIPTokenizer") and not (folder / name / "vocab.json").is_file():
            _write_vocabulary(folder / name)


def _is_component(value: Any) -> bool:
    """Returns whether an entry of model_index.json is a part that was saved: ``[library, class]``."""
    return isinstance(value, list) and value[0] is not None


def _forget_origin(folder: Path) -> None:
    """Takes the folder out of the configs that the base model was loaded from: it is of no use to anyone else."""
    for path in sorted(folder.glob("*config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")}
        if kept != config:
            write_json(path, kept)


def _prefix_names(file: Path) -> None:
    """Gives the tensors of a safetensors file CLIP's prefix back; the data is copied, never held in memory."""
    header = read_safetensors_header(file)
    if all(name.startswith(_PREFIX) for name in header.tensors):
        return
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        entries: dict[str, Any] = json.loads(source.read(length))
        renamed = {name if name == "__metadata__" else _prefixed(name): entry for name, entry in entries.items()}
        text = json.dumps(renamed, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        part = file.with_suffix(".part")
        with part.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(source, target, _BLOCK)
    part.replace(file)


def _prefix_index(shards: Path) -> None:
    index = json.loads(shards.read_text(encoding="utf-8"))
    index["weight_map"] = {_prefixed(name): file for name, file in index["weight_map"].items()}
    write_json(shards, index)


def _prefixed(name: str) -> str:
    return name if name.startswith(_PREFIX) else _PREFIX + name


def _write_vocabulary(folder: Path) -> None:
    """Writes vocab.json and merges.txt out of tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    write_json(folder / "vocab.json", model["vocab"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")

"""What a file or folder is: model, LoRA, run, picture, data set, recipe. Only headers and small texts are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.core.config import read_recipe, validate
from limner.core.errors import ConfigError, UserError
from limner.core.rundir import RunDir, read_metrics
from limner.export.clip_text_encoder import FILE as TEXT_ENCODER
from limner.models.adapter_files import PEFT_CONFIG, PEFT_WEIGHTS, WEIGHTS
from limner.models.clip_files import WEIGHTS as OPEN_CLIP_WEIGHTS
from limner.models.clip_heads import SHAPES as HEADS
from limner.models.clip_heads import towers_folder
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.safety import CONVERT, MAX_JSON_BYTES, PICKLE_SUFFIXES, parse_json, read_safetensors_header
from limner.models.weights import BUILTIN, builtin_folder
from limner.models.weights_facts import Facts, origin_facts, part_of, readable, size_facts, weights_facts

RECIPE_SUFFIXES = (".yaml", ".yml")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_SHOWN_METADATA = 40


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    path: Path
    kind: str
    """In words: "a LoRA in the layout of kohya"."""
    facts: Facts = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        found = {"path": str(self.path), "kind": self.kind, "facts": self.facts, "notes": list(self.notes)}
        return {key: _plain_json(value) for key, value in found.items()}

    def lines(self) -> list[str]:
        """Returns the same for people, a fact a line."""
        shown = {label: value for label, value in self.facts.items() if label != "metadata"}
        lines = [f"{self.path}: {self.kind}", *(f"  {label}: {text}" for label, text in readable(shown))]
        metadata = list(readable(self.facts.get("metadata", {})))
        lines += [f"  [{label}] {text}" for label, text in metadata[:_SHOWN_METADATA]]
        if len(metadata) > _SHOWN_METADATA:
            lines.append(f"  ... and {len(metadata) - _SHOWN_METADATA} more header texts (--json shows them)")
        return lines + [f"  note: {note}" for note in self.notes]


def _plain_json(value: Any) -> Any:
    """Returns a value that every JSON reader takes: a stranger's header may hold half a character or NaN."""
    if isinstance(value, dict):
        return {_plain_json(key): _plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def inspect_path(path: Path) -> Inspection:
    """Returns what ``path`` is. Raises UserError where nothing is there, or where its header is damaged or hostile."""
    if str(path) == BUILTIN and not path.exists():
        path = builtin_folder()
    if path.is_dir():
        return _inspect_folder(path)
    if path.is_file():
        return _inspect_file(path)
    raise UserError("does not exist.", where=str(path), fix="Name a file or a folder.")


# ----------------------------------------------------------------------------------------------------------- files
def _inspect_file(path: Path) -> Inspection:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    if suffix in PICKLE_SUFFIXES or (suffix == ".safetensors" and start.startswith(_PICKLE_STARTS)):
        note = f"Reading one can run any code. {CONVERT}"
        return Inspection(path, "a pickled file; it was not opened", {"bytes": path.stat().st_size}, (note,))
    if suffix == ".safetensors":
        kind, facts = weights_facts(path)
        return Inspection(path, kind, facts)
    if suffix in RECIPE_SUFFIXES:
        return _inspect_recipe(path)
    if start.startswith(b"\x89PNG"):
        return _inspect_png(path)
    return _inspect_other(path)


def _inspect_png(path: Path) -> Inspection:
    from limner.evaluation.picture import read_picture

    found = read_picture(path)
    facts: Facts = {"size": f"{found.width}x{found.height}"}
    if found.prompt is None and found.settings is None:
        return Inspection(path, "a picture without a recipe", facts)
    prompt, negative = found.prompt, found.negative
    if found.settings is not None:
        prompt, negative = found.settings.prompt, found.settings.negative
    maker = "a picture made by Limner" if found.settings is not None else "a picture with its recipe"
    facts |= {"prompt": prompt, **({"negative prompt": negative} if negative else {}), **found.parameters}
    return Inspection(path, maker, facts)


def _inspect_other(path: Path) -> Inspection:
    """Tells pictures in other formats from files that Limner does not know."""
    from PIL import Image, UnidentifiedImageError

    size = path.stat().st_size
    try:
        with Image.open(path, formats=["JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"]) as image:
            return Inspection(path, f"a picture ({image.format})", {"size": f"{image.width}x{image.height}"})
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return Inspection(path, "nothing that Limner knows", {"bytes": size})


def _inspect_recipe(path: Path) -> Inspection:
    from limner.config import RunConfig

    values, origins = read_recipe(path)
    if not {"method", "dataset"} & values.keys():
        return Inspection(path, "a YAML file that is no recipe of Limner's", {"keys": ", ".join(map(str, values))})
    try:
        config = validate(RunConfig, values, where=str(path), origins=origins)
    except ConfigError as error:
        return Inspection(path, "a recipe with mistakes", {}, error.problems)
    return Inspection(path, "a recipe", _recipe_facts(config.model_dump(mode="json")))


def _recipe_facts(values: dict[str, Any]) -> Facts:
    """Returns what matters of a recipe's values; a stranger's may lack anything."""
    facts: Facts = {}
    for label, keys in {
        "model": ("model", "path"),
        "text encoder": ("model", "text_encoder", "path"),
        "text encoder blend": ("model", "text_encoder", "blend"),
        "data": ("dataset", "path"),
        "layout": ("dataset", "kind"),
        "method": ("method", "kind"),
        "rank": ("method", "rank"),
        "alpha": ("method", "alpha"),
        "new word": ("method", "token"),
        "learning rate": ("optimizer", "lr"),
        "steps": ("train", "steps"),
        "trigger word": ("trigger_word",),
    }.items():
        value: Any = values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            facts[label] = value
    if sources := _sources(values.get("dataset")):
        facts["sources"] = sources
    return facts


def _sources(dataset: Any) -> str:
    """Returns the names and places of a data set of several sources, "" for another."""
    sources = dataset.get("sources") if isinstance(dataset, dict) else None
    told = []
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict):
            inner = source.get("dataset")
            place = inner.get("path") or inner.get("id") if isinstance(inner, dict) else None
            told.append(f"{source.get('name')} ({place})" if place else str(source.get("name")))
    return ", ".join(told)


# --------------------------------------------------------------------------------------------------------- folders
def _inspect_folder(path: Path) -> Inspection:
    """Asks what each file speaks for, the surest first."""
    kinds: tuple[tuple[str, Callable[[Path], Inspection]], ...] = (
        ("model_index.json", _inspect_pipeline),
        (PEFT_CONFIG, _inspect_peft),
        (f"unet/{PEFT_CONFIG}", _inspect_peft_folders),
        (f"text_encoder/{PEFT_CONFIG}", _inspect_peft_folders),
        (WEIGHTS, lambda folder: _inspect_file(folder / WEIGHTS)),
        (LEARNED_EMBEDS, lambda folder: _inspect_file(folder / LEARNED_EMBEDS)),
        ("state.json", _inspect_checkpoint),
        ("status.json", _inspect_run),
        (HEADS, _inspect_heads),
        ("config.json", _inspect_network),
        (OPEN_CLIP_WEIGHTS[0], lambda folder: _inspect_file(folder / OPEN_CLIP_WEIGHTS[0])),
        (TEXT_ENCODER, lambda folder: _inspect_file(folder / TEXT_ENCODER)),
    )
    for name, inspect in kinds:
        if (path / name).is_file():
            return inspect(path)
    return _inspect_data(path)


def _json(path: Path) -> dict[str, Any]:
    """Returns the keys of a small JSON file that is only shown, never acted on."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError("is too long to be read.", where=str(path), fix="It is damaged, or no config.")
    value = parse_json(path.read_bytes(), where=str(path))
    if not isinstance(value, dict):
        raise UserError("holds no keys with values.", where=str(path), fix="It is damaged, or no config.")
    return value


def _inspect_pipeline(path: Path) -> Inspection:
    index = _json(path / "model_index.json")
    components = {
        name: str(value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    }
    facts = _record_facts(path)
    facts |= {"class": index.get("_class_name"), "components": components}
    for name in components:
        if (path / name).is_dir():
            facts |= _weights_of(path / name, f"{name}: ")
    return Inspection(path, "a model in the layout of diffusers", facts, _pickle_notes(path))


def _weights_of(folder: Path, prefix: str) -> Facts:
    """Returns the sizes of a network's safetensors files; of two variants only the one without a name counts."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if ".fp16." not in file.name] or files
    if not plain:
        return {}
    tensors = {name: info for file in plain for name, info in read_safetensors_header(file).tensors.items()}
    sizes = size_facts(tensors)
    return {f"{prefix}parameters": sizes["parameters"], f"{prefix}number formats": sizes["number formats"]}


def _pickle_notes(path: Path) -> tuple[str, ...]:
    pickles = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.suffix in PICKLE_SUFFIXES)
    return (f"Not opened, since they are pickles: {', '.join(pickles[:5])}.",) if pickles else ()


def _inspect_peft(path: Path) -> Inspection:
    config = _json(path / PEFT_CONFIG)
    named = {"base": config.get("base_model_name_or_path"), "PEFT type": config.get("peft_type")}
    facts: Facts = {label: value for label, value in named.items() if value}
    if not (path / PEFT_WEIGHTS).is_file():
        notes = (f"{PEFT_WEIGHTS} is missing.", *_pickle_notes(path))
        return Inspection(path, "an incomplete adapter in the layout of PEFT", facts, notes)
    kind, more = weights_facts(path / PEFT_WEIGHTS)
    return Inspection(path, kind, more | facts)


def _inspect_peft_folders(path: Path) -> Inspection:
    parts = sorted(file.parent for file in path.glob(f"*/{PEFT_CONFIG}"))
    found = [_inspect_peft(part) for part in parts]
    facts = _record_facts(path)
    for part, one in zip(parts, found, strict=True):
        facts |= {
            f"{part.name}: {label}": one.facts[label] for label in ("layers", "rank", "alpha") if label in one.facts
        }
    return Inspection(path, f"{found[0].kind}, a folder for each network", facts)


def _record_facts(path: Path) -> Facts:
    """Returns what limner.json says, where Limner wrote the folder."""
    if not (path / "limner.json").is_file():
        return {}
    record = _json(path / "limner.json")
    texts = record.get("limner")
    metadata = {k: v for k, v in texts.items() if isinstance(v, str)} if isinstance(texts, dict) else {}
    checked = {"read back by": record.get("reader"), "largest error": record.get("max_error")}
    return {**origin_facts(metadata), **{label: value for label, value in checked.items() if value is not None}}


def _inspect_network(path: Path) -> Inspection:
    config = _json(path / "config.json")
    name = (
        config.get("_class_name") or ", ".join(map(str, config.get("architectures") or [])) or config.get("model_type")
    )
    if name is None:
        return _inspect_data(path)
    kind = "a CLIP model" if config.get("model_type") == "clip" else f"one network, {name}"
    facts: Facts = {"class": name, **_weights_of(path, "")}
    return Inspection(path, kind, facts, _pickle_notes(path))


def _inspect_heads(path: Path) -> Inspection:
    heads = _json(path / HEADS).get("heads")
    facts = _record_facts(path)
    for part, shape in heads.items() if isinstance(heads, dict) else ():
        told = ", ".join(f"{key} {value}" for key, value in shape.items()) if isinstance(shape, dict) else "the model's"
        facts[part.replace("_", " ")] = told
    towers = towers_folder(path)
    facts |= _weights_of(path, "heads: ") | _weights_of(towers, "towers: ")
    note = f"Name this folder, not {towers.name}/ in it, as a model: the heads are put on the towers then."
    return Inspection(path, "a CLIP model with heads of its own", facts, (note, *_pickle_notes(path)))


def _inspect_checkpoint(path: Path) -> Inspection:
    state = _json(path / "state.json")
    if "step" not in state or not isinstance(state.get("files"), dict):
        return _inspect_data(path)
    facts: Facts = {"step": state["step"], "files": ", ".join(sorted(state["files"]))}
    weights = path / "weights.safetensors"
    if weights.is_file():
        tensors = read_safetensors_header(weights).tensors
        facts |= {**size_facts(tensors), "parts": {part_of(name): 0 for name in tensors}}
        for name in tensors:
            facts["parts"][part_of(name)] += 1
    note = "To use what was trained take the run's export; a checkpoint is for going on with the run."
    return Inspection(path, "a checkpoint of Limner's", facts, (note,))


def _inspect_run(path: Path) -> Inspection:
    run = RunDir(path)
    status = _json(run.status)
    facts: Facts = {label: status[label] for label in ("state", "step", "steps", "message") if status.get(label)}
    if run.config.is_file():
        facts |= _recipe_facts(read_recipe(run.config)[0]) | {"step": facts.get("step", 0)}
    try:
        losses = [line["loss"] for line in read_metrics(run.metrics) if "loss" in line]
    except (ValueError, TypeError) as error:
        raise UserError(f"is damaged: {error}.", where=str(run.metrics), fix="Remove its damaged lines.") from None
    if losses:
        facts["mean of the last losses"] = round(sum(losses[-20:]) / len(losses[-20:]), 6)
    facts["checkpoints"] = ", ".join(map(str, run.checkpoint_steps())) or "none"
    exports = sorted(entry.name for entry in run.export.iterdir()) if run.export.is_dir() else []
    facts["exports"] = ", ".join(name for name in exports if not name.startswith(".")) or "none"
    return Inspection(path, "a run of Limner's", facts)


def _inspect_data(path: Path) -> Inspection:
    """Tells a data set, a folder of pictures, and a folder with neither."""
    from limner.data.auto import AutoDataset
    from limner.data.listing import list_folder

    listing = list_folder(path)
    facts: Facts = {"pictures": len(listing.images), "other files": len(listing.others)}
    try:
        reading = AutoDataset(path=path).read()
    except UserError as error:
        kind = "a folder of pictures" if listing.images else "a folder that Limner knows nothing about"
        return Inspection(path, kind, facts, (f"No data set yet: {error.what} {error.fix}",) if listing.images else ())
    captions = sum(len(example.captions) for example in reading.examples)
    facts |= {"examples": len(reading.examples), "captions": captions, "left out": len(reading.left_out)}
    return Inspection(path, f"a data set ({reading.layout})", facts, reading.notes)

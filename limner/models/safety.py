"""What may be read from a stranger's files: checked by us before any library opens them.

A model folder can ask a library to run code, to fetch code, or to read files elsewhere; a pickle runs code when it is
read. Nothing here imports a library that could.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from limner.core.errors import UserError

MAX_JSON_BYTES = 1_000_000
MAX_VOCABULARY_BYTES = 50_000_000
MAX_HEADER_BYTES = 100_000_000
MAX_FOLDER_ENTRIES = 20_000
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERT = (
    "Convert it to safetensors with the program that made it, on a machine where running its code is acceptable "
    "(diffusers: pipeline.save_pretrained(folder), which writes safetensors)."
)

_DOWNLOAD_AGAIN = "Download it again."
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_PRIVATE_KEYS = (
    "_class_name", "_diffusers_version", "_name_or_path", "_commit_hash", "_use_default_values",
    "_remove_final_layer_norm",  # of OPT, the language model of BLIP-2: true or false
)  # fmt: skip
_CODE_KEYS = (
    "auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "custom_revision", "attn_implementation",
    "experts_implementation", "kernel_config", "use_kernels", "quantization_config", "base_model_name_or_path",
)  # fmt: skip


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor: ``dtype`` as in the file ("F32", "BF16") and its shape."""

    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """A safetensors header: free text metadata, and the tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


# --------------------------------------------------------------------------------------------------------- JSON
def parse_json(data: bytes, *, where: str) -> Any:
    """Returns the value of a JSON text; a key that stands twice, NaN, infinity and absurd depth are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
        return values

    def finite(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is not a finite number")
        return float(text)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise UserError("is nested too deeply.", where=where, fix=_DOWNLOAD_AGAIN) from None
    except ValueError as error:
        raise UserError(f"is not valid JSON: {error}.", where=where, fix=_DOWNLOAD_AGAIN) from None


def read_json(path: Path, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Returns the keys of a JSON file of at most ``limit`` bytes."""
    if not path.is_file():
        raise UserError("is missing.", where=str(path), fix="Name a complete diffusers folder, or download it again.")
    size = path.stat().st_size
    if size > limit:
        raise UserError(f"has {size:,} bytes, more than {limit:,}.", where=str(path), fix=_DOWNLOAD_AGAIN)
    value = parse_json(path.read_bytes(), where=str(path))
    if not isinstance(value, dict):
        raise UserError(f"holds a {type(value).__name__}, not keys with values.", where=str(path), fix=_DOWNLOAD_AGAIN)
    return value


def read_config(path: Path) -> dict[str, Any]:
    """Returns the keys of a library's config file, after :func:`refuse_code`."""
    value = read_json(path)
    refuse_code(value, where=str(path))
    return value


def refuse_code(value: Any, *, where: str) -> None:
    """Raises where a config, however deep, has a key by which a library would fetch or run code of the model's own."""
    for key in _all_keys(value):
        private = key.startswith("_") and key not in _PRIVATE_KEYS
        if private or key in _CODE_KEYS:
            raise UserError(
                f"asks for {key!r}, which can make a library fetch or run code or load other weights.",
                where=where,
                fix="Use a model without it; if you know where it came from, delete that key.",
            )


def _all_keys(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)


# --------------------------------------------------------------------------------------------------- safetensors
def read_safetensors_header(path: Path) -> Header:
    """Returns metadata and tensors of a safetensors file without reading a tensor; every offset is checked."""
    _refuse_suffix(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _foreign(path, start + file.read(64), size, length)
            raw = file.read(length)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}.", where=str(path), fix="Name a weights file.") from None
    values = parse_json(raw, where=str(path))
    if not isinstance(values, dict):
        raise _damaged(path, "its header holds no tensors")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _damaged(path, "its metadata is not text")
    tensors, spans = {}, []
    for name, entry in values.items():
        tensors[name], span = _tensor(path, name, entry)
        spans.append(span)
    _check_spans(path, spans, size - 8 - length)
    return Header(metadata, tensors)


def _refuse_suffix(path: Path) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UserError(
            f"is a pickled file ({path.suffix}); reading one can run any code, so it is not opened.",
            where=str(path),
            fix=CONVERT,
        )
    if path.suffix.lower() != ".safetensors":
        raise UserError("is no .safetensors file.", where=str(path), fix="Name a .safetensors file.")


def _foreign(path: Path, start: bytes, size: int, length: int) -> UserError:
    """Returns the error for a file whose first bytes are no safetensors header; says what it is where that is known."""
    where = str(path)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return UserError("is a pickle with another name; reading one can run any code.", where=where, fix=CONVERT)
    if start.startswith(b"GGUF"):
        return UserError("is a GGUF file.", where=where, fix="Use the same model as .safetensors.")
    if start.startswith(b"version https"):
        return UserError("is a Git LFS pointer, not the file itself.", where=where, fix="Run: git lfs pull")
    if start.lstrip()[:1] == b"<":
        return UserError("is a web page, not weights.", where=where, fix="Download the file itself.")
    if start[8:9] == b"{" and length <= MAX_HEADER_BYTES:
        return UserError(f"ends inside its header ({size:,} bytes).", where=where, fix=_DOWNLOAD_AGAIN)
    return UserError("is not a safetensors file: its first bytes are no header.", where=where, fix=_DOWNLOAD_AGAIN)


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"is damaged: {problem}.", where=str(path), fix=_DOWNLOAD_AGAIN)


def _tensor(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"the entry of {name!r} is not dtype, shape, data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise UserError(f"{name!r} has the unknown type {dtype!r}.", where=str(path), fix="Use float weights.")
    if not _counts(shape) or not _counts(span) or len(span) != 2:
        raise _damaged(path, f"the shape or offsets of {name!r} are not counts")
    if span[1] - span[0] != math.prod(shape) * _BYTES[dtype]:
        raise _damaged(path, f"{name!r} of shape {shape} does not fit its offsets {span}")
    return TensorInfo(dtype, tuple(shape)), (span[0], span[1])


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_spans(path: Path, spans: list[tuple[int, int]], data_bytes: int) -> None:
    """Raises unless the tensors cover the data exactly: no hole, no overlap, nothing after the end."""
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _damaged(path, f"its tensors do not follow one another at byte {end:,}")
        end = stop
    if end != data_bytes:
        raise _damaged(path, f"its tensors need {end:,} bytes and {data_bytes:,} are there")


# -------------------------------------------------------------------------------------------------------- folders
def check_tree(folder: Path) -> None:
    """Raises where a model folder holds Python code or a link that leads out of it.

    The Hub's cache links from ``snapshots/<commit>/`` to ``blobs/``, both inside one folder of that model.
    """
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        allowed.append(root.parent.parent / "blobs")
    for count, entry in enumerate(folder.rglob("*")):
        if count >= MAX_FOLDER_ENTRIES:
            raise UserError(f"has more than {MAX_FOLDER_ENTRIES:,} files.", where=str(folder), fix="Name one model.")
        if entry.suffix.lower() in (".py", ".pyc", ".so"):
            raise UserError(
                "is code inside a model folder; a model needs none.",
                where=str(entry),
                fix="Use a model without code; if you know this file, move it out of the folder.",
            )
        if entry.is_symlink() and not any(entry.resolve().is_relative_to(place) for place in allowed):
            raise UserError("is a link that leads out of the model's folder.", where=str(entry), fix="Copy the file.")


def resolve_under(folder: Path, name: str, *, where: str) -> Path:
    """Returns the file that a model's own file names, which must lie directly in ``folder``."""
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UserError(f"names the file {name!r} outside its own folder.", where=where, fix=_DOWNLOAD_AGAIN)
    return folder / name

"""Textual-inversion files as diffusers and A1111 write them, put on a model; safetensors only.

diffusers' file has one tensor [n, D] under the placeholder's name; A1111's has one under ``emb_params``, and the file's
own name is the placeholder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.models.adapters import LoadedAdapter
from limner.models.placeholder import add_word, check_width
from limner.models.safety import PICKLE_SUFFIXES, read_safetensors_header

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

LEARNED_EMBEDS = "learned_embeds.safetensors"
A1111_NAMES = ("emb_params", "emp_params", "*")
"""Names that stand for any placeholder; the second is OneTrainer's."""
PLACEHOLDER_KEY = "limner.placeholder"
"""Header text of a LoRA that was trained together with a placeholder, and of the placeholder's own file."""


@dataclass(frozen=True)
class EmbeddingRef:
    """A textual-inversion file, and the word that calls it where it is not the file's own."""

    path: Path
    token: str | None = None


@dataclass(frozen=True)
class EmbeddingFile:
    """A textual-inversion file that was read."""

    path: Path
    token: str
    """From the file, or from its name where A1111's layout says no more."""
    rows: Tensor
    """[n, D] as in the file."""


@dataclass(frozen=True)
class LoadedEmbedding:
    """A word that is on a model now."""

    token: str
    vectors: int
    path: Path
    file_hash: str
    """SHA-256 of the file, what A1111 calls the hash of an embedding."""


def parse_embedding(text: str) -> EmbeddingRef:
    """Returns the embedding of ``path`` or ``token=path``; a path that exists is taken whole, equals signs and all."""
    token, equals, path = text.partition("=")
    if equals and token and path and not Path(text).exists():
        return EmbeddingRef(Path(path), token)
    return EmbeddingRef(Path(text))


def embedding_file(path: Path) -> Path:
    """Returns the textual-inversion file that is meant by a file, an export's folder, or a Limner run."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError("does not exist.", where=str(path), fix="Name a textual-inversion file, or its folder.")
    export = RunDir(path).export
    for folder in (path, export / "embedding", export / "diffusers", export / "peft"):
        if (folder / LEARNED_EMBEDS).is_file():
            return folder / LEARNED_EMBEDS
    pickles = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in PICKLE_SUFFIXES)
    told = f" There is {pickles[0]!r}, a pickle, and reading one can run any code." if pickles else ""
    raise UserError(
        f"holds no {LEARNED_EMBEDS}.{told}", where=str(path), fix="Name the file itself; only safetensors are read."
    )


def read_embedding_file(path: Path) -> EmbeddingFile:
    """Returns the vectors of one file. Raises UserError where it holds anything but those of one placeholder."""
    from safetensors.torch import load_file

    tensors = read_safetensors_header(path).tensors
    shapes = ", ".join(f"{name!r} {list(info.shape)}" for name, info in list(tensors.items())[:4])
    if {"clip_l", "clip_g"} <= tensors.keys():
        raise UserError(
            f"is an embedding for Stable Diffusion XL, with vectors for two text encoders ({shapes}).",
            where=str(path),
            fix="Use one that was made for Stable Diffusion 1.x.",
        )
    if len(tensors) != 1 or any(len(info.shape) not in (1, 2) or 0 in info.shape for info in tensors.values()):
        raise UserError(
            f"is no embedding: one tensor of vectors was expected, found {shapes or 'none'}.",
            where=str(path),
            fix="Name a textual-inversion file; `limner inspect` says what this one is.",
        )
    ((name, rows),) = load_file(path).items()
    if not rows.is_floating_point() or not bool(rows.isfinite().all()):
        raise UserError("its vectors are no finite numbers.", where=str(path), fix="Make or download the file again.")
    token = path.stem.lower() if name in A1111_NAMES else name
    return EmbeddingFile(path, token, rows.float().reshape(-1, rows.shape[-1]))


def load_embeddings(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, refs: Sequence[EmbeddingRef]
) -> tuple[LoadedEmbedding, ...]:
    """Puts textual-inversion files on a tokenizer and a text encoder, and returns what is on them.

    Every file is read before the first is put on. Raises UserError where one does not fit the model, or where its word
    is no new one.
    """
    files = [read_embedding_file(embedding_file(ref.path)) for ref in refs]
    loaded = []
    for ref, file in zip(refs, files, strict=True):
        width = int(text_encoder.get_input_embeddings().weight.shape[-1])
        check_width(file.rows, width, where=str(file.path))
        token = _checked(ref.token if ref.token is not None else file.token, file.path)
        try:
            add_word(tokenizer, text_encoder, token, file.rows, where=str(file.path))
        except UserError as error:
            raise UserError(error.what, where=error.where, fix=f"Give it another word: WORD={file.path}.") from None
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
        loaded.append(LoadedEmbedding(token, len(file.rows), file.path, digest))
    return tuple(loaded)


def _checked(token: str, path: Path) -> str:
    if not token or any(sign.isspace() for sign in token):
        raise UserError(
            f"its word would be {token!r}, and a prompt is cut at spaces.",
            where=str(path),
            fix=f"Give it one without spaces: WORD={path}.",
        )
    return token


def companions(
    adapters: Sequence[LoadedAdapter], given: Sequence[EmbeddingRef]
) -> tuple[list[EmbeddingRef], list[str]]:
    """Returns the embeddings that LoRAs were trained with and that lie beside them, and what a person should be told.

    A LoRA of pivotal tuning without its embedding would draw something else. One that is ``given`` is not added again.
    """
    known = {ref.token or read_embedding_file(embedding_file(ref.path)).token for ref in given}
    found: list[EmbeddingRef] = []
    told: list[str] = []
    for adapter in adapters:
        token = adapter.metadata.get(PLACEHOLDER_KEY)
        if token is None or adapter.weight == 0 or token in known:
            continue
        known.add(token)
        beside = [folder / LEARNED_EMBEDS for folder in (adapter.files[0].parent, adapter.files[0].parent.parent)]
        file = next((path for path in beside if path.is_file()), None)
        if file is None:
            told.append(f"{adapter.name} was trained together with an embedding for {token!r}: give it by --embedding")
        else:
            found.append(EmbeddingRef(file))
            told.append(f"{adapter.name} was trained together with the embedding {file}, used for {token!r}")
    return found, told

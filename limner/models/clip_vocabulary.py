"""CLIP's tokenizer: from a model's own files, from OpenAI's list of merges, or from another model's files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.models.safety import MAX_VOCABULARY_BYTES, check_tree, read_config, read_json
from limner.models.weights import locate

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
"""OpenAI's list of merges, as its repository names it."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
DEFAULT = "openai/clip-vit-base-patch32"
"""Whose tokenizer is read where a checkpoint brings none; all of OpenAI's models and most of open_clip's share it."""
_MERGES = 49_152 - 256 - 2
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """Returns the 256 signs that stand for bytes in CLIP's vocabulary, in its order.

    Those are GPT-2's: printable bytes are themselves, the others follow from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def has_tokenizer(folder: Path) -> bool:
    """Returns whether a folder has a vocabulary that transformers reads."""
    classic = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return classic or (folder / "tokenizer.json").is_file()


def read_tokenizer(folder: Path, limit: int) -> CLIPTokenizer:
    """Returns the tokenizer in a folder, checked; its ``model_max_length`` is at most ``limit``."""
    from transformers import CLIPTokenizer

    for name in ("tokenizer.json", "vocab.json"):
        if (folder / name).is_file():
            read_json(folder / name, limit=MAX_VOCABULARY_BYTES)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_config(folder / name)
    if not has_tokenizer(folder):
        raise UserError(
            "has no vocabulary: neither tokenizer.json nor vocab.json with merges.txt.",
            where=str(folder),
            fix="Download the model again, whole.",
        )
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer


def read_merges(path: Path, limit: int) -> CLIPTokenizer:
    """Returns the tokenizer of OpenAI's list of merges: 512 signs, 48,894 merges and two marks make 49,408 words."""
    from transformers import CLIPTokenizer

    try:
        with gzip.open(path) as file:
            lines = file.read(MAX_VOCABULARY_BYTES).decode("utf-8").split("\n")
        merges = [(left, right) for left, right in (line.split() for line in lines[1 : _MERGES + 1])]
    except (OSError, EOFError, ValueError, zlib.error):
        merges = []
    if len(merges) != _MERGES:
        raise UserError(
            f"is not OpenAI's list of merges, which has {_MERGES:,}.",
            where=str(path),
            fix="Download it again: it is clip/bpe_simple_vocab_16e6.txt.gz in OpenAI's repository.",
        )
    letters = byte_alphabet()
    words = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    vocab = {word: number for number, word in enumerate([*words, _BEGIN, _END])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=limit, pad_token=_END)


def is_openais(tokenizer: CLIPTokenizer) -> bool:
    """Returns whether a tokenizer has the words of OpenAI's list, under the numbers that they have there."""
    words = {"the</w>": 518, "dog</w>": 1929, _BEGIN: 49_406, _END: 49_407}
    return len(tokenizer) == _MERGES + 514 and tokenizer.convert_tokens_to_ids(list(words)) == list(words.values())


def tokenizer_for(folder: Path, named: str | None, limit: int) -> CLIPTokenizer:
    """Returns the tokenizer of a checkpoint in ``folder``: the one that is named, else the one beside it, else CLIP's.

    ``named`` is a folder, OpenAI's file, or a Hub id. Raises UserError where none of these can be had.
    """
    if named is None and has_tokenizer(folder):
        return read_tokenizer(folder, limit)
    if named is None and (folder / MERGES_FILE).is_file():
        return read_merges(folder / MERGES_FILE, limit)
    try:
        place = locate(named or DEFAULT, None, hub_patterns=TOKENIZER_FILES).path
    except UserError as error:
        raise UserError(
            f"the tokenizer is not to be had: {error.what}",
            where="model.tokenizer",
            fix=f"Name a folder with CLIP's tokenizer, or put it or {MERGES_FILE} beside the checkpoint.",
        ) from None
    if place.is_file():
        return read_merges(place, limit)
    if not has_tokenizer(place) and (place / MERGES_FILE).is_file():
        return read_merges(place / MERGES_FILE, limit)
    inner = place / "tokenizer"
    place = inner if inner.is_dir() and not has_tokenizer(place) else place
    check_tree(place)
    return read_tokenizer(place, limit)

"""The vectors of a new word that a training left: written, read back with diffusers, put on a copy of the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.rundir import write_atomic
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.methods.trainable import Trainable
from limner.models.embedding_files import LEARNED_EMBEDS, PLACEHOLDER_KEY
from limner.models.placeholder import add_word, names_of
from limner.models.probe import PROMPTS, prompts_about
from limner.models.protocol import DiffusionModel
from limner.models.weights import quiet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TrainedWord:
    """A new word and what it has learned."""

    token: str
    vectors: Tensor
    """[n, D] float32 on the CPU."""


def trained_word(trainable: Trainable) -> TrainedWord | None:
    """Returns the word that was trained; None where none was."""
    import torch

    if trainable.placeholder is None:
        return None
    rows = [trainable.params[name].detach().float().cpu().clone() for name in trainable.placeholder.vectors]
    return TrainedWord(trainable.placeholder.token, torch.stack(rows))


def prompts_of(word: TrainedWord | None) -> tuple[str, ...]:
    """Returns the prompts with which exports are compared: about the word, where one was trained."""
    return PROMPTS if word is None else prompts_about(word.token)


def word_metadata(word: TrainedWord | None, metadata: Mapping[str, str]) -> dict[str, str]:
    """Returns the header texts with the word, which is the trigger word too unless another was named."""
    if word is None:
        return dict(metadata)
    trigger = {"limner.trigger_word": word.token, "modelspec.trigger_phrase": word.token}
    return {**trigger, **metadata, PLACEHOLDER_KEY: word.token}


def write_word(folder: Path, word: TrainedWord | None, metadata: Mapping[str, str], family: str) -> None:
    """Writes diffusers' file: one tensor [n, D] under the word. Does nothing where there is none."""
    if word is not None:
        header = {**word_metadata(word, metadata), **architecture_metadata(family, "textual_inversion")}
        write_atomic(folder / LEARNED_EMBEDS, safetensors_bytes({word.token: word.vectors}, header))


def put_word_on(model: DiffusionModel, word: TrainedWord | None) -> None:
    """Puts the word on a fresh model, without diffusers' reader."""
    if word is not None:
        pipeline = model.pipeline()
        add_word(pipeline.tokenizer, pipeline.text_encoder, word.token, word.vectors, where=word.token)


def read_word(model: DiffusionModel, file: Path, word: TrainedWord | None) -> None:
    """Puts a written word on a fresh model with diffusers; raises where a bit of a vector is not what was trained."""
    import torch

    if word is None:
        return
    pipeline = model.pipeline()
    token = None if file.name == LEARNED_EMBEDS else word.token  # diffusers' own file knows it
    with quiet():
        pipeline.load_textual_inversion(
            str(file.parent), weight_name=file.name, token=token, use_safetensors=True, local_files_only=True
        )
    ids = pipeline.tokenizer.convert_tokens_to_ids(list(names_of(word.token, len(word.vectors))))
    read = pipeline.text_encoder.get_input_embeddings().weight.detach()[ids].cpu()
    if not torch.equal(read, word.vectors):
        raise RuntimeError(f"diffusers reads other vectors of {word.token!r} than were written")

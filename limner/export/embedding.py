"""What reads a new word: diffusers' learned_embeds.safetensors, and A1111's file of the word's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from limner.core.config import Config
from limner.core.naming import slug
from limner.core.rundir import write_atomic
from limner.export.diffusers import reader_name
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_lora import put_on, trained_layers
from limner.export.trained_word import (
    prompts_of,
    put_word_on,
    read_word,
    trained_word,
    word_metadata,
    write_word,
)
from limner.methods.trainable import Trainable
from limner.models.embedding_files import A1111_NAMES, LEARNED_EMBEDS
from limner.models.probe import probe
from limner.models.protocol import DiffusionModel


class Embedding(Config):
    """The vectors of a new word, float32: a file for diffusers, and one for A1111, ComfyUI and others."""

    kind: Literal["embedding"] = "embedding"

    methods: ClassVar[tuple[str, ...]] = ("textual_inversion", "pivotal")
    models: ClassVar[tuple[str, ...]] = ("sd1",)

    def write(
        self,
        model: DiffusionModel,
        trainable: Trainable,
        folder: Path,
        metadata: Mapping[str, str],
        *,
        fresh_base: Callable[[], DiffusionModel],
    ) -> ExportResult:
        """Writes both files into ``folder``, reads each back with diffusers, and compares predictions.

        A LoRA that was trained together with the word is on all models that are compared. ``fresh_base`` loads the base
        model anew, in float32. Raises UserError, and leaves nothing, where predictions differ.
        """
        import torch

        word = trained_word(trainable)
        if word is None:
            raise ValueError(f"method {trainable.kind!r} trains no new word")
        layers = trained_layers(model, trainable)
        texts = {**word_metadata(word, metadata), **architecture_metadata(model.source.family, "textual_inversion")}

        def fresh() -> DiffusionModel:
            loaded = fresh_base()
            put_on(loaded, layers)
            return loaded

        with staged(folder) as part, torch.random.fork_rng(devices=[]):
            write_word(part, word, metadata, model.source.family)
            other = part / f"{file_name(word.token)}.safetensors"
            write_atomic(other, safetensors_bytes({A1111_NAMES[0]: word.vectors}, texts))
            expected = fresh()
            base = probe(expected, prompts=prompts_of(word))
            put_word_on(expected, word)
            trained = probe(expected, prompts=prompts_of(word))
            del expected
            results = []
            for file in (part / LEARNED_EMBEDS, other):
                read = fresh()
                read_word(read, file, word)
                answer = probe(read, prompts=prompts_of(word))
                results.append(compare(file, reader=reader_name(), file=answer, trained=trained, base=base))
            result = max(results, key=lambda one: one.max_error)
            write_record(part, result, texts)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def file_name(token: str) -> str:
    """Returns a word as a file's name, which is what calls it in A1111: ``<my-dog>`` is ``my-dog``."""
    return slug(token) or "embedding"

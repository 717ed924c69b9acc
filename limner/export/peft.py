"""What PEFT reads: a folder per network, with adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from limner.core.config import Config
from limner.core.rundir import write_atomic, write_json
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_lora import file_tensors, lora_settings, network_metadata, put_on, trained_layers
from limner.export.trained_word import (
    TrainedWord,
    prompts_of,
    put_word_on,
    read_word,
    trained_word,
    word_metadata,
    write_word,
)
from limner.methods.trainable import Trainable
from limner.models.adapter_files import PEFT_CONFIG, PEFT_WEIGHTS, LowRank
from limner.models.adapters import lora_layers
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.probe import probe
from limner.models.protocol import DiffusionModel


class Peft(Config):
    """The layout of PEFT: ``unet/`` and ``text_encoder/``, each for PeftModel.from_pretrained(network, folder)."""

    kind: Literal["peft"] = "peft"

    methods: ClassVar[tuple[str, ...]] = ("lora", "pivotal")
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
        """Writes the trained LoRA into ``folder``, reads it back with PEFT, and compares predictions.

        ``fresh_base`` loads the base model anew, in float32. Raises UserError, and leaves nothing, where they differ.
        """
        import torch

        layers = trained_layers(model, trainable)
        word = trained_word(trainable)
        metadata = {**metadata, **architecture_metadata(model.source.family, trainable.kind)}
        with staged(folder) as part_folder, torch.random.fork_rng(devices=[]):
            for part, updates in layers.items():
                config = _config(lora_settings(model, part), part, updates, metadata.get("limner.base_model"))
                tensors = file_tensors(updates, "base_model.model.")
                (part_folder / part).mkdir()
                write_json(part_folder / part / PEFT_CONFIG, config)
                header = {**word_metadata(word, metadata), **network_metadata({part: updates})}
                write_atomic(part_folder / part / PEFT_WEIGHTS, safetensors_bytes(tensors, header))
            write_word(part_folder, word, metadata, model.source.family)
            result = _check(part_folder, layers, word, fresh_base)
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


def _config(
    settings: Mapping[str, Any], part: str, updates: Mapping[str, LowRank], base_model: str | None
) -> dict[str, Any]:
    """Returns an adapter_config.json without the fields that older releases of PEFT do not know.

    A text encoder's layers are written out in full as one pattern: in transformers 4 they have other names, and PEFT
    would adapt those, find no weights for them, and go on with a warning. So it stops with an error.
    """
    config = {
        **settings,
        "peft_type": "LORA",
        "task_type": None,
        "auto_mapping": None,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "bias": "none",
    }
    if part.startswith("text_encoder"):
        config["target_modules"] = "|".join(re.escape(path) for path in updates)
    return dict(sorted(config.items()))


def _check(
    folder: Path,
    layers: Mapping[str, Mapping[str, LowRank]],
    word: TrainedWord | None,
    fresh_base: Callable[[], DiffusionModel],
) -> ExportResult:
    import peft
    from peft import PeftModel

    expected = fresh_base()
    put_on(expected, layers)
    put_word_on(expected, word)
    trained = probe(expected, prompts=prompts_of(word))
    del expected
    fresh = fresh_base()
    base = probe(fresh, prompts=prompts_of(word))
    for part, updates in layers.items():
        PeftModel.from_pretrained(fresh.networks[part], folder / part, local_files_only=True)
        if lora_layers(fresh.networks[part]).keys() != updates.keys():
            raise RuntimeError(f"PEFT adapted other layers of {part} than the {len(updates)} of the file")
    read_word(fresh, folder / LEARNED_EMBEDS, word)
    answer = probe(fresh, prompts=prompts_of(word))
    return compare(folder, reader=f"PEFT {peft.__version__}", file=answer, trained=trained, base=base)

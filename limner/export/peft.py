"""What PEFT reads: a folder per network, with adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from limner.core.config import Config
from limner.core.rundir import write_atomic, write_json
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.peft_clip import write_clip_adapter
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_lora import file_tensors, lora_settings, network_metadata, put_on, trained_layers
from limner.export.trained_lycoris import lycoris_metadata, lycoris_settings, peft_tensors, trained_lycoris
from limner.export.trained_word import (
    TrainedWord,
    prompts_of,
    put_word_on,
    read_word,
    trained_word,
    word_metadata,
    write_word,
)
from limner.methods.trainable import ADAPTERS, Trainable
from limner.models.adapter_files import PEFT_CONFIG, PEFT_WEIGHTS, Update
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.lycoris import adapted_layers
from limner.models.probe import probe
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from torch import Tensor


class Peft(Config):
    """The layout of PEFT: ``unet/`` and ``text_encoder/``, each for PeftModel.from_pretrained(network, folder).

    Of a CLIP model the folder itself is one, for transformers' CLIPModel, with the projections if they train too."""

    kind: Literal["peft"] = "peft"

    methods: ClassVar[tuple[str, ...]] = ADAPTERS
    models: ClassVar[tuple[str, ...]] = ("sd1", "clip")

    def write(
        self,
        model: DiffusionModel,
        trainable: Trainable,
        folder: Path,
        metadata: Mapping[str, str],
        *,
        fresh_base: Callable[[], DiffusionModel],
    ) -> ExportResult:
        """Writes the trained adapter into ``folder``, reads it back with PEFT, and compares predictions.

        ``fresh_base`` loads the base model anew, in float32. Raises UserError, and leaves nothing, where they differ.
        """
        import torch

        if model.source.family == "clip":
            with staged(folder) as part_folder, torch.random.fork_rng(devices=[]):
                base: Any = fresh_base
                result = write_clip_adapter(cast("Any", model), trainable, part_folder, metadata, base)
                write_record(part_folder, result, metadata)
            return ExportResult(folder, result.reader, result.max_error, result.effect)
        found, word = _trained(model, trainable), trained_word(trainable)
        metadata = {**metadata, **architecture_metadata(model.source.family, trainable.kind)}
        with staged(folder) as part_folder, torch.random.fork_rng(devices=[]):
            for part, one in found.items():
                (part_folder / part).mkdir()
                kind = "lora" if trainable.kind == "pivotal" else trainable.kind
                config = _config(one, part, kind, metadata.get("limner.base_model"))
                write_json(part_folder / part / PEFT_CONFIG, config)
                data = safetensors_bytes(one.tensors, {**word_metadata(word, metadata), **one.texts})
                write_atomic(part_folder / part / PEFT_WEIGHTS, data)
            write_word(part_folder, word, metadata, model.source.family)
            result = _check(part_folder, {part: one.updates for part, one in found.items()}, word, fresh_base)
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


@dataclass(frozen=True)
class _Trained:
    """What was trained of one network, and how PEFT calls it."""

    updates: Mapping[str, Update]
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    texts: Mapping[str, str]
    """For the header."""


def _trained(model: DiffusionModel, trainable: Trainable) -> dict[str, _Trained]:
    prefix = "base_model.model."
    found: dict[str, _Trained] = {}
    if trainable.kind in ("lora", "pivotal"):
        for part, updates in trained_layers(model, trainable).items():
            settings, texts = lora_settings(model, part), network_metadata({part: updates})
            found[part] = _Trained(updates, settings, file_tensors(updates, prefix), texts)
        return found
    for part, products in trained_lycoris(model, trainable).items():
        settings = lycoris_settings(model, part)
        texts = lycoris_metadata(settings, trainable.kind)
        found[part] = _Trained(products, settings, peft_tensors(products, prefix), texts)
    return found


def _config(trained: _Trained, part: str, kind: str, base_model: str | None) -> dict[str, Any]:
    """Returns an adapter_config.json without the fields that older releases of PEFT do not know.

    A text encoder's layers are written out in full as one pattern: in transformers 4 they have other names, and PEFT
    would adapt those, find no weights for them, and go on with a warning. So it stops with an error.
    """
    config = {
        **trained.settings,
        "peft_type": kind.upper(),
        "task_type": None,
        "auto_mapping": None,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        **({"bias": "none"} if kind == "lora" else {}),
    }
    if part.startswith("text_encoder"):
        config["target_modules"] = "|".join(re.escape(path) for path in trained.updates)
    return dict(sorted(config.items()))


def _check(
    folder: Path,
    layers: Mapping[str, Mapping[str, Update]],
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
        if adapted_layers(fresh.networks[part]) != updates.keys():
            raise RuntimeError(f"PEFT adapted other layers of {part} than the {len(updates)} of the file")
    read_word(fresh, folder / LEARNED_EMBEDS, word)
    answer = probe(fresh, prompts=prompts_of(word))
    return compare(folder, reader=f"PEFT {peft.__version__}", file=answer, trained=trained, base=base)

"""The adapter of a CLIP model as PEFT loads it onto transformers' CLIPModel: one folder for both towers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.rundir import write_atomic, write_json
from limner.export.metadata import safetensors_bytes
from limner.export.result import ExportResult, compare
from limner.export.trained_clip import put_trained_on, trained_adapters
from limner.export.trained_lora import file_tensors, lora_settings, network_metadata
from limner.methods.trainable import Trainable
from limner.models.adapter_files import PEFT_CONFIG, PEFT_WEIGHTS
from limner.models.lycoris import adapted_layers
from limner.models.probe import probe_dual_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from limner.models.clip import ClipModel

_PREFIX = "base_model.model."
_NAMES = {"vision_model": "vision_model", "text_encoder": "text_model"}
"""The towers as CLIPModel calls them, in transformers 4 and 5."""


def write_clip_adapter(
    model: ClipModel,
    trainable: Trainable,
    folder: Path,
    metadata: Mapping[str, str],
    fresh_base: Callable[[], ClipModel],
) -> ExportResult:
    """Writes the adapter, and the projections if they train, reads both back with PEFT, and compares embeddings."""
    if "temperature" in trainable.parts:
        raise UserError(
            "has no place for the temperature (logit_scale), which trained.",
            where="export peft",
            fix="Export transformers, or train with method.towers.temperature: false.",
        )
    found = trained_adapters(model, trainable)
    layers = {f"{_NAMES[part]}.{path}": one for part, updates in found.items() for path, one in updates.items()}
    whole = [part for part in trainable.parts if part not in found]
    tensors: dict[str, Tensor] = file_tensors(layers, _PREFIX)
    for part in whole:
        for name, parameter in model.networks[part].named_parameters():
            tensors[f"{_PREFIX}{part}.{name}"] = parameter.detach().float().cpu()
    config = {
        **lora_settings(model, next(iter(found))),
        "peft_type": "LORA",
        "task_type": None,
        "auto_mapping": None,
        "base_model_name_or_path": metadata.get("limner.base_model"),
        "inference_mode": True,
        "bias": "none",
        # each layer in full: the other tower's have the same ends, and PEFT would adapt them too
        "target_modules": "|".join(re.escape(path) for path in layers),
        **({"modules_to_save": whole} if whole else {}),
    }
    write_json(folder / PEFT_CONFIG, dict(sorted(config.items())))
    write_atomic(folder / PEFT_WEIGHTS, safetensors_bytes(tensors, network_metadata({"": layers})))
    return _check(model, trainable, folder, set(layers), fresh_base)


def _check(
    model: ClipModel, trainable: Trainable, folder: Path, layers: set[str], fresh_base: Callable[[], ClipModel]
) -> ExportResult:
    import peft
    from peft import PeftModel

    expected = fresh_base()
    base = probe_dual_encoder(expected)
    put_trained_on(expected, model, trainable)
    trained = probe_dual_encoder(expected)
    del expected
    fresh = fresh_base()
    network: Any = fresh.network
    PeftModel.from_pretrained(network, folder, local_files_only=True)
    adapted = adapted_layers(network)
    if adapted != layers:
        raise RuntimeError(f"PEFT adapted {len(adapted)} layers, the file has {len(layers)}")
    answer = probe_dual_encoder(fresh)
    return compare(folder, reader=f"PEFT {peft.__version__}", file=answer, trained=trained, base=base)

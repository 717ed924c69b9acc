"""What diffusers reads: a LoRA file, or a whole pipeline folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from limner.core.config import Config
from limner.core.rundir import write_atomic
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.portable import make_portable
from limner.export.result import ExportResult, compare, copy_weights, staged, write_record
from limner.export.trained_lora import (
    file_tensors,
    lora_settings,
    network_metadata,
    put_on,
    rounded,
    trained_layers,
)
from limner.export.trained_word import prompts_of, put_word_on, read_word, trained_word, word_metadata, write_word
from limner.methods.adapters import ADAPTER_NAME
from limner.methods.trainable import Trainable
from limner.models.adapter_files import METADATA_KEY, WEIGHTS, LowRank
from limner.models.adapters import lora_layers
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.evaluating import evaluating
from limner.models.probe import probe, probe_autoencoder
from limner.models.protocol import DiffusionModel
from limner.models.weights import quiet

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CHECK_STEPS = 2


class Diffusers(Config):
    """The layout of diffusers: pytorch_lora_weights.safetensors for a LoRA, a pipeline folder for a full model.

    With a LoRA of pivotal tuning lies learned_embeds.safetensors, float32: it is of no use without its word."""

    kind: Literal["diffusers"] = "diffusers"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ("lora", "full", "autoencoder", "pivotal")
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
        """Writes the trained weights into ``folder``, reads them back with diffusers, and compares predictions.

        ``fresh_base`` loads the base model anew, in float32. With float16 the comparison is with the trained weights
        rounded to it, so that the same bound holds. Raises UserError, and leaves nothing, where they differ.
        """
        import torch

        dtype = {"float32": torch.float32, "float16": torch.float16}[self.dtype]
        metadata = {**metadata, **architecture_metadata(model.source.family, trainable.kind)}
        with staged(folder) as part, torch.random.fork_rng(devices=[]):
            if trainable.kind in ("lora", "pivotal"):
                result = _write_lora(model, trainable, part, metadata, dtype, fresh_base)
            else:
                result = _write_pipeline(model, trainable, part, dtype, fresh_base)
            write_record(part, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)


# ------------------------------------------------------------------------------------------------------------ LoRA
def _write_lora(
    model: DiffusionModel,
    trainable: Trainable,
    folder: Path,
    metadata: Mapping[str, str],
    dtype: torch.dtype,
    fresh_base: Callable[[], DiffusionModel],
) -> ExportResult:
    layers = {
        part: {path: rounded(update, dtype) for path, update in updates.items()}
        for part, updates in trained_layers(model, trainable).items()
    }
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for part, updates in layers.items():
        tensors |= {name: tensor.to(dtype) for name, tensor in _named(part, updates).items()}
        settings |= {f"{part}.{key}": value for key, value in lora_settings(model, part).items()}
    word = trained_word(trainable)
    write_word(folder, word, metadata, model.source.family)
    header = {**word_metadata(word, metadata), **network_metadata(layers), METADATA_KEY: _json(settings)}
    write_atomic(folder / WEIGHTS, safetensors_bytes(tensors, header))

    expected = fresh_base()
    put_on(expected, layers)
    put_word_on(expected, word)
    trained = probe(expected, prompts=prompts_of(word))
    del expected
    fresh = fresh_base()
    base = probe(fresh, prompts=prompts_of(word))
    fresh.pipeline().load_lora_weights(folder, weight_name=WEIGHTS, adapter_name=ADAPTER_NAME)
    for part, updates in layers.items():
        placed = set(lora_layers(fresh.networks[part]))
        if placed != set(updates):
            raise RuntimeError(f"diffusers adapted {len(placed)} layers of {part}, the file has {len(updates)}")
    read_word(fresh, folder / LEARNED_EMBEDS, word)
    answer = probe(fresh, prompts=prompts_of(word))
    return compare(folder / WEIGHTS, reader=reader_name(), file=answer, trained=trained, base=base)


def _named(part: str, updates: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Returns one network's tensors by name.

    A text encoder's have ``text_model.``, without which older releases fail, and DoRA's magnitude ends in ``.weight``,
    without which transformers 5 loses it and only prints a report.
    """
    if part.startswith("text_encoder"):
        return file_tensors(updates, f"{part}.text_model.", magnitude_name="lora_magnitude_vector.weight")
    return file_tensors(updates, f"{part}.")


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2, sort_keys=True)


# ------------------------------------------------------------------------------------------------------ full model
def _write_pipeline(
    model: DiffusionModel,
    trainable: Trainable,
    folder: Path,
    dtype: torch.dtype,
    fresh_base: Callable[[], DiffusionModel],
) -> ExportResult:
    import torch

    fresh = fresh_base()
    answer = _rebuild if trainable.kind == "autoencoder" else _draw
    base = answer(fresh.pipeline(), fresh)
    for part in trainable.parts:
        copy_weights(model.networks[part], fresh.networks[part])
    pipeline = fresh.pipeline().to(dtype)
    _save(pipeline, folder)
    trained = answer(pipeline.to(torch.float32), fresh)
    return compare(folder, reader=reader_name(), file=answer(_load(folder), fresh), trained=trained, base=base)


def _save(pipeline: Any, folder: Path) -> None:
    with quiet():
        pipeline.save_pretrained(folder, safe_serialization=True)
    tokenizers = {}
    for name, component in pipeline.components.items():
        if name.startswith("tokenizer") and component is not None:
            origin = Path(component.name_or_path)
            if component.name_or_path and origin.is_dir():
                tokenizers[name] = origin
    index = next((origin.parent / "model_index.json" for origin in tokenizers.values()), None)
    make_portable(folder, tokenizers, index if index is not None and index.is_file() else None)


def _load(folder: Path) -> Any:
    import torch
    from diffusers import DiffusionPipeline

    with quiet():
        pipeline = DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    return pipeline


def _draw(pipeline: Any, model: DiffusionModel) -> Tensor:
    """Returns the latents that a pipeline comes to in two steps: every saved part but the image decoder has its say.

    ``model`` is asked for the size only.
    """
    import torch

    pipeline.set_progress_bar_config(disable=True)
    side = 2 * model.size_multiple
    networks: list[nn.Module] = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    with evaluating(networks):
        latents: Tensor = pipeline(
            prompt="a photo of a dog in the snow",
            num_inference_steps=_CHECK_STEPS,
            guidance_scale=3.0,
            width=side,
            height=side,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="latent",
        ).images
    return latents.float().cpu()


def _rebuild(pipeline: Any, model: DiffusionModel) -> Tensor:
    """Returns what a pipeline's autoencoder makes of a picture; ``model`` is asked for the size only."""
    return probe_autoencoder(pipeline.vae, side=2 * model.size_multiple)


def reader_name() -> str:
    """Returns the reader's name and version."""
    import diffusers

    return f"diffusers {diffusers.__version__}"

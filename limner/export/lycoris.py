"""What ComfyUI and A1111 read of LoHa and LoKr: one file in the layout of LyCORIS, with kohya's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import limner
from limner.core.config import Config
from limner.core.rundir import write_atomic
from limner.export.metadata import architecture_metadata, safetensors_bytes
from limner.export.result import ExportResult, compare, staged, write_record
from limner.export.trained_lycoris import (
    kohya_metadata,
    kohya_tensors,
    lycoris_settings,
    put_on_by_peft,
    trained_lycoris,
)
from limner.methods.trainable import Trainable
from limner.models.adapters import AdapterRef, load_adapters
from limner.models.lycoris import adapted_layers, converted
from limner.models.probe import probe
from limner.models.protocol import DiffusionModel

FILE = "lycoris.safetensors"


class Lycoris(Config):
    """One file for ComfyUI and A1111, lycoris.safetensors: LoHa or LoKr of all networks."""

    kind: Literal["lycoris"] = "lycoris"
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the file; float16 halves the size and rounds each weight to about 3 digits."""

    methods: ClassVar[tuple[str, ...]] = ("loha", "lokr")
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
        """Writes the trained weights into ``folder``, reads them back, and compares predictions.

        diffusers reads no such file, so Limner reads it, by the equations that ComfyUI follows, and the comparison is
        with the layers of PEFT, which have code of their own. ``fresh_base`` loads the base model anew, in float32.
        With float16 the comparison is with the trained weights rounded to it. Raises UserError, and leaves nothing,
        where they differ.
        """
        import torch

        dtype = {"float32": torch.float32, "float16": torch.float16}[self.dtype]
        layers = {part: converted(updates, dtype) for part, updates in trained_lycoris(model, trainable).items()}
        tensors = {
            name: value for part, updates in layers.items() for name, value in kohya_tensors(part, updates).items()
        }
        metadata = {**metadata, **architecture_metadata(model.source.family, trainable.kind)}
        header = {**metadata, **kohya_metadata(lycoris_settings(model, next(iter(layers))), trainable.kind)}
        with staged(folder) as part_folder, torch.random.fork_rng(devices=[]):
            file = part_folder / FILE
            write_atomic(file, safetensors_bytes({name: value.to(dtype) for name, value in tensors.items()}, header))
            expected = fresh_base()
            put_on_by_peft(expected, model, layers)
            trained = probe(expected)
            del expected
            fresh = fresh_base()
            base = probe(fresh)
            load_adapters(fresh.networks, [AdapterRef(file)])
            for part, updates in layers.items():
                if adapted_layers(fresh.networks[part]) != updates.keys():
                    raise RuntimeError(f"other layers of {part} were adapted than the {len(updates)} of the file")
            reader = f"Limner {limner.__version__}, against PEFT's layers"
            result = compare(file, reader=reader, file=probe(fresh), trained=trained, base=base)
            write_record(part_folder, result, metadata)
        return ExportResult(folder, result.reader, result.max_error, result.effect)

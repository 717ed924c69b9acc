"""A run as the target of a grid: its method on its base model, and its checkpoints put in place one after another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig, load_config
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir
from limner.grid.axes import Settings
from limner.grid.weights import InPlace
from limner.methods.adapters import ADAPTER_NAME
from limner.methods.trainable import ADAPTERS, Trainable
from limner.models.adapters import LoadedAdapter, hash_tensors
from limner.models.embedding_files import LoadedEmbedding
from limner.models.safety import read_safetensors_header
from limner.reopening import refuse_other_runs

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

    from limner.models.sd1 import SD1Model
    from limner.training.precision import Precision


@dataclass(frozen=True)
class RunTarget:
    """A run of Stable Diffusion. Nothing of its data set is read."""

    run: RunDir
    config: RunConfig
    kept: tuple[int, ...]

    @property
    def usual(self) -> int:
        """The checkpoint that was exported, else the newest."""
        best = json.loads(self.run.best.read_text(encoding="utf-8")) if self.run.best.is_file() else {}
        exported = best.get("exported_step")
        return exported if exported in self.kept else self.kept[-1]

    def refuse_weight(self, where: str) -> None:
        """Refuses a run that trains something else than an adapter."""
        if self.config.method.kind not in ADAPTERS:
            raise UserError(
                f"a run of method {self.config.method.kind!r} has no adapter whose weight could be changed.",
                where=where,
                fix="Compare its checkpoints with the base: --x checkpoint.",
            )

    def effective(self, settings: Settings) -> Settings:
        """The base has no adapter, and an adapter of weight 0 is the base, but for a word that was learned with it."""
        no_adapter = settings.weight == 0 and self.config.method.kind != "pivotal"
        if settings.checkpoint is None or no_adapter:
            return dataclasses.replace(settings, checkpoint=None, weight=0.0)
        return settings

    def notes(self, wanted: Sequence[Settings]) -> list[str]:
        """Returns what a new word means where the weights are not the run's own."""
        method = self.config.method
        if method.kind not in ("pivotal", "textual_inversion"):
            return []
        told = []
        if any(one.checkpoint is None and method.token in one.prompt for one in wanted):
            told.append(f"the base model reads {method.token!r} as {method.initialise!r}, from which the word began")
        if any(one.checkpoint is not None and one.weight != 1 for one in wanted):
            told.append(f"the weight is that of the LoRA alone: {method.token!r} keeps its learned vectors")
        return told

    def open(self, wanted: Sequence[Settings], precision: Precision, progress: Progress) -> OpenedRun:
        """Loads the base model, holds it against that of the checkpoints, and puts the method on it."""
        from limner.training.checkpoint import refuse_other_base

        model: Any = self.config.model.load()
        for notice in model.notices:
            progress.warn(notice)
        steps = dict.fromkeys(one.checkpoint for one in wanted if one.checkpoint is not None)
        identity = {f"base.{key}": value for key, value in model.identity().items()}
        for step in steps:
            refuse_other_base(self.run.checkpoint(step), identity)
        method = self.config.method
        whole = method.float32_parts(model)
        model.to(precision.device, precision.dtype, float32=whole)
        trainable = method.apply(model, seed=self.config.seed)
        if whole:  # they trained in float32; an export is drawn with them rounded
            model.to(precision.device, precision.dtype)
        files = {step: _file_for(trainable, self.run.checkpoint(step)) for step in steps}
        return OpenedRun(model, self.run.path.resolve().name, trainable, files)


def _file_for(trainable: Trainable, folder: Path) -> Path:
    """Returns the file of a checkpoint's weights, or raises UserError where it is damaged or of something else."""
    from limner.training.checkpoint import tuned_file

    file = tuned_file(folder)
    shapes = {name: tuple(info.shape) for name, info in read_safetensors_header(file).tensors.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in trainable.params.items()}:
        raise UserError(
            "does not hold what the run's config.yaml trains.", where=str(folder), fix="Bring the old config.yaml back."
        )
    return file


@dataclass
class OpenedRun:
    """A run's model, and which checkpoint is in it."""

    model: SD1Model
    name: str
    trainable: Trainable
    files: Mapping[int, Path]
    """The weights of each checkpoint that is drawn."""
    checkpoint: int | None = None

    def use(self, checkpoint: int | None, weight: float) -> InPlace:
        """Puts a checkpoint in place, its running average where there is one. The base comes before any checkpoint."""
        for layer in _adapters_of(self.model):
            layer.enable_adapters(checkpoint is not None and weight != 0)
            layer.set_scale(ADAPTER_NAME, weight)
        if checkpoint is None:
            if self.checkpoint is not None:
                raise RuntimeError("the base is gone: a checkpoint has taken its place")
            return InPlace()
        file = self.files[checkpoint]
        if checkpoint != self.checkpoint:
            self._load(file)
            self.checkpoint = checkpoint
        return self._in_place(f"{self.name}-{file.parent.name}", file, weight)

    def _load(self, file: Path) -> None:
        from safetensors.torch import load_file

        weights = load_file(file)
        for name, parameter in self.trainable.params.items():
            parameter.data.copy_(weights[name])

    def _in_place(self, name: str, file: Path, weight: float) -> InPlace:
        word = self.trainable.placeholder
        adapter = self.trainable.kind in ADAPTERS
        adapters = (LoadedAdapter(name, weight, (file,), {}, hash_tensors(file), {}),) if adapter else ()
        if word is None:
            return InPlace(adapters, model=None if adapter else name)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return InPlace(adapters, (LoadedEmbedding(word.token, len(word.vectors), file, digest),))


def _adapters_of(model: SD1Model) -> list[BaseTunerLayer]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = [module for network in model.networks.values() for module in network.modules()]
    return [module for module in modules if isinstance(module, BaseTunerLayer)]


def read_run(path: Path) -> RunTarget:
    """Returns a run folder as a target; raises UserError where it draws no pictures."""
    run = RunDir(path)
    config = load_config(run.config)
    refuse_other_runs(config, run)
    kept = tuple(step for step in run.checkpoint_steps() if step > 0)
    if not kept:
        raise UserError("has no checkpoint of a step that was taken.", where=str(path), fix="Let it train first.")
    return RunTarget(run, config, kept)

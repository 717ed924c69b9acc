"""The weights of a grid's pictures: a run's base and checkpoints, or a model with adapters, switched in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.drawing import load_model
from limner.grid.axes import Settings
from limner.models.adapters import AdapterRef, LoadedAdapter, adapter_files, parse_adapter, set_weights
from limner.models.embedding_files import LoadedEmbedding

if TYPE_CHECKING:
    from limner.models.sd1 import SD1Model
    from limner.training.precision import Precision


@dataclass(frozen=True)
class InPlace:
    """What is on the model now, for the recipes of its pictures."""

    adapters: tuple[LoadedAdapter, ...] = ()
    embeddings: tuple[LoadedEmbedding, ...] = ()
    model: str | None = None
    """The name of weights that took the place of the model's own."""


class Opened(Protocol):
    """A model, and what puts weights on it."""

    @property
    def model(self) -> SD1Model:
        """The model with the weights that are in place."""

    def use(self, checkpoint: int | None, weight: float) -> InPlace:
        """Puts a checkpoint and a weight of the adapter in place."""


class Target(Protocol):
    """What a grid is drawn of, as far as it is known without its weights."""

    @property
    def kept(self) -> Sequence[int] | None:
        """The steps of a run's checkpoints; None where this is no run."""

    def refuse_weight(self, where: str) -> None:
        """Raises UserError where no adapter is there whose weight could be chosen."""

    def effective(self, settings: Settings) -> Settings:
        """Returns the settings that stand for all that draw the same picture as these."""

    def notes(self, wanted: Sequence[Settings]) -> list[str]:
        """Returns what must be known to read the pictures, a sentence each."""

    def open(self, wanted: Sequence[Settings], precision: Precision, progress: Progress) -> Opened:
        """Loads the model that draws ``wanted``."""


@dataclass(frozen=True)
class ModelTarget:
    """A model, and adapters on it; the weight along a side is that of the one which was given without."""

    name: str
    adapters: tuple[AdapterRef, ...]
    weighed: int | None
    """Place of the adapter without a weight of its own; None where there is none, or more than one."""
    kept: None = None

    def refuse_weight(self, where: str) -> None:
        """Refuses where it is not plain which adapter is meant."""
        if self.weighed is None:
            told = "there is no adapter" if not self.adapters else "it is not plain of which adapter"
            raise UserError(
                f"{told} the weight is changed.",
                where=where,
                fix="Give one --adapter PATH without a weight; others as PATH:WEIGHT.",
            )

    def effective(self, settings: Settings) -> Settings:
        """Returns them as they are: each is put on the model and drawn."""
        return settings

    def notes(self, wanted: Sequence[Settings]) -> list[str]:
        """Returns nothing; what the files tell is told when they are read."""
        return []

    def open(self, wanted: Sequence[Settings], precision: Precision, progress: Progress) -> OpenedModel:
        """Loads the model with its adapters, and the words that were trained with them."""
        from limner.models.adapters import load_adapters
        from limner.models.embedding_files import companions, load_embeddings
        from limner.models.text_encoder import missing_encoders

        model = load_model(self.name, where="TARGET")
        for sentence in (*model.notices, *missing_encoders(self.adapters, model.text_encoder)):
            progress.warn(sentence)
        model.to(precision.device, precision.dtype)
        adapters = load_adapters(model.networks, self.adapters)
        words, sentences = companions(adapters, [])
        for sentence in sentences:
            progress.warn(sentence)
        return OpenedModel(model, adapters, self.weighed, load_embeddings(model.tokenizer, model.text_encoder, words))


@dataclass(frozen=True)
class OpenedModel:
    """A model with adapters on it."""

    model: SD1Model
    adapters: tuple[LoadedAdapter, ...]
    weighed: int | None
    words: tuple[LoadedEmbedding, ...]

    def use(self, checkpoint: int | None, weight: float) -> InPlace:
        """Gives the adapter its weight; there are no checkpoints."""
        if self.weighed is None:
            return InPlace(self.adapters, self.words)
        weights = [one.weight for one in self.adapters]
        weights[self.weighed] = weight
        return InPlace(set_weights(self.model.networks, self.adapters, weights), self.words)


def read_adapters(name: str, texts: Sequence[str]) -> ModelTarget:
    """Returns a model with adapters as a target, each ``PATH`` or ``PATH:WEIGHT``; their files must be there."""
    refs = [parse_adapter(text) for text in texts]
    for ref in refs:
        adapter_files(ref.path)
    free = [at for at, (ref, text) in enumerate(zip(refs, texts, strict=True)) if str(ref.path) == str(Path(text))]
    return ModelTarget(name, tuple(refs), free[0] if len(free) == 1 else None)

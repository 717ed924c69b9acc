"""Linear probe: logistic regression on frozen picture features (arXiv:2103.00020, section 3.2 and appendix A.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data import DatasetConfig
from limner.evaluation.classes import by_class
from limner.evaluation.features import OnProgress, pool_pictures, silent
from limner.evaluation.measurement import Measurement, content_hash, share
from limner.evaluation.pictures import ShownSet, check_name, labels_of, metric_name, read_shown
from limner.evaluation.ranking import nearest_other, ranks
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from torch import Tensor

MOST_ITERATIONS = 1000
FLAT = 1e-4
"""The largest slope at which the fit counts as done."""


class LinearProbe(Config):
    """The accuracy of a linear classifier on the picture tower's features, before their projection."""

    kind: Literal["linear_probe"] = "linear_probe"
    dataset: DatasetConfig
    """The pictures that are measured, with their classes."""
    train: DatasetConfig
    """The pictures that the classifier is fitted to, with their classes; none that is measured."""
    name: str | None = None
    """What the metric is called in tables and files. Unset: its kind and that of its data set."""
    guard: bool = False
    """A set that is not trained on, so that forgetting shows; refused if one of its pictures is trained on."""
    l2: tuple[float, ...] = Field(default=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8), min_length=1)
    """Strengths of the regularisation to choose from, by a fifth of the pictures in train that is held out. Features
    are divided by their mean norm, so that the same strengths suit every model."""
    seed: int = Field(default=0, ge=0)
    """Decides which fifth that is."""

    models: ClassVar[tuple[str, ...]] = ("clip",)

    _check_name = field_validator("name")(check_name)

    @field_validator("l2")
    @classmethod
    def _positive(cls, l2: tuple[float, ...]) -> tuple[float, ...]:
        if min(l2) <= 0:
            raise ValueError(f"{min(l2):g} is not above 0; without regularisation the fit has no end.")
        return tuple(sorted(set(l2), reverse=True))

    @property
    def title(self) -> str:
        return metric_name(self.kind, self.dataset, self.name)

    def survey(self) -> ShownSet:
        """Returns the pictures that are measured; raises UserError where they do not go with those of ``train``."""
        return self._both()[1]

    def measure(self, model: DualEncoder, *, on_progress: OnProgress = silent) -> Measurement:
        """Returns the accuracy. A class that is exactly as likely as the right one counts as likelier."""
        train, test = self._both()
        known, asked = labels_of(train, self._where("train")), labels_of(test, self._where())
        classes = sorted(set(known))
        total = len(train.pictures) + len(test.pictures)
        features = pool_pictures(model, train.pictures, lambda done, _: on_progress(done, total))
        norm = features.norm(dim=1).mean()
        held_out = held_out_fifth([picture.sha256 for picture in train.pictures], self.seed)
        true = [classes.index(label) for label in known]
        best, accuracies = _choose(features / norm, true, held_out, len(classes), self.l2)
        weights, slope = fit(features / norm, true, len(classes), best)
        own = [classes.index(label) for label in asked]
        done = len(train.pictures)
        tested = pool_pictures(model, test.pictures, lambda more, _: on_progress(done + more, total)) / norm
        rank = ranks(_with_one(tested), weights, [[one] for one in own])
        others = nearest_other(_with_one(tested), weights, own)
        predicted = [one if r == 1 else other for r, one, other in zip(rank, own, others, strict=True)]
        chosen = {"l2": best, "held_out_accuracy": {f"{l2:g}": value for l2, value in accuracies.items()}}
        return Measurement(
            metric=self.title,
            kind=self.kind,
            guard=self.guard,
            of=f"{test.layout}, {len(classes)} classes, fitted to {train.layout}, {len(train.pictures):,} pictures",
            content=test.content,
            ids=tuple(one.id for one in test.pictures),
            numbers=(share("accuracy", [float(one == 1) for one in rank]),),
            details=chosen | by_class(classes, own, predicted),
            notes=(*test.notes, *_notes_of_fit(best, self.l2, slope)),
        )

    def _where(self, part: str = "") -> str:
        return f"metric {self.title!r}, {part}" if part else f"metric {self.title!r}"

    def _both(self) -> tuple[ShownSet, ShownSet]:
        train, test = read_shown(self.train, self._where("train")), read_shown(self.dataset, self._where())
        known = {picture.sha256 for picture in train.pictures}
        shared = [picture.id for picture in test.pictures if picture.sha256 in known]
        if shared:
            raise UserError(
                f"{len(shared):,} pictures of dataset are in train too, such as {shared[0]}: that measures memory.",
                where=self._where(),
                fix="Name pictures for train that are not measured.",
            )
        absent = sorted(set(labels_of(test, self._where())) - set(labels_of(train, self._where("train"))))
        if absent:
            raise UserError(
                f"has no picture of the class {absent[0]!r}.", where=self._where("train"), fix="Add some of each class."
            )
        if len(train.pictures) < 5:
            raise UserError(
                f"{len(train.pictures)} pictures are too few to hold a fifth out.",
                where=self._where("train"),
                fix="Add more.",
            )
        known_of = [[(one.id, one.sha256, one.label) for one in part.pictures] for part in (train, test)]
        return train, replace(test, content=content_hash(*known_of))


def held_out_fifth(sha256s: Sequence[str], seed: int) -> list[bool]:
    """Returns which pictures are held out: chosen by their bytes and the seed, whatever their names and order."""
    line = [hashlib.blake2b(f"{seed}:probe:{one}".encode(), digest_size=16).digest() for one in sha256s]
    last = sorted(line)[len(line) // 5 - 1]
    return [one <= last for one in line]


def _choose(
    features: Tensor, labels: Sequence[int], held_out: Sequence[bool], classes: int, strengths: Sequence[float]
) -> tuple[float, dict[float, float]]:
    """Returns the strength that is right most often on the held-out part, the strongest of equals, and all shares."""
    import torch

    out = torch.tensor(held_out)
    true = torch.tensor(labels)
    accuracies, start = {}, None
    for strength in strengths:
        start, _ = fit(features[~out], true[~out].tolist(), classes, strength, start=start)
        guesses = (_with_one(features[out]) @ start.T).argmax(dim=1)
        accuracies[strength] = float((guesses == true[out]).float().mean())
    return max(strengths, key=lambda strength: (accuracies[strength], strength)), accuracies


def fit(
    features: Tensor, labels: Sequence[int], classes: int, l2: float, *, start: Tensor | None = None
) -> tuple[Tensor, float]:
    """Returns the weights [classes, D + 1] that minimise mean cross-entropy + l2/2 |W|^2, and the slope left there.

    The last column is the bias, which is not regularised. Found by L-BFGS in float64 from ``start``, or from zeros; the
    result is float32.
    """
    import torch
    from torch.nn import functional

    inputs, true = _with_one(features).double(), torch.tensor(labels)
    weights = torch.zeros(classes, inputs.shape[1], dtype=torch.float64) if start is None else start.double().clone()
    weights.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [weights],
        max_iter=MOST_ITERATIONS,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(inputs @ weights.T, true) + l2 / 2 * weights[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    loss()
    assert weights.grad is not None
    return weights.detach().float(), float(weights.grad.abs().max())


def _with_one(features: Tensor) -> Tensor:
    import torch

    return torch.cat([features, torch.ones(len(features), 1)], dim=1)


def _notes_of_fit(best: float, strengths: Sequence[float], slope: float) -> list[str]:
    notes = []
    if len(strengths) > 1 and best in (strengths[0], strengths[-1]):
        notes.append(f"the best of l2, {best:g}, is at the end of the list: a better one may lie beyond.")
    if slope > FLAT:
        notes.append(f"the fit was not done after {MOST_ITERATIONS} iterations: its slope is {slope:.1e}.")
    return notes

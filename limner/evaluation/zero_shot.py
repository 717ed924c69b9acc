"""Zero-shot accuracy: which of the class names' prompts is nearest to a picture (arXiv:2103.00020, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data import DatasetConfig
from limner.data.prompts import article, check_template, fill
from limner.evaluation.classes import by_class
from limner.evaluation.features import OnProgress, cut_captions, embed_captions, embed_pictures, silent
from limner.evaluation.measurement import Measurement, content_hash, share
from limner.evaluation.pictures import ShownSet, check_name, labels_of, metric_name, read_shown
from limner.evaluation.ranking import nearest_other, ranks
from limner.models.protocol import DualEncoder

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATE = "a photo of {article} {label}"


class ZeroShot(Config):
    """The share of pictures whose class is found by its name alone; with several templates, by their mean."""

    kind: Literal["zero_shot"] = "zero_shot"
    dataset: DatasetConfig
    """The pictures with their classes: cifar10, or a folder with one folder of pictures for each class."""
    name: str | None = None
    """What the metric is called in tables and files. Unset: its kind and that of its data set."""
    guard: bool = False
    """A set that is not trained on, so that forgetting shows; refused if one of its pictures is trained on."""
    templates: tuple[str, ...] = ()
    """Prompts, with {label} for the class and {article} for its a or an. Unset: those of the data set where it has
    templates, else a photo of {article} {label}."""
    class_names: dict[str, str] = Field(default={})
    """What a class is called in prompts where that is not its label, as {n02123045: tabby cat}. Others: their label,
    with blanks for underscores."""

    models: ClassVar[tuple[str, ...]] = ("clip",)

    _check_name = field_validator("name")(check_name)

    @field_validator("templates")
    @classmethod
    def _templates_name_the_label(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            check_template(template, allowed={"label", "article"}, required={"label"}, name="template")
        return templates

    @property
    def title(self) -> str:
        return metric_name(self.kind, self.dataset, self.name)

    def survey(self) -> ShownSet:
        """Returns the pictures; raises UserError where they have no classes, or two classes have one name."""
        shown = read_shown(self.dataset, f"metric {self.title!r}")
        known = [(one.id, one.sha256, one.label) for one in shown.pictures]
        return replace(shown, content=content_hash(known, self._prompts(self._classes(shown))))

    def measure(self, model: DualEncoder, *, on_progress: OnProgress = silent) -> Measurement:
        """Returns the top-1 accuracy, and the top-5 where there are more than five classes.

        A class that is exactly as near as the right one counts as nearer: ties are never won.
        """
        shown = self.survey()
        classes = self._classes(shown)
        prompts = self._prompts(classes)
        labels = [classes.index(label) for label in labels_of(shown, f"metric {self.title!r}")]
        embedded = embed_pictures(model, shown.pictures, on_progress)
        centres = ensemble(model, prompts)
        rank = ranks(embedded, centres, [[label] for label in labels])
        others = nearest_other(embedded, centres, labels)
        predicted = [label if r == 1 else other for r, label, other in zip(rank, labels, others, strict=True)]
        numbers = [share("top-1 accuracy", [float(one == 1) for one in rank])]
        if len(classes) > 5:
            numbers.append(share("top-5 accuracy", [float(one <= 5) for one in rank]))
        details: dict[str, Any] = {"prompts": dict(zip(classes, prompts, strict=True))}
        return Measurement(
            metric=self.title,
            kind=self.kind,
            guard=self.guard,
            of=f"{shown.layout}, {len(classes)} classes",
            content=shown.content,
            ids=tuple(one.id for one in shown.pictures),
            numbers=tuple(numbers),
            details=details | by_class(classes, labels, predicted),
            raw={"ranks": rank},
            notes=(*shown.notes, *cut_captions(model, [prompt for several in prompts for prompt in several])),
        )

    def _classes(self, shown: ShownSet) -> list[str]:
        classes = sorted(set(labels_of(shown, f"metric {self.title!r}")))
        unknown = sorted(self.class_names.keys() - set(classes))
        if unknown:
            raise UserError(
                f"there is no class {unknown[0]!r}; there are {', '.join(classes[:10])}.",
                where=f"metric {self.title!r}, class_names",
                fix="Name classes by their labels.",
            )
        return classes

    def _class_words(self, classes: Sequence[str]) -> list[str]:
        words = [self.class_names.get(label, label.replace("_", " ")) for label in classes]
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise UserError(
                f"two classes are called {twice[0]!r}, so no prompt tells them apart.",
                where=f"metric {self.title!r}",
                fix="Give them names of their own in class_names.",
            )
        return words

    def _prompts(self, classes: Sequence[str]) -> list[list[str]]:
        of_dataset = self.dataset.templates if self.dataset.kind == "cifar10" else (TEMPLATE,)
        return [
            [fill(template, {"label": word, "article": article(word)}) for template in self.templates or of_dataset]
            for word in self._class_words(classes)
        ]


def ensemble(model: DualEncoder, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Returns [classes, D]: the mean of the unit embeddings of each class's prompts, brought to unit norm again."""
    import torch
    from torch.nn import functional

    flat = embed_captions(model, [prompt for several in prompts for prompt in several])
    parts = flat.split([len(several) for several in prompts])
    return functional.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)

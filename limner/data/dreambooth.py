"""DreamBooth's data (arXiv:2208.12242): a few pictures of one subject, and pictures of its class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.example import Example, FileImage, Reading
from limner.data.listing import Listing, list_images
from limner.data.prompts import article, check_template, fill
from limner.data.sidecars import find_sidecars, refuse_unused_captions
from limner.data.text import counted, first_few, one_line

_INSTANCE_PROMPT = "a photo of {token} {class_noun}"
_CLASS_PROMPT = "a photo of {article} {class_noun}"


class DreamBooth(Config):
    """A few pictures of one subject, called by a rare word, and optionally pictures of its class."""

    kind: Literal["dreambooth"] = "dreambooth"
    path: Path
    """The folder with the pictures of the subject (instance pictures), 3 to 30 of them."""
    token: str = "sks"
    """A rare word that shall mean the subject."""
    class_noun: str
    """What the subject is, in plain words: dog, backpack, stuffed animal."""
    instance_prompt: str = _INSTANCE_PROMPT
    """The caption of the subject's pictures, with {token} and {class_noun}."""
    class_path: Path | None = None
    """A folder with pictures of other members of the class; they keep the model from forgetting it."""
    class_prompt: str = _CLASS_PROMPT
    """The caption of the class pictures, with {class_noun} and {article} for its a or an."""
    prior_weight: float = Field(default=1.0, gt=0)
    """Factor of the class pictures' loss (lambda in the paper's equation 2); the subject's is 1."""
    ignore_sidecars: bool = False
    """Go on although captions lie beside the pictures; the prompts above are used instead."""

    @model_validator(mode="after")
    def _prompts_name_what_they_should(self) -> DreamBooth:
        for name, word in (("token", self.token), ("class_noun", self.class_noun)):
            if not word.strip():
                raise ValueError(f"{name} is empty.")
        check_template(
            self.instance_prompt, allowed={"token", "class_noun", "article"}, required={"token"}, name="instance_prompt"
        )
        check_template(self.class_prompt, allowed={"class_noun", "article"}, required=set(), name="class_prompt")
        if self.class_path is None:
            for name, value, default in (
                ("class_prompt", self.class_prompt, _CLASS_PROMPT),
                ("prior_weight", self.prior_weight, 1.0),
            ):
                if value != default:
                    raise ValueError(f"{name} does nothing without class_path. Set class_path, or leave it out.")
        elif self.token.casefold() in fill(self.class_prompt, self._words()).casefold().split():
            raise ValueError(f"class_prompt has the token {self.token!r}, which shall mean the subject alone.")
        return self

    def read(self) -> Reading:
        """Returns the pictures; the fewer ones repeat, so that an epoch visits both groups about equally often."""
        instances = self._list(self.path, "dataset.path")
        if self.class_path is None:
            rows = [replace(row, id=f"instance/{row.id}") for row in instances.rows()]
            examples = self._examples(instances, "instance", 1)
            return Reading("DreamBooth, no class pictures", examples, tuple(rows), instances.notes())
        classes = self._list(self.class_path, "dataset.class_path")
        self._refuse_overlap(instances.root, classes.root)
        few, many = len(instances.images), len(classes.images)
        repeats = max(1, round(many / few)), max(1, round(few / many))
        examples = self._examples(instances, "instance", repeats[0]) + self._examples(classes, "class", repeats[1])
        rows = [replace(row, id=f"instance/{row.id}") for row in instances.rows()]
        rows += [replace(row, id=f"class/{row.id}") for row in classes.rows()]
        visits = (
            f"An epoch visits each of {counted(few, 'instance picture')} {counted(repeats[0], 'time')} and each of "
            f"{counted(many, 'class picture')} {counted(repeats[1], 'time')}."
        )
        notes = (*instances.notes(), *classes.notes(), visits)
        return Reading("DreamBooth, with class pictures", examples, tuple(rows), notes)

    def _examples(self, listing: Listing, role: Literal["instance", "class"], repeats: int) -> tuple[Example, ...]:
        template, weight = (self.instance_prompt, 1.0) if role == "instance" else (self.class_prompt, self.prior_weight)
        captions = (one_line(fill(template, self._words())),)
        return tuple(
            Example(f"{role}/{id}", FileImage(path), captions, weight=weight, repeats=repeats, role=role)
            for id, path in listing.images.items()
        )

    def _words(self) -> dict[str, str]:
        return {"token": self.token, "class_noun": self.class_noun, "article": article(self.class_noun)}

    def _list(self, path: Path, where: str) -> Listing:
        listing = list_images(path, where=where)
        folders = sorted({id.rpartition("/")[0] for id in listing.images})
        if where == "dataset.path" and len(folders) > 1:
            raise UserError(
                f"{str(path)!r} has pictures in {len(folders)} folders: {first_few([f or '.' for f in folders])}.",
                where=where,
                fix="DreamBooth learns one subject; name the folder that holds its pictures.",
            )
        if not self.ignore_sidecars:
            refuse_unused_captions(
                listing,
                find_sidecars(listing),
                where=where,
                instead="dreambooth makes its captions from instance_prompt and class_prompt",
                fix="Use kind: folder to train on them, or set dataset.ignore_sidecars: true.",
            )
        return listing

    def _refuse_overlap(self, instances: Path, classes: Path) -> None:
        if instances.is_relative_to(classes) or classes.is_relative_to(instances):
            relation = "the same folder" if instances == classes else "one inside the other"
            raise UserError(
                f"{str(self.class_path)!r} and dataset.path {str(self.path)!r} are {relation}.",
                where="dataset.class_path",
                fix="Keep the pictures of the subject and those of its class in two folders.",
            )

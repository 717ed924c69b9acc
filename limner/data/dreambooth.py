"""DreamBooth's data (arXiv:2208.12242): a few pictures of one subject, and pictures of its class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.data.class_pictures import ClassDrawing, ClassFolder
from limner.data.example import Example, FileImage, Reading
from limner.data.listing import Listing, list_folder, list_images
from limner.data.prompts import article, check_template, fill, has_word
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
    class_pictures: int | None = Field(default=None, ge=1)
    """How many class pictures there shall be, often 200: the base model draws those that lack into class_path, once.

    Your own pictures there count and are all used. Unset: whatever lies in class_path is used."""
    class_drawing: ClassDrawing = ClassDrawing()
    """How the base model draws them."""
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
        if has_word(self.class_noun, self.token):
            raise ValueError(f"token {self.token!r} is a word of class_noun; it shall mean the subject alone.")
        if self.class_pictures is None and self.class_drawing != ClassDrawing():
            raise ValueError("class_drawing does nothing without class_pictures. Set class_pictures, or leave it out.")
        if self.class_path is None:
            for name, value, default in (
                ("class_pictures", self.class_pictures, None),
                ("class_prompt", self.class_prompt, _CLASS_PROMPT),
                ("prior_weight", self.prior_weight, 1.0),
            ):
                if value != default:
                    raise ValueError(f"{name} does nothing without class_path. Set class_path, or leave it out.")
        elif has_word(self.class_caption, self.token):
            raise ValueError(f"class_prompt has the token {self.token!r}, which shall mean the subject alone.")
        return self

    def read(self) -> Reading:
        """Returns the pictures; the fewer ones repeat, so that an epoch visits both groups about equally often."""
        instances = self._list_subject()
        if self.class_path is None:
            rows = [replace(row, id=f"instance/{row.id}") for row in instances.rows()]
            examples = self._examples(instances, "instance", 1)
            return Reading("DreamBooth, no class pictures", examples, tuple(rows), instances.notes())
        self._refuse_overlap(instances.root, self.class_path.expanduser().resolve())
        folder = self.class_folder()
        classes = self._checked(folder.used(), "dataset.class_path")
        few, many = len(instances.images), len(classes.images) + len(folder.missing)
        repeats = max(1, round(many / few)), max(1, round(few / many))
        examples = self._examples(instances, "instance", repeats[0]) + self._examples(classes, "class", repeats[1])
        rows = [replace(row, id=f"instance/{row.id}") for row in instances.rows()]
        rows += [replace(row, id=f"class/{row.id}") for row in classes.rows()]
        visits = (
            f"An epoch visits each of {counted(few, 'instance picture')} {counted(repeats[0], 'time')} and each of "
            f"{counted(many, 'class picture')} {counted(repeats[1], 'time')}."
        )
        notes = [*instances.notes(), *classes.notes(), visits]
        if folder.missing:
            notes.append(
                f"{counted(len(folder.missing), 'class picture')} of {many:,} will be drawn by the base model into "
                f"{self.class_path} before training."
            )
        awaited = len(folder.missing) * repeats[1]
        return Reading("DreamBooth, with class pictures", examples, tuple(rows), tuple(notes), awaited)

    @property
    def instance_caption(self) -> str:
        """The caption of the subject's pictures."""
        return one_line(fill(self.instance_prompt, self._words()))

    @property
    def class_caption(self) -> str:
        """The caption of class pictures; they are drawn from it too."""
        return one_line(fill(self.class_prompt, self._words()))

    def class_folder(self) -> ClassFolder:
        """Returns what is in the class folder, and what is missing; the folder need not be there if it will be made."""
        assert self.class_path is not None
        where = "dataset.class_path"
        if self.class_pictures is None:
            return ClassFolder(list_images(self.class_path, where=where), None)
        place = self.class_path.expanduser()
        if not (place.exists() or place.is_symlink()):
            return ClassFolder(Listing(place.resolve(), str(self.class_path), {}, {}, ()), self.class_pictures)
        return ClassFolder(list_folder(self.class_path, where=where), self.class_pictures)

    def _examples(self, listing: Listing, role: Literal["instance", "class"], repeats: int) -> tuple[Example, ...]:
        caption, weight = (
            (self.instance_caption, 1.0) if role == "instance" else (self.class_caption, self.prior_weight)
        )
        captions = (caption,)
        return tuple(
            Example(f"{role}/{id}", FileImage(path), captions, weight=weight, repeats=repeats, role=role)
            for id, path in listing.images.items()
        )

    def _words(self) -> dict[str, str]:
        return {"token": self.token, "class_noun": self.class_noun, "article": article(self.class_noun)}

    def _list_subject(self) -> Listing:
        path, where = self.path, "dataset.path"
        listing = self._checked(list_images(path, where=where), where)
        folders = sorted({id.rpartition("/")[0] for id in listing.images})
        if len(folders) > 1:
            raise UserError(
                f"{str(path)!r} has pictures in {len(folders)} folders: {first_few([f or '.' for f in folders])}.",
                where=where,
                fix="DreamBooth learns one subject; name the folder that holds its pictures.",
            )
        return listing

    def _checked(self, listing: Listing, where: str) -> Listing:
        """Returns the listing; raises UserError where captions lie in it that would not be used."""
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

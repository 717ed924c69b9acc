"""Textual inversion (arXiv:2208.01618): a new word whose vectors train, and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from limner.core.config import Config
from limner.methods.trainable import Placeholder, Trainable
from limner.models.protocol import DiffusionModel

MOST_VECTORS = 32


def _one_word(token: str) -> str:
    if not token or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise ValueError(f"{token!r} is no word: spaces cut it, and it must not be empty. For instance '<my-dog>'.")
    if token.rpartition("_")[2].isdecimal() and "_" in token:
        raise ValueError(f"{token!r} ends as diffusers names the further vectors of a word; leave the number out.")
    return token


Token = Annotated[str, AfterValidator(_one_word)]
"""A placeholder as it stands in captions. Whether it is new only the model's tokenizer knows."""


class TextualInversion(Config):
    """A new word is learned: its vectors train, every weight of the model stays. They have no weight decay."""

    kind: Literal["textual_inversion"] = "textual_inversion"
    token: Token
    """The new word, as it stands in the captions: ``<my-dog>``. In lower case, and no word that the model knows."""
    vectors: int = Field(default=1, ge=1, le=MOST_VECTORS)
    """Vectors of the word. More hold more detail and take more of a prompt's room: each counts as a token."""
    initialise: str = Field(min_length=1)
    """A word for what it is, such as dog: the vectors begin as its own. One token, or as many as there are vectors."""

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision: none, the vectors have their own format."""
        return ()

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Adds the word, its vectors in float32. ``seed`` is not needed: they begin as those of another word."""
        params = model.add_placeholder(self.token, self.vectors, self.initialise)
        return Trainable(kind="textual_inversion", params=params, placeholder=Placeholder(self.token, tuple(params)))

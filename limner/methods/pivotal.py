"""Pivotal tuning (after arXiv:2106.05744): a new word and a LoRA learn together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.methods.lora import Lora
from limner.methods.textual_inversion import MOST_VECTORS, TextualInversion, Token
from limner.methods.trainable import PLACEHOLDER, Trainable
from limner.models.protocol import DiffusionModel

if TYPE_CHECKING:
    from torch import nn


class Pivotal(Config):
    """A new word and a LoRA train together. The LoRA is of no use without the word: both are exported."""

    kind: Literal["pivotal"] = "pivotal"
    token: Token
    """The new word, as it stands in the captions: ``<my-dog>``. In lower case, and no word that the model knows."""
    vectors: int = Field(default=1, ge=1, le=MOST_VECTORS)
    """Vectors of the word. More hold more detail and take more of a prompt's room: each counts as a token."""
    initialise: str = Field(min_length=1)
    """A word for what it is, such as dog: the vectors begin as its own. One token, or as many as there are vectors."""
    lora: Lora = Lora()
    """The LoRA, with the keys of method kind lora."""
    token_lr_scale: float = Field(default=5.0, gt=0)
    """Learning rate of the word's vectors as a multiple of optimizer.lr: 5 times a LoRA's 1e-4 is 5e-4."""

    @property
    def word(self) -> TextualInversion:
        """The half that is textual inversion."""
        return TextualInversion(token=self.token, vectors=self.vectors, initialise=self.initialise)

    def float32_parts(self, model: DiffusionModel) -> tuple[str, ...]:
        """Returns the networks that must not be put into half precision."""
        return (*self.lora.float32_parts(model), *self.word.float32_parts(model))

    def check_targets(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises UserError for a target of the LoRA that matches no layer."""
        try:
            self.lora.check_targets(networks)
        except UserError as error:
            where = error.where.replace("method.", "method.lora.", 1)
            raise UserError(error.what, where=where, fix=error.fix) from None

    def apply(self, model: DiffusionModel, *, seed: int) -> Trainable:
        """Adds the adapters, then the word: adapters freeze the network that they are put on."""
        adapters = self.lora.apply(model, seed=seed)
        word = self.word.apply(model, seed=seed)
        return Trainable(
            kind="pivotal",
            params={**adapters.params, **word.params},
            lr_scales={**adapters.lr_scales, PLACEHOLDER: self.token_lr_scale},
            waits=adapters.waits,
            placeholder=word.placeholder,
        )

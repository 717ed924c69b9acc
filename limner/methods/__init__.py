"""What trains: each method is one config class with one verb, ``apply(model) -> Trainable``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limner.methods.autoencoder import Autoencoder
from limner.methods.full import Full
from limner.methods.heads import Heads
from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.methods.pivotal import Pivotal
from limner.methods.textual_inversion import TextualInversion
from limner.methods.towers import Towers

MethodConfig = Annotated[
    Lora | Loha | Lokr | Full | TextualInversion | Pivotal | Autoencoder | Towers | Heads, Field(discriminator="kind")
]

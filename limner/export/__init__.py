"""What leaves the program: each format is a config class with one verb, ``write(...)``: write, read back, compare."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from limner.export.diffusers import Diffusers
from limner.export.peft import Peft

ExportConfig = Annotated[Diffusers | Peft, Field(discriminator="kind")]


def default_exports(method: Literal["lora", "full"]) -> tuple[Diffusers | Peft, ...]:
    """Returns every format that can hold what the method trains."""
    formats: tuple[Diffusers | Peft, ...] = (Diffusers(), Peft())
    return tuple(export for export in formats if method in export.methods)

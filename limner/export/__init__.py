"""What leaves the program: each format is a config class with one verb, ``write(...)``: write, read back, compare."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limner.export.clip_text_encoder import ClipTextEncoder
from limner.export.diffusers import Diffusers
from limner.export.embedding import Embedding
from limner.export.kohya import Kohya
from limner.export.open_clip import OpenClip
from limner.export.peft import Peft
from limner.export.transformers import Transformers

Export = Diffusers | Peft | Kohya | Transformers | OpenClip | ClipTextEncoder | Embedding

ExportConfig = Annotated[Export, Field(discriminator="kind")]


def default_exports(model: str, method: str, *, dora: bool = False) -> tuple[Export, ...]:
    """Returns every format that can hold what a method trains of a kind of model, but for open_clip's, on request."""
    formats: tuple[Export, ...] = (Diffusers(), Peft(), Kohya(), Transformers(), ClipTextEncoder(), Embedding())
    fitting = (export for export in formats if method in export.methods and model in export.models)
    return tuple(export for export in fitting if not (dora and export.kind == "kohya"))

"""Pictures and captions: each layout on the disk is one config class with one verb, ``read() -> Reading``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limner.data.layouts import Layout
from limner.data.several import Several

DatasetConfig = Annotated[Layout | Several, Field(discriminator="kind")]

"""The layouts: each is one config class with one verb, ``read() -> Reading``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limner.data.auto import AutoDataset
from limner.data.captions_file import CaptionsFile
from limner.data.cifar10 import Cifar10
from limner.data.dreambooth import DreamBooth
from limner.data.flickr import Flickr8k, Flickr30k
from limner.data.folder import Folder
from limner.data.hub import HubDataset
from limner.data.table import Table

Layout = Folder | CaptionsFile | Table | Flickr8k | Flickr30k | Cifar10 | DreamBooth | HubDataset | AutoDataset

LayoutConfig = Annotated[Layout, Field(discriminator="kind")]

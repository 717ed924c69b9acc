"""A tiny Stable Diffusion on the disk and in memory, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from limner.models import SD1
from limner.models.sd1 import SD1Model
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder as diffusers writes it. Do not change it."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> SD1Model:
    """The model of that folder. Do not train or move it."""
    return SD1(path=str(tiny_folder)).load()


@pytest.fixture
def copy_tiny(tiny_folder: Path, tmp_path: Path) -> Callable[[], Path]:
    """Returns a copy of the folder that a test may spoil."""
    return lambda: Path(shutil.copytree(tiny_folder, tmp_path / "model"))

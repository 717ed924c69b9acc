"""A tiny Stable Diffusion, made once; tests that change it load their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture(scope="session")
def load_model(model_folder: Path) -> Callable[[], SD1Model]:
    return SD1(path=str(model_folder)).load


@pytest.fixture(scope="session")
def model(load_model: Callable[[], SD1Model]) -> SD1Model:
    """Do not train or move it."""
    return load_model()

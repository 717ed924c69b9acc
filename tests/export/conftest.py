"""A tiny base model on the disk, and models that were trained from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from limner.methods.full import Full
from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.sd1 import SD1, SD1Model
from tests.tiny import save_tiny

Trained = tuple[SD1Model, Trainable]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "annas-secret-base")


@pytest.fixture(scope="session")
def fresh_base(base_folder: Path) -> Callable[[], SD1Model]:
    return SD1(path=str(base_folder)).load


@pytest.fixture(scope="session")
def train(fresh_base: Callable[[], SD1Model]) -> Callable[[Lora | Loha | Lokr | Full], Trained]:
    """Makes a model that a method has trained: its parameters moved at random, as much as makes a visible change."""

    def trained(method: Lora | Loha | Lokr | Full) -> Trained:
        model = fresh_base()
        trainable = method.apply(model, seed=0)
        generator = torch.Generator().manual_seed(7)
        for name, parameter in trainable.params.items():
            noise = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name:
                parameter.data *= 1 + 0.2 * noise
            else:
                parameter.data += (0.02 if trainable.kind == "full" else 0.3) * noise
        return model, trainable

    return trained

"""A small model without training, measured once."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.builtin.untrained import save_untrained
from limner.judged.measuring import Measured, measure
from tests.judged.scenes import COUNT, JUDGE, SEED


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_untrained(folder)
    return folder


@pytest.fixture(scope="package")
def measured(model: Path) -> Measured:
    return measure(model, judge=JUDGE, count=COUNT, seed=SEED, steps=2, guidance=3.0)

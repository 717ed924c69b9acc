"""Fixtures that several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real photos and captions; the test is skipped where it is absent."""
    root = Path(os.environ.get("LIMNER_DATA", ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"needs real photos: {root} is absent (set LIMNER_DATA)")
    return root

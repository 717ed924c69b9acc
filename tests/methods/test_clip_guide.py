from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from limner.methods import MethodConfig
from limner.models.clip import Clip
from tests.tiny import save_tiny_clip

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "clip.md"


def test_the_methods_that_the_page_shows_train_a_clip_model(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    shown = re.findall(r"^```yaml\n(method:\n.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(shown) == 3
    for text in shown:
        values = yaml.safe_load(text)["method"]
        if values["kind"] == "towers":
            values["image"] = 2  # the tiny tower has two layers
        method = TypeAdapter(MethodConfig).validate_python(values)
        assert method.apply(Clip(path=str(folder)).load(), seed=0).params

"""Names that leave the machine lose their folders; names of files are safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.core.naming import public_name, slug


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("CompVis/stable-diffusion-v1-4", "CompVis/stable-diffusion-v1-4"),
        ("/home/anna/models/sd", "sd"),
        ("./models/sd", "sd"),
        ("~/sd", "sd"),
        ("a/b/c", "c"),
        ("sd", "sd"),
        ("models/sd.safetensors", "sd"),
        ("C:\\anna\\sd.safetensors", "sd"),
    ],
)
def test_a_local_name_loses_its_folders_and_a_hub_id_stays(name: str, public: str) -> None:
    assert public_name(name) == public


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anna" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("anna/model") == "model"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A red Dog, 2 cats!", "a-red-dog-2-cats"), ("../..//x", "x"), ("", ""), ("狗" * 100, "狗" * 20)],
)
def test_a_slug_is_safe_and_short(text: str, expected: str) -> None:
    assert slug(text) == expected

"""Which networks look at the pictures, and what is said where one is not to be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from limner.builtin.world import draw, scene_at
from limner.core.progress import Silent
from limner.evaluation.report import Report
from limner.models.clip import Clip
from limner.report.encoders import JUDGE, load_encoders, world_encoder
from tests.models.test_vision import dinov2
from tests.tiny import save_tiny_clip

CPU = torch.device("cpu")


def picture(seed: int) -> Image.Image:
    pixels = numpy.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def test_both_networks_give_unit_rows_and_clip_reads_prompts(tmp_path: Path) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    dinov2(tmp_path / "vision")
    report = Report(clip=str(clip), vision=str(tmp_path / "vision"))
    (one, other), missing = load_encoders(report, CPU, Silent())
    assert (one.name, other.name, missing) == (report.clip, report.vision, [])
    images = [picture(seed) for seed in range(40)]
    for encoder in (one, other):
        found = encoder.pictures(images)
        assert found.shape[0] == 40
        assert numpy.linalg.norm(found, axis=1) == pytest.approx(1)
        assert found[[33]] == pytest.approx(encoder.pictures([images[33]]), abs=1e-5)
    model = Clip(path=str(clip)).load()
    assert one.prompts(["a dog"])[0] == pytest.approx(model.embed_prompts(["a dog"]).detach().numpy()[0], abs=1e-6)
    with pytest.raises(ValueError, match="reads no words"):
        other.prompts(["a dog"])


def test_nothing_is_downloaded_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import errors

    local: list[bool] = []

    def fake(repo: str, **options: Any) -> str:
        local.append(options["local_files_only"])
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    found, missing = load_encoders(Report(), CPU, Silent())
    assert (found, local) == ([], [True, True])
    assert [what for what, _ in missing] == ["CLIP score, likeness by CLIP, CMMD", "likeness by DINO"]
    assert all("not on this disk; report.download=true" in why for _, why in missing)
    _, missing = load_encoders(Report(download=True), CPU, Silent())
    assert local == [True, True, False, False]
    assert all("could not be reached" in why and "report.download" not in why for _, why in missing)


def test_what_is_switched_off_is_named() -> None:
    found, missing = load_encoders(Report(clip="", vision=""), CPU, Silent())
    assert (found, [why for _, why in missing]) == ([], ["report.clip is empty", "report.vision is empty"])


def test_the_judge_sees_what_pictures_of_the_world_have_in_common() -> None:
    encoder = world_encoder()
    assert encoder.name == JUDGE
    night, meadow = ([draw(scene_at(3, k, styles=(style,))) for k in range(8)] for style in ("pixel", "watercolour"))
    one, other = encoder.pictures(night), encoder.pictures(meadow)
    within = [one[a] @ one[b] for a in range(8) for b in range(a)]
    across = [a @ b for a in one for b in other]
    assert sum(within) / len(within) > sum(across) / len(across) + 0.01

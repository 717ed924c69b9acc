"""What is measured is of the pictures that it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.builtin.pictures import draw_pictures
from limner.builtin.scoring import Share
from limner.builtin.untrained import clip_tokenizer, untrained_pipeline
from limner.builtin.world import caption, draw
from limner.core.errors import UserError
from limner.core.rng import stream
from limner.data.table import Table
from limner.evaluation.generate import GenerateRequest, generate
from limner.evaluation.retrieval import Retrieval
from limner.judged.measuring import Measured, measure, peak_signal_to_noise, reconstruct
from limner.models.clip import Clip
from limner.models.sd1 import SD1
from limner.new_clip import PictureTower, new_clip
from tests.judged.scenes import COUNT, JUDGE, SCENES, SEED

ROOT = Path(__file__).resolve().parent.parent.parent


def test_generated_original_and_reconstructed_pictures_are_told_apart(measured: Measured) -> None:
    tallies = (measured.generated, measured.originals, measured.reconstructed)
    assert [tally.pictures for tally in tallies] == [COUNT] * 3
    assert [tally.share("everything") for tally in tallies] == [Share(0, COUNT), Share(COUNT, COUNT), Share(0, COUNT)]
    things = sum(len(scene.things) for scene in SCENES)
    assert measured.originals.share("colour") == Share(things, things)


def test_each_picture_has_its_own_caption_and_noise_and_limner_draws_it(model: Path, measured: Measured) -> None:
    captions = [caption(scene, stream(SEED, n, "caption to measure"), complete=True) for n, scene in enumerate(SCENES)]
    assert [sample.caption for sample in measured.samples] == captions
    loaded = SD1(path=str(model)).load()
    for number in (0, 3):
        request = GenerateRequest(prompts=(captions[number],), seed=SEED + number, steps=2, guidance=3.0)
        (picture,) = generate(loaded, request)
        pair = [np.asarray(image).astype(int) for image in (picture.image, measured.samples[number].image)]
        assert np.abs(pair[0] - pair[1]).max() <= 1  # drawn in a batch there, which rounds otherwise


def test_the_scenes_are_held_out_and_told_whole(measured: Measured) -> None:
    for scene, sample in zip(SCENES, measured.samples, strict=True):
        assert all(thing.colour in sample.caption and thing.kind[:-1] in sample.caption for thing in scene.things)


def test_captions_that_the_model_does_not_read_to_the_end_are_counted(tmp_path: Path, measured: Measured) -> None:
    pipeline = untrained_pipeline()  # it knows no word, so that every letter is a token
    pipeline.tokenizer = clip_tokenizer((), limit=57)
    pipeline.save_pretrained(tmp_path)
    spelled = measure(tmp_path, judge=JUDGE, count=COUNT, seed=SEED, steps=1, guidance=1.0)
    letters = [len(sample.caption.replace(" ", "")) for sample in spelled.samples]
    assert 0 < spelled.cut_captions == sum(number + 2 > 57 for number in letters) < COUNT
    assert measured.cut_captions == 0


def test_time_and_threads_are_those_of_this_run(measured: Measured) -> None:
    assert measured.threads == torch.get_num_threads()
    assert 0.001 < measured.seconds < 60


def test_a_reconstruction_is_the_posteriors_mean_decoded(model: Path, measured: Measured) -> None:
    loaded = SD1(path=str(model)).load()
    images = [draw(scene) for scene in SCENES]
    values = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    pixels = values.permute(0, 3, 1, 2).contiguous() / 127.5 - 1
    with torch.no_grad():
        decoded = loaded.vae.decode(loaded.vae.encode(pixels).latent_dist.mode()).sample
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    found = reconstruct(loaded, images)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(np.asarray(one) - other).max() < 0.51  # rounded, not cut off
    ratios = [peak_signal_to_noise(*pair) for pair in zip(images, found, strict=True)]
    assert measured.decibels == pytest.approx(sum(ratios) / COUNT)


def test_decibels_follow_from_the_difference() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    assert peak_signal_to_noise(grey, Image.new("RGB", (8, 8), (110, 90, 110))) == pytest.approx(28.1308, abs=1e-4)
    assert peak_signal_to_noise(grey, grey) == float("inf")


def test_progress_is_told_for_both_parts(model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    measure(model, judge=JUDGE, count=1, seed=SEED, steps=1, guidance=1.0, on_progress=lambda *one: told.append(one))
    assert told == [("captions drawn", 1, 1), ("originals and reconstructions read", 1, 1)]


def test_no_captions_are_refused(model: Path) -> None:
    with pytest.raises(UserError, match=r"--count: 0 is less than 1"):
        measure(model, judge=JUDGE, count=0)


def test_the_dual_encoder_of_the_folder_is_asked_for_distinct_held_out_pictures(model: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(model, tmp_path / "model")
    new_clip(whole / "clip", PictureTower(width=32, layers=1), text=str(model))
    found = measure(whole, judge=JUDGE, count=COUNT, seed=SEED, steps=1, guidance=1.0).retrieval
    draw_pictures(tmp_path / "drawn", count=COUNT, seed=SEED, captions=1, split="test", distinct=True)
    metric = Retrieval(dataset=Table(path=tmp_path / "drawn"))
    expected = metric.measure(Clip(path=str(whole / "clip")).load())
    assert found is not None
    assert (found.content, found.numbers) == (expected.content, expected.numbers)


def test_without_a_dual_encoder_there_is_nothing_to_find(measured: Measured) -> None:
    assert measured.retrieval is None

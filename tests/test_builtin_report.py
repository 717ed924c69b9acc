"""The report tells what was measured, of the pictures that it names, and hides nothing that is wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.builtin.judge import Reading, Seen
from limner.builtin.scoring import Share
from limner.builtin.untrained import clip_tokenizer, save_untrained, untrained_pipeline
from limner.builtin.world import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES, Scene, caption, draw, scene_at
from limner.builtin_report import (
    BARS,
    BEGIN,
    COLUMNS,
    END,
    FRAME,
    GAP,
    PAGE,
    RED,
    SHEET,
    Measured,
    Sample,
    as_markdown,
    contact_sheet,
    main,
    measure,
    peak_signal_to_noise,
    reached,
    reconstruct,
    write_report,
)
from limner.core.errors import UserError
from limner.core.rng import stream
from limner.evaluation.generate import GenerateRequest, generate
from limner.models.sd1 import SD1

SEED, COUNT = 3, 4
ROOT = Path(__file__).resolve().parent.parent


class KnowsItsScenes:
    """A judge that sees the truth in the world's own pictures of some scenes, and nothing in any other picture."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._scenes = {draw(scene).tobytes(): scene for scene in scenes}

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        return [self._reading(self._scenes.get(picture.tobytes())) for picture in pictures]

    def _reading(self, scene: Scene | None) -> Reading:
        if scene is None:
            return Reading((), "", "")
        things = tuple(Seen(thing.kind, thing.colour, thing.x, thing.y, 1.0) for thing in scene.things)
        return Reading(things, scene.background, scene.style)


SCENES = [scene_at(SEED, position, split="test") for position in range(COUNT)]
JUDGE = KnowsItsScenes(SCENES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_untrained(folder)
    return folder


@pytest.fixture(scope="module")
def measured(model: Path) -> Measured:
    return measure(model, judge=JUDGE, count=COUNT, seed=SEED, steps=2, guidance=3.0)


# ---------------------------------------------------------------------------------------------------------- measuring
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


# ------------------------------------------------------------------------------------------------------------- telling
def rows_of(page: str) -> dict[str, list[str]]:
    """Returns the cells of each row of the first table of a page, by the first cell."""
    block = page[page.index(BEGIN) : page.index(END)]
    table = re.search(r"^\|.*?\n(?!\|)", block, flags=re.M | re.S)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().strip().splitlines()]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_page_shows_the_measured_numbers_beside_their_bars(measured: Measured, tmp_path: Path) -> None:
    page, sheet = write_report(measured, tmp_path)
    assert (page, sheet) == (tmp_path / PAGE, tmp_path / SHEET)
    rows = rows_of(page.read_text(encoding="utf-8"))
    assert list(rows) == [bar.name for bar in BARS]
    assert rows["background"] == ["95%", "0.0%", "0.0% to 49.0%", "4", "no"]
    assert rows["style"][0] == "none"
    text = page.read_text(encoding="utf-8")
    assert "| background | 100.0% | 0.0% | -100.0 |" in text
    assert "This is a trial: the bars are for 1,000 captions." in text
    assert f"{measured.decibels:.1f} dB" in text
    assert f"{measured.seconds:.2f} s" in text
    assert "--count 4 --seed 3 --steps 2 --guidance 3" in text


def test_a_report_written_twice_is_the_same_and_keeps_the_text_around_it(measured: Measured, tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text(f"before\n\n{BEGIN}\nold numbers\n{END}\n\nafter\n", encoding="utf-8")
    files = write_report(measured, tmp_path)
    first = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_report(measured, tmp_path)] == first
    text = first[0].decode()
    assert text.startswith(f"before\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old numbers" not in text


def test_a_whole_measurement_is_no_trial_and_what_was_not_asked_is_said(measured: Measured, tmp_path: Path) -> None:
    nothing = replace(measured.generated, _asked=measured.generated._asked.copy())
    del nothing._asked["both"]
    page, _ = write_report(replace(measured, count=1000, generated=nothing), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "trial" not in text
    assert rows_of(text)["two differing things, each in its colour, nothing else"] == ["85%", "not asked", "", "0", ""]


def test_captions_that_were_cut_are_told(measured: Measured, tmp_path: Path) -> None:
    assert "captions are longer" not in as_markdown(measured)
    page, _ = write_report(replace(measured, cut_captions=2), tmp_path)
    assert "2 captions are longer than the model reads" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}", f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_page_without_its_markers_is_refused_before_the_work(tmp_path: Path, text: str) -> None:
    (tmp_path / PAGE).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"builtin\.md: does not hold"):
        main([str(tmp_path / "no model"), "--out", str(tmp_path)])
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (Share(990, 1000), "yes"),
        (Share(950, 1000), "yes, but so narrowly that it may be chance"),
        (Share(949, 1000), "no, but so narrowly that it may be chance"),
        (Share(900, 1000), "no"),
    ],
)
def test_a_bar_is_reached_by_the_share_and_chance_is_said(share: Share, words: str) -> None:
    assert reached(0.95, share) == words
    assert reached(None, share) == "no bar"


def test_the_page_of_the_repository_has_the_bars_that_are_measured() -> None:
    rows = rows_of((ROOT / "docs" / PAGE).read_text(encoding="utf-8"))
    bars = {bar.name: "none" if bar.least is None else f"{bar.least:.0%}" for bar in BARS}
    assert {name: cells[0] for name, cells in rows.items()} == bars


def test_the_page_of_the_repository_counts_the_world_as_it_is() -> None:
    text = " ".join((ROOT / "docs" / PAGE).read_text(encoding="utf-8").split())
    words = {3: "three", 5: "five", 8: "eight", 10: "ten"}
    counts = {"kinds": len(KINDS), "colours": len(COLOURS), "sizes": len(SIZES), "styles": len(STYLES)}
    counts["backgrounds"] = len(BACKGROUNDS)
    for noun, number in counts.items():
        assert f"{words.get(number, number)} {noun}" in text


# --------------------------------------------------------------------------------------------------- the contact sheet
def test_wrong_pictures_are_framed_in_red_and_right_ones_are_not() -> None:
    blue = Image.new("RGB", (128, 128), (0, 0, 255))
    samples = [Sample("a cat", blue, ("colour",) if number % 3 == 1 else ()) for number in range(10)]
    sheet = contact_sheet(samples)
    step_x, step_y = 128 + 2 * FRAME + GAP, (sheet.height - GAP) // 2
    for number, sample in enumerate(samples):
        x, y = GAP + number % COLUMNS * step_x, GAP + number // COLUMNS * step_y
        frame = [sheet.getpixel((x + a, y + b)) for a, b in ((0, 70), (FRAME - 1, 70), (70, 0), (135, 70), (70, 135))]
        assert all(colour == RED for colour in frame) if sample.wrong else RED not in frame
        assert sheet.crop((x + FRAME, y + FRAME, x + FRAME + 128, y + FRAME + 128)).tobytes() == blue.tobytes()


def test_captions_stay_below_their_own_pictures() -> None:
    scenes = [scene_at(SEED, position, split="test") for position in range(3 * COLUMNS)]
    captions = [caption(scene, random.Random(number), complete=True) for number, scene in enumerate(scenes)]
    black = Image.new("RGB", (128, 128))
    everything = ("thing", "colour", "background", "style", "count", "both", "relation")
    sheet = np.asarray(contact_sheet([Sample(words, black, everything) for words in captions]))
    step = 128 + 2 * FRAME + GAP
    for column in range(COLUMNS + 1):
        assert (sheet[:, column * step + 2 : column * step + GAP - 2] == 255).all()
    assert (sheet[-GAP:] == 255).all()
    assert (sheet[-4 * GAP : -GAP] != 255).any()

"""A study trains and measures what lacks, once; stopped anywhere it comes to the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from limner.builtin.judge import Reading
from limner.builtin.judge import Seen as Thing
from limner.builtin.scoring import Share
from limner.builtin.world import COLOURS
from limner.builtin.world.sitter import SITTER
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.core.rundir import read_metrics
from limner.evaluation.generate import GenerateRequest, generate
from limner.models.sd1 import SD1
from limner.study.grid import Conditions, Setting, Study, lora, pivotal, word
from limner.study.lessons import prepare
from limner.study.measuring import SEEDS_APART, Seen, numbers
from limner.study.running import BASE, Measured, measure_study
from tests.tiny import save_tiny

FEW = Conditions(
    prompts=2,
    seeds=2,
    sitter_pictures=2,
    style_pictures=2,
    class_pictures=2,
    batch_size=2,
    warmup_steps=0,
    drawing_steps=2,
    guidance=2.0,
    drawing_batch=2,
)
STUDY = Study("trial", "A trial", "sitter", (Setting("a LoRA", lora(2), 1e-2, (1, 3)),))
PICTURES = 2 * FEW.prompts * FEW.seeds


class Judge:
    """Sees one cat, of a colour and at a place that depend on the pixels; keeps the pictures."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.pictures: list[Image.Image] = []
        self._left = breaks_after

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        self.pictures += pictures
        if self._left is not None and len(self.pictures) > self._left:
            raise RuntimeError("killed")
        return [self._reading(np.asarray(picture, np.int64)) for picture in pictures]

    def _reading(self, pixels: Any) -> Reading:
        colour = COLOURS[int(pixels.sum()) % len(COLOURS)]
        return Reading((Thing("cat", colour, float(pixels.mean()) / 255, 0.5, 1.0),), "sky", "flat")


class Killed(Silent):
    def __init__(self, at_step: int) -> None:
        self.at_step = at_step

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        if line["step"] == self.at_step:
            raise RuntimeError("killed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def study(
    model: Path,
    root: Path,
    judge: Judge,
    *,
    of: Study = STUDY,
    conditions: Conditions = FEW,
    progress: Silent | None = None,
) -> Measured:
    return measure_study(
        of, conditions, root=root, model=str(model), judge=judge, judge_hash="0", progress=progress or Silent()
    )


@pytest.fixture(scope="module")
def done(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Judge, Path]:
    root, judge = tmp_path_factory.mktemp("study"), Judge()
    return study(model, root, judge), judge, root


def weights(root: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = root.glob(f"trained/*/step_{step:06d}/peft/unet/adapter_model.safetensors")
    return load_file(file)


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_base_model_comes_first_and_every_step_has_its_row(done: tuple[Measured, Judge, Path]) -> None:
    measured, judge, _ = done
    assert [(row.name, row.steps) for row in measured.rows] == [(BASE, 0), ("a LoRA", 1), ("a LoRA", 3)]
    assert len(judge.pictures) == 3 * PICTURES
    assert {row.numbers.pictures for row in measured.rows} == {PICTURES}
    base, first, last = measured.rows
    assert base.trained is None
    assert base.diversity is not None
    assert (base.diversity.value, base.diversity.low, base.diversity.high) == (1.0, 1.0, 1.0)
    assert first.trained is not None
    assert last.trained is not None
    assert 0 < first.trained.seconds < last.trained.seconds


def test_every_model_draws_the_same_prompts_from_the_same_noise(
    model: Path, done: tuple[Measured, Judge, Path], tmp_path: Path
) -> None:
    pictures, lesson = done[1].pictures, prepare("sitter", tmp_path, FEW)
    loaded = SD1(path=str(model)).load()
    asked = [prompt.text("sks cat") for prompt in lesson.called], [prompt.text for prompt in lesson.of_class]
    order = [(text, s * SEEDS_APART + k) for texts in asked for s in range(FEW.seeds) for k, text in enumerate(texts)]
    for place, (text, seed) in enumerate(order):
        request = GenerateRequest(prompts=(text,), seed=seed, steps=FEW.drawing_steps, guidance=FEW.guidance)
        (alone,) = generate(loaded, request)
        differences = [
            np.abs(np.asarray(alone.image, np.int64) - np.asarray(pictures[row * PICTURES + place])).mean()
            for row in range(3)
        ]
        assert differences[0] < 0.01  # a batch rounds otherwise
        assert all(differences[0] < tuned for tuned in differences[1:])


def test_a_run_that_went_on_is_the_run_that_never_stopped(
    model: Path, done: tuple[Measured, Judge, Path], tmp_path: Path
) -> None:
    whole = replace(STUDY, settings=(replace(STUDY.settings[0], steps=(3,)),))
    with pytest.raises(RuntimeError, match="killed"):
        study(model, tmp_path / "killed", Judge(), of=whole, progress=Killed(at_step=2))
    for root in (tmp_path / "whole", tmp_path / "killed"):
        study(model, root, Judge(), of=whole)
        assert equal(weights(root, 3), weights(done[2], 3))
    assert not equal(weights(done[2], 1), weights(done[2], 3))


def test_what_is_done_is_not_done_again(model: Path, done: tuple[Measured, Judge, Path]) -> None:
    measured, _, root = done
    judge, never = Judge(), Killed(at_step=1)
    assert study(model, root, judge, progress=never).rows == measured.rows
    assert judge.pictures == []


def test_a_killed_measurement_goes_on_with_the_row_that_lacks(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        study(model, tmp_path, Judge(breaks_after=2 * PICTURES + 1))
    rest = Judge()
    found = study(model, tmp_path, rest)
    assert len(rest.pictures) == PICTURES
    assert len(found.rows) == 3


def test_other_prompts_are_drawn_with_what_was_trained(
    model: Path, done: tuple[Measured, Judge, Path], tmp_path: Path
) -> None:
    judge, more = Judge(), replace(FEW, prompts=3)
    study(model, done[2], judge, conditions=more, progress=Killed(at_step=1))
    assert len(judge.pictures) == 3 * 2 * more.prompts * more.seeds


def test_another_setting_or_model_is_trained_anew(
    model: Path, done: tuple[Measured, Judge, Path], tmp_path: Path
) -> None:
    other = replace(STUDY, settings=(replace(STUDY.settings[0], lr=2e-2),))
    with pytest.raises(RuntimeError, match="killed"):
        study(model, done[2], Judge(), of=other, progress=Killed(at_step=1))
    another, judge = save_tiny(tmp_path / "another", seed=1), Judge()
    with pytest.raises(RuntimeError, match="killed"):
        study(another, done[2], judge, progress=Killed(at_step=1))
    assert len(judge.pictures) == PICTURES  # the other base model is drawn too


def test_an_earlier_step_than_that_of_the_run_gets_a_run_of_its_own(
    model: Path, done: tuple[Measured, Judge, Path]
) -> None:
    between = replace(STUDY, settings=(replace(STUDY.settings[0], steps=(2, 3)),))
    assert [row.steps for row in study(model, done[2], Judge(), of=between).rows] == [0, 2, 3]
    (own,) = done[2].glob("trained/*/run_000002")
    losses = [[line["loss"] for line in read_metrics(run / "metrics.jsonl")] for run in (own, own.parent / "run")]
    assert losses[0] == losses[1][:2]


def test_the_cost_is_that_of_the_files(done: tuple[Measured, Judge, Path]) -> None:
    trained = done[0].rows[-1].trained
    assert trained is not None
    (file,) = trained.folder.rglob("*.safetensors")
    assert trained.bytes == file.stat().st_size
    assert trained.numbers == sum(value.numel() for value in load_file(file).values())


def test_a_damaged_result_is_told(model: Path, tmp_path: Path, done: tuple[Measured, Judge, Path]) -> None:
    study(model, tmp_path, Judge(), of=replace(STUDY, settings=()))
    (file,) = tmp_path.glob("measured/*.json")
    file.write_text(file.read_text()[:-40])
    with pytest.raises(UserError, match="is damaged"):
        study(model, tmp_path, Judge(), of=replace(STUDY, settings=()))


def test_the_numbers_are_counted_from_the_readings(tmp_path: Path) -> None:
    lesson = prepare("sitter", tmp_path, FEW)

    def shows(*kinds: str) -> Reading:
        return Reading(tuple(Thing(kind, "red", 0.5, 0.5, 1.0) for kind in kinds), "sky", "flat")

    sitter, cat = shows(SITTER), shows("cat")
    found = numbers(lesson, Seen(((sitter, cat), (sitter, sitter)), ((cat, shows()), (sitter, cat)), 0))
    assert found.recognised == Share(3, 4)
    assert found.class_drawn == Share(2, 4)
    assert found.drift == Share(1, 4)
    assert found.things.asked == 2 * sum(len(prompt.scene.things) for prompt in lesson.called)
    assert found.diversity == (0.0, 0.0)
    assert numbers(lesson, Seen(((sitter,), (sitter,)), ((cat,), (cat,)), 0)).diversity is None


SITTER_WAYS = (
    Setting("class pictures", lora(2, text_encoder=True), 1e-2, (2,), "class pictures"),
    Setting("preservation", lora(2, dora=True), 1e-2, (2,), "preservation"),
    Setting("a word", word(2), 1e-2, (2,)),
    Setting("both", pivotal(1), 1e-2, (2,)),
)
STYLE_WAYS = (
    Setting("LoHa", {"kind": "loha", "rank": 2}, 1e-2, (2,)),
    Setting("LoKr", {"kind": "lokr", "rank": 2}, 1e-2, (2,)),
    Setting("convolutions", lora(2, targets=("to_q", "conv1", "conv2")), 1e-2, (2,)),
    Setting("full", {"kind": "full", "text_encoder": True}, 1e-3, (2,), ema_decay=0.9),
)


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "ways"), [("sitter", SITTER_WAYS), ("style", STYLE_WAYS)])
def test_every_way_of_training_is_loaded_and_draws_something_else(
    model: Path, tmp_path: Path, lesson: Any, ways: tuple[Setting, ...]
) -> None:
    judge = Judge()
    measured = study(model, tmp_path, judge, of=Study("trial", "A trial", lesson, ways))
    rows = [judge.pictures[start : start + PICTURES] for start in range(0, len(judge.pictures), PICTURES)]
    assert len(rows) == len(measured.rows) == 1 + len(ways)
    called = FEW.prompts * FEW.seeds
    for row in rows[1:]:
        assert [one.tobytes() for one in row[:called]] != [one.tobytes() for one in rows[0][:called]]
    for row in measured.rows[1:]:
        assert row.trained is not None
        assert row.trained.numbers > 0
        assert row.trained.bytes > row.trained.numbers
    if lesson == "sitter":  # a word alone changes nothing where it is not called
        assert [one.tobytes() for one in rows[3][called:]] == [one.tobytes() for one in rows[0][called:]]
        assert len(list(tmp_path.glob("class-pictures-*/limner-class-*.png"))) == 2

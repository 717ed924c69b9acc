from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

import limner.demo.lessons
from limner.builtin.drawings import draw_captioned, sitters_alone
from limner.builtin.world import HELD_OUT_STYLE
from limner.builtin.world.sitter import SITTER as CHARACTER
from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.data.auto import AutoDataset
from limner.data.dreambooth import DreamBooth
from limner.data.folder import Folder
from limner.demo.judging import CALLED, NEW_SCENES, OTHER_CATS, STYLE_IS, UNCALLED
from limner.demo.lessons import (
    CAPTION,
    MOST_THINGS,
    PHOTOS,
    SET_SEED,
    SITTER,
    STYLE,
    TOKEN,
    photos_lesson,
    sitter_lesson,
    style_lesson,
)
from limner.models.sd1 import SD1

ROOT = Path(__file__).resolve().parents[2]


class Listener(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def save_pictures(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")


def test_a_style_is_taught_to_every_layer_that_the_recipe_for_textures_names_and_photos_likewise() -> None:
    values = yaml.safe_load((ROOT / "recipes" / "sd1_conv_lora.yaml").read_text(encoding="utf-8"))
    assert list(STYLE.targets) == list(PHOTOS.targets) == values["method"]["targets"]


def test_the_finest_level_of_the_built_in_model_has_no_attention() -> None:
    names = SD1(path="builtin").load().unet.state_dict()
    assert not [name for name in names if name.startswith(("down_blocks.0.attentions", "up_blocks.2.attentions"))]
    assert [name for name in names if name.startswith("down_blocks.1.attentions")]


def test_the_style_is_tested_on_prompts_that_are_not_in_the_set(tmp_path: Path) -> None:
    lesson = style_lesson(tmp_path / "set", replace(STYLE, pictures=6, prompts=12))
    examples = validate(AutoDataset, {**lesson.dataset}, where="").read().examples
    assert len(examples) == 6
    texts = [prompt.text for prompt in lesson.prompts]
    assert len(set(texts)) == 12
    assert not set(texts) & {caption for example in examples for caption in example.captions}
    for prompt in lesson.prompts:
        assert prompt.scene is not None
        assert prompt.scene.style == HELD_OUT_STYLE
        assert HELD_OUT_STYLE in prompt.text
        assert len(prompt.scene.things) <= MOST_THINGS
    assert lesson.goals[STYLE_IS].text() == "from under 10 % to at least 85 %"


def test_what_is_in_the_set_is_never_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limner.demo.lessons, "PROMPT_SEED", SET_SEED)  # the set's own scenes come up
    lesson = style_lesson(tmp_path, replace(STYLE, pictures=6, prompts=4))
    captions = {caption for example in AutoDataset(path=tmp_path).read().examples for caption in example.captions}
    assert len(captions) == 6
    assert not captions & {prompt.text for prompt in lesson.prompts}


def test_prompts_that_are_drawn_together_share_a_seed(tmp_path: Path) -> None:
    lesson = style_lesson(tmp_path, replace(STYLE, pictures=1, prompts=7, drawing_batch=3))
    assert [prompt.seed for prompt in lesson.prompts] == [0, 0, 0, 1, 1, 1, 2]


def test_the_character_is_tested_on_new_backgrounds_and_the_class_beside_it(tmp_path: Path) -> None:
    lesson = sitter_lesson(tmp_path / "set", tmp_path / "class", SITTER)
    assert len(list((tmp_path / "set").glob("*.png"))) == 5
    called = [prompt for prompt in lesson.prompts if prompt.section == NEW_SCENES]
    uncalled = [prompt for prompt in lesson.prompts if prompt.section == OTHER_CATS]
    assert len(called) == len(uncalled) == 12
    assert len({prompt.text for prompt in called}) == 12
    shown = {scene.background for scene in sitters_alone(SET_SEED)[: SITTER.pictures]}
    for prompt in called:
        assert prompt.scene is not None
        assert f" a {TOKEN} cat " in prompt.text
        assert prompt.scene.background not in shown
        assert [thing.kind for thing in prompt.scene.things] == [CHARACTER]
    for prompt in uncalled:
        assert prompt.scene is not None
        assert TOKEN not in prompt.text
        (cat,) = prompt.scene.things
        assert f"{cat.colour} {cat.kind}" in prompt.text
        assert cat.kind == "cat"
    assert set(lesson.goals) == {CALLED, UNCALLED}


def test_the_character_is_learned_with_prior_preservation(tmp_path: Path) -> None:
    lesson = sitter_lesson(tmp_path / "set", tmp_path / "class", SITTER)
    save_pictures(tmp_path / "class", 10)
    dataset = validate(DreamBooth, lesson.dataset, where="")
    reading = dataset.read()
    captions = {(example.role, example.captions, example.weight, example.repeats) for example in reading.examples}
    assert captions == {("instance", (f"a {TOKEN} cat",), 1.0, 5), ("class", ("a cat",), 1.0, 1)}
    assert reading.awaited == SITTER.class_pictures - 10 == 14  # the run draws them, as the demo draws its prompts
    drawing = dataset.class_drawing
    assert (drawing.steps, drawing.guidance) == (SITTER.drawing_steps, SITTER.guidance)
    assert (drawing.scheduler, drawing.batch_size) == ("", SITTER.drawing_batch)
    assert lesson.trigger_word == TOKEN


def test_the_captions_of_photos_are_the_prompts(tmp_path: Path) -> None:
    captions = draw_captioned(tmp_path, count=3)
    listener = Listener()
    lesson = photos_lesson(tmp_path, replace(PHOTOS, prompts=5), listener)
    assert [prompt.text for prompt in lesson.prompts] == [*captions, *captions[:2]]
    assert [prompt.seed for prompt in lesson.prompts] == [0, 0, 0, 1, 1]
    assert lesson.assess is None
    assert lesson.goals == {}
    assert listener.warnings == []


def test_photos_without_captions_get_one_and_it_is_said(tmp_path: Path) -> None:
    save_pictures(tmp_path, 2)
    listener = Listener()
    lesson = photos_lesson(tmp_path, replace(PHOTOS, prompts=3), listener)
    assert [(prompt.text, prompt.seed) for prompt in lesson.prompts] == [(CAPTION, 0), (CAPTION, 1), (CAPTION, 2)]
    assert {example.captions for example in validate(Folder, lesson.dataset, where="").read().examples} == {(CAPTION,)}
    assert repr(CAPTION) in listener.warnings[0]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        photos_lesson(tmp_path / "nothing", PHOTOS, Silent())

"""What the demo can teach: a style, a character, or the user's own pictures; and how each is judged."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limner.builtin.drawings import draw_captioned, draw_sitter, sitters_alone
from limner.builtin.world import BACKGROUNDS, COLOURS, HELD_OUT_STYLE, STYLES, Scene, caption, scene_at
from limner.builtin.world.captions import BACKGROUND_WORDS, STYLE_PREFIXES
from limner.builtin.world.sitter import SITTER_CLASS
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.data.auto import AutoDataset
from limner.data.folder import Folder
from limner.data.prompts import article
from limner.demo.judging import (
    CALLED,
    COLOURS_ARE,
    NEW_SCENES,
    OTHER_CATS,
    STYLE_IS,
    THINGS_ARE,
    UNCALLED,
    Assess,
    Goal,
    Prompt,
    assess_sitter,
    assess_style,
)
from limner.methods.lora import Lora


@dataclass(frozen=True)
class Settings:
    """The numbers of a lesson."""

    pictures: int
    """Pictures that are drawn for the lesson."""
    prompts: int
    """Pictures drawn with the base model, and again with the tuned one."""
    steps: int
    warmup_steps: int
    batch_size: int
    lr: float
    rank: int
    text_encoder: bool
    drawing_steps: int = 20
    """Denoising steps of a picture."""
    guidance: float = 5.0
    drawing_batch: int = 8
    """Pictures drawn at once."""
    class_pictures: int = 0
    """Pictures of the class, drawn by the base model, for prior preservation."""
    targets: tuple[str, ...] = Lora().targets
    """The layers of the denoiser that get an adapter."""


EVERY_LAYER = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out",
)  # fmt: skip
"""Those of recipes/sd1_conv_lora.yaml. The built-in model's finest level, which draws the lines, has no attention: the
usual adapters, on attention alone, do not reach it."""
STYLE = Settings(
    pictures=40,
    prompts=24,
    steps=200,
    warmup_steps=10,
    batch_size=8,
    lr=2e-3,
    rank=16,
    text_encoder=False,
    targets=EVERY_LAYER,
)
SITTER = Settings(
    pictures=5,
    prompts=24,
    steps=200,
    warmup_steps=10,
    batch_size=8,
    lr=1e-3,
    rank=8,
    text_encoder=True,
    class_pictures=24,
)
PHOTOS = replace(STYLE, pictures=0, prompts=8)

SET_SEED, PROMPT_SEED = 0, 1
MOST_THINGS = 2
"""Things in the picture of a prompt."""
TOKEN = "sks"
INSTANCE_PROMPT, CLASS_PROMPT = "a {token} {class_noun}", "a {class_noun}"
CAPTION = "a photograph"
"""For photos without captions."""

UNKNOWN, LEARNED = 0.10, 0.85
"""What is taught should show in less than this share of the base model's pictures, and in this share at least after."""
LEAKED = 0.10
"""The class has become the character where it shows more often than this in pictures of other members."""


# ---------------------------------------------------------------------------------------------------------- the nouns
@dataclass(frozen=True)
class Lesson:
    """What is taught, from which pictures, and which prompts show whether it was learned."""

    title: str
    about: str
    settings: Settings
    dataset: Mapping[str, Any]
    """The config of the data set."""
    own_dataset: str
    """The same for the user's own pictures, as it is written on the command line."""
    own_prompt: str
    """What to draw once it is trained on them."""
    prompts: tuple[Prompt, ...]
    assess: Assess | None
    """None where no judge knows the pictures."""
    goals: Mapping[str, Goal]
    trigger_word: str | None = None


# ---------------------------------------------------------------------------------------------------------- the style
def style_lesson(folder: Path, settings: Settings) -> Lesson:
    """Draws pictures with captions in a style that the built-in model has not seen, into ``folder``."""
    captions = draw_captioned(folder, count=settings.pictures, seed=SET_SEED)
    return Lesson(
        title=f"The built-in model learns {HELD_OUT_STYLE}",
        about=f"{settings.pictures} pictures with captions, in a style that the model had never seen. "
        "The prompts below were not among the captions.",
        settings=settings,
        dataset={"kind": "auto", "path": folder},
        own_dataset="{kind: auto, path: path/to/photos}",
        own_prompt="a red owl on a meadow",
        prompts=_style_prompts(settings, captions),
        assess=assess_style,
        goals={
            STYLE_IS: Goal(least=LEARNED, under_before=UNKNOWN),
            THINGS_ARE: Goal(least=LEARNED),
            COLOURS_ARE: Goal(least=LEARNED),
        },
    )


def _style_prompts(settings: Settings, captions: Sequence[str]) -> tuple[Prompt, ...]:
    prompts: dict[str, Scene] = {}
    for position in itertools.count():
        scene = scene_at(PROMPT_SEED, position, styles=(HELD_OUT_STYLE,))
        text = caption(scene, random.Random(position), complete=True)
        if text not in captions and len(scene.things) <= MOST_THINGS:
            prompts[text] = scene
        if len(prompts) == settings.prompts:
            break
    return tuple(
        Prompt(text, _seed(number, settings), "Prompts that were not in the set", scene)
        for number, (text, scene) in enumerate(prompts.items())
    )


def _seed(number: int, settings: Settings) -> int:
    """Returns the seed of a prompt: prompts that are drawn together share theirs."""
    return number // settings.drawing_batch


# ------------------------------------------------------------------------------------------------------ the character
def sitter_lesson(folder: Path, class_folder: Path, settings: Settings) -> Lesson:
    """Draws pictures of one new character into ``folder``; the run has the base model draw its class."""
    shown = draw_sitter(folder, count=settings.pictures, seed=SET_SEED)
    return Lesson(
        title="The built-in model meets a new character",
        about=f"{settings.pictures} pictures of one {SITTER_CLASS} that the model had never seen, called by the rare "
        f"word {TOKEN!r}, and {settings.class_pictures} pictures of {SITTER_CLASS}s by the model itself, so that "
        "the others stay as they were (DreamBooth with prior preservation).",
        settings=settings,
        dataset={
            "kind": "dreambooth",
            "path": folder,
            "token": TOKEN,
            "class_noun": SITTER_CLASS,
            "instance_prompt": INSTANCE_PROMPT,
            "class_path": class_folder,
            "class_prompt": CLASS_PROMPT,
            "class_pictures": settings.class_pictures,
            "class_drawing": {
                "steps": settings.drawing_steps,
                "guidance": settings.guidance,
                "scheduler": "",
                "batch_size": settings.drawing_batch,
            },
        },
        own_dataset=f"{{kind: dreambooth, path: path/to/photos, class_noun: dog, token: {TOKEN}}}",
        own_prompt=f"a photo of {TOKEN} dog on the beach",
        prompts=_sitter_prompts(settings, {scene.background for scene in shown}),
        assess=assess_sitter,
        goals={CALLED: Goal(least=LEARNED, under_before=UNKNOWN), UNCALLED: Goal(most=LEAKED)},
        trigger_word=TOKEN,
    )


def _sitter_prompts(settings: Settings, known: set[str]) -> tuple[Prompt, ...]:
    """Returns prompts for the character before backgrounds that its pictures lack, and as many for other cats."""
    half = settings.prompts // 2
    rng = random.Random(PROMPT_SEED)
    scenes = {scene.background: scene for scene in sitters_alone(PROMPT_SEED)}
    new = [name for name in BACKGROUNDS if name not in known] or list(BACKGROUNDS)
    prompts = []
    for number, (style, background) in enumerate(_mixed(rng, STYLES, new, half)):
        text = _told(style, f"a {TOKEN} {SITTER_CLASS}", background)
        prompts.append(Prompt(text, _seed(number, settings), NEW_SCENES, replace(scenes[background], style=style)))
    for number, (style, background) in enumerate(_mixed(rng, STYLES, BACKGROUNDS, settings.prompts - half), half):
        scene = replace(scenes[background], style=style)
        colour = COLOURS[number % len(COLOURS)]
        cat = replace(scene.things[0], kind=SITTER_CLASS, colour=colour)
        text = _told(style, f"{article(colour)} {colour} {SITTER_CLASS}", background)
        prompts.append(Prompt(text, _seed(number, settings), OTHER_CATS, replace(scene, things=(cat,))))
    return tuple(prompts)


def _mixed(rng: random.Random, styles: Sequence[str], backgrounds: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Returns ``count`` pairs, all different before one comes again."""
    pairs = list(itertools.product(styles, backgrounds))
    rng.shuffle(pairs)
    return list(itertools.islice(itertools.cycle(pairs), count))


def _told(style: str, subject: str, background: str) -> str:
    return f"{STYLE_PREFIXES[style][0]} {subject} {BACKGROUND_WORDS[background][0]}"


# --------------------------------------------------------------------------------------------------------- the photos
def photos_lesson(photos: Path, settings: Settings, progress: Progress) -> Lesson:
    """Takes the user's own pictures; their captions are the prompts."""
    dataset, captions = _read_photos(photos, progress)
    texts = list(dict.fromkeys(captions))[: settings.prompts]
    numbered = itertools.islice(enumerate(itertools.cycle(texts)), settings.prompts)
    return Lesson(
        title="The built-in model learns from your pictures",
        about=f"The pictures in {photos.name}. The built-in model is small and has only seen drawings of a few things: "
        "this shows the way, the look of your pictures comes with a large model.",
        settings=settings,
        dataset=dataset,
        own_dataset=json.dumps(dataset),
        own_prompt=texts[0],
        prompts=tuple(
            Prompt(text, number // len(texts), "Captions of your pictures as prompts") for number, text in numbered
        ),
        assess=None,
        goals={},
    )


def _read_photos(photos: Path, progress: Progress) -> tuple[dict[str, Any], list[str]]:
    """Returns the data set and its captions; pictures without captions get one for all, and it is said."""
    try:
        reading = AutoDataset(path=photos).read()
    except UserError as error:
        reading = Folder(path=photos, caption=CAPTION).read()  # raises where the pictures themselves are the problem
        progress.warn(f"{error.what} The demo uses {CAPTION!r} for every picture.")
        return {"kind": "folder", "path": str(photos), "caption": CAPTION}, [CAPTION]
    return {"kind": "auto", "path": str(photos)}, [example.captions[0] for example in reading.examples]

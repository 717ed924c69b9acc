"""The studies: what is compared, a line for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LessonName = Literal["sitter", "style"]
Prior = Literal["nothing", "class pictures", "preservation"]
Measure = Literal["recognised", "diversity"]

WORD = "<limner-cat>"
"""The new word of textual inversion and pivotal tuning."""


@dataclass(frozen=True)
class Setting:
    """One way of training, and the steps after which it is measured."""

    name: str
    method: Mapping[str, Any]
    """The method's config."""
    lr: float
    steps: tuple[int, ...] = (200,)
    """Rising. The rate is constant after its warm-up, so a run that goes on from 100 to 200 steps is that of 200."""
    prior: Prior = "nothing"
    """What keeps the class as it is."""
    ema_decay: float | None = None

    @property
    def has_word(self) -> bool:
        """Whether a new word is learned."""
        return self.method["kind"] in ("textual_inversion", "pivotal")


@dataclass(frozen=True)
class Study:
    """Settings that are compared in one table."""

    name: str
    title: str
    lesson: LessonName
    settings: tuple[Setting, ...]
    bars: Mapping[Measure, float] = field(default_factory=dict)
    """The least shares that were asked for before anything was measured."""
    plot: Literal["rows", "curves"] = "rows"
    """A point for each row of the table, or curves over the steps."""


@dataclass(frozen=True)
class Conditions:
    """What is the same for all settings of a study."""

    prompts: int = 100
    """Prompts for the subject in new scenes, and as many for its class."""
    seeds: int = 3
    """Pictures of each prompt."""
    sitter_pictures: int = 5
    style_pictures: int = 40
    class_pictures: int = 100
    """Drawn by the base model, for the settings that train with them."""
    batch_size: int = 8
    warmup_steps: int = 10
    drawing_steps: int = 20
    """Denoising steps of every picture."""
    guidance: float = 5.0
    drawing_batch: int = 20
    """Pictures drawn at once."""


_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_AROUND = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out")


def lora(rank: int = 8, **settings: Any) -> dict[str, Any]:
    """Returns the config of a LoRA."""
    return {"kind": "lora", "rank": rank, **settings}


def word(vectors: int) -> dict[str, Any]:
    """Returns the config of textual inversion."""
    return {"kind": "textual_inversion", "token": WORD, "vectors": vectors, "initialise": "cat"}


def pivotal(vectors: int) -> dict[str, Any]:
    """Returns the config of pivotal tuning."""
    return {**word(vectors), "kind": "pivotal", "lora": {"rank": 8}}


TEXT: Mapping[str, Any] = {"text_encoder": True}

DREAMBOOTH = Study(
    "dreambooth",
    "DreamBooth: one character from five pictures, by LoRA of rank 8",
    "sitter",
    (
        Setting("LoRA alone", lora(), 1e-3, (200, 400)),
        Setting("LoRA alone, text encoder too", lora(**TEXT), 1e-3, (200, 400)),
        Setting("class pictures", lora(), 1e-3, (200, 400), "class pictures"),
        Setting("class pictures, text encoder too", lora(**TEXT), 1e-3, (200, 400), "class pictures"),
        Setting("preservation", lora(), 1e-3, (200, 400), "preservation"),
        Setting("preservation, text encoder too", lora(**TEXT), 1e-3, (200, 400), "preservation"),
    ),
    bars={"recognised": 0.85, "diversity": 0.90},
)
LEARNING_RATE = Study(
    "learning_rate",
    "Learning rate and steps: a style, by LoRA of rank 8",
    "style",
    (
        Setting("rate 1e-4", lora(), 1e-4, (50, 100, 200, 400)),
        Setting("rate 3e-4", lora(), 3e-4, (50, 100, 200, 400)),
        Setting("rate 1e-3", lora(), 1e-3, (50, 100, 200, 400)),
        Setting("rate 3e-3", lora(), 3e-3, (50, 100, 200, 400)),
    ),
    plot="curves",
)
RANK = Study(
    "rank",
    "Rank and kind of adapter: a style, 200 steps",
    "style",
    (
        Setting("LoRA, rank 1", lora(1), 1e-3),
        Setting("LoRA, rank 4", lora(4), 1e-3),
        Setting("LoRA, rank 16", lora(16), 1e-3),
        Setting("DoRA, rank 4", lora(4, dora=True), 1e-3),
        Setting("LoRA and convolutions, rank 4", lora(4, targets=(*_ATTENTION, *_AROUND, *_CONVOLUTIONS)), 1e-3),
        Setting("LoHa, rank 4", {"kind": "loha", "rank": 4}, 1e-3),
        Setting("LoHa, rank 4, 5 times the rate", {"kind": "loha", "rank": 4}, 5e-3),
        Setting("LoKr, rank 4", {"kind": "lokr", "rank": 4}, 1e-3),
    ),
)
TEXTUAL_INVERSION = Study(
    "textual_inversion",
    "Textual inversion and pivotal tuning: one character from five pictures, by a new word",
    "sitter",
    (
        Setting("1 vector", word(1), 5e-3, (400, 800)),
        Setting("1 vector, a fifth of the rate", word(1), 1e-3, (400, 800)),
        Setting("1 vector, 4 times the rate", word(1), 2e-2, (400, 800)),
        Setting("2 vectors", word(2), 5e-3, (400, 800)),
        Setting("4 vectors", word(4), 5e-3, (400, 800)),
        Setting("pivotal tuning, 1 vector and LoRA of rank 8", pivotal(1), 1e-3, (200, 400)),
    ),
    bars={"recognised": 0.60},
)
FULL = Study(
    "full",
    "Full fine-tuning against LoRA: a style, 200 steps",
    "style",
    (
        Setting("LoRA, rank 8", lora(), 1e-3),
        Setting("LoRA, rank 8, text encoder too", lora(**TEXT), 1e-3),
        Setting("full, no average", {"kind": "full"}, 1e-4),
        Setting("full, EMA 0.99", {"kind": "full"}, 1e-4, ema_decay=0.99),
        Setting("full, EMA 0.99, 3 times the rate", {"kind": "full"}, 3e-4, ema_decay=0.99),
        Setting("full, EMA 0.99, text encoder too", {"kind": "full", **TEXT}, 1e-4, ema_decay=0.99),
    ),
)
STUDIES: Mapping[str, Study] = {
    study.name: study for study in (DREAMBOOTH, LEARNING_RATE, RANK, TEXTUAL_INVERSION, FULL)
}

"""Tuned text encoders beside a pipeline's own, on a small pipeline without training: what is compared, not how good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image
from transformers import CLIPModel

from limner.builtin.judge import Reading, Seen
from limner.builtin.pictures import draw_pictures
from limner.builtin.untrained import save_untrained
from limner.builtin.world import scene_at
from limner.builtin_encoders import COLUMNS, Row, as_markdown, main, measure_encoders
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.data.table import Table
from limner.evaluation.retrieval import Retrieval
from limner.judged.measuring import SEED, Drawn
from limner.models.clip import Clip
from limner.models.sd1 import SD1
from limner.models.text_encoder import TextEncoder
from limner.new_clip import PictureTower, new_clip

COUNT, STEPS = 3, 2


class RightAtFirst:
    """Sees what was asked for in the first pictures, and nothing in all that follow."""

    def __init__(self) -> None:
        self.pictures: list[Image] = []

    def read(self, pictures: Sequence[Image]) -> list[Reading]:
        found = []
        for picture in pictures:
            scene = scene_at(SEED, len(self.pictures) % COUNT, split="test")
            things = tuple(Seen(thing.kind, thing.colour, thing.x, thing.y, 1.0) for thing in scene.things)
            right = Reading(things, scene.background, scene.style)
            found.append(right if len(self.pictures) < COUNT else Reading((), "", ""))
            self.pictures.append(picture)
        return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, a CLIP with its text encoder, one whose text encoder is another, and pictures to find."""
    folder = tmp_path_factory.mktemp("encoders")
    save_untrained(folder / "model")
    new_clip(folder / "own", PictureTower(width=32, layers=1), text=str(folder / "model"))
    tuned = CLIPModel.from_pretrained(folder / "own")
    with torch.no_grad():
        for weights in tuned.text_model.encoder.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    new_clip(folder / "tuned", PictureTower(width=32, layers=1), text=str(folder / "model"))
    tuned.save_pretrained(folder / "tuned")
    draw_pictures(folder / "pictures", count=12, seed=7, captions=1, split="test", distinct=True)
    return folder


@pytest.fixture(scope="module")
def measured(root: Path) -> tuple[tuple[Row, ...], list[Image]]:
    judge = RightAtFirst()
    clips = {name: str(root / name) for name in ("own", "tuned")}
    rows = measure_encoders(
        str(root / "model"), clips, pictures=root / "pictures", judge=judge, count=COUNT, steps=STEPS, progress=Silent()
    )  # type: ignore[arg-type]
    return rows, judge.pictures


def test_each_row_is_drawn_with_its_own_text_encoder(root: Path, measured: tuple[tuple[Row, ...], list[Image]]) -> None:
    own = SD1(path=str(root / "model")).load()
    tuned = own.with_text_encoder(TextEncoder(path=str(root / "tuned")))
    expected = [
        picture for model in (own, tuned) for picture in Drawn(model, COUNT, SEED, STEPS, 5.0).pictures(range(COUNT))
    ]
    found = [np.asarray(picture) for picture in measured[1]]
    assert len(found) == len(expected) == 2 * COUNT
    assert all(np.array_equal(one, np.asarray(other)) for one, other in zip(found, expected, strict=True))
    assert not np.array_equal(found[0], found[COUNT])


def test_retrieval_and_movement_are_those_of_each_clip(
    root: Path, measured: tuple[tuple[Row, ...], list[Image]]
) -> None:
    own, tuned = measured[0]
    assert own.moved == 0 < tuned.moved
    metric = Retrieval(dataset=Table(path=root / "pictures"))
    for row in (own, tuned):
        assert row.found.outcomes == metric.measure(Clip(path=str(root / row.name)).load()).numbers[0].outcomes
    assert own.found.outcomes != tuned.found.outcomes


def test_the_table_tells_values_and_paired_differences(measured: tuple[tuple[Row, ...], list[Image]]) -> None:
    lines = as_markdown(measured[0], "the command").splitlines()
    own, tuned = (line for line in lines if line.startswith(("| own", "| tuned")))
    assert own.count("| 100.0 % ") == 1 + len(COLUMNS)
    assert tuned.count("| 0.0 % (-100.0: -100.0 to -100.0) ") == 1 + len(COLUMNS)
    assert lines[0] == "`the command`"
    assert "R@1, 12 pictures" in lines[2]


def test_the_first_must_have_the_pipelines_own_text_encoder(root: Path) -> None:
    with pytest.raises(UserError, match=r"tuned: has another text encoder than .*model: the states .* moved by"):
        measure_encoders(
            str(root / "model"),
            {"tuned": str(root / "tuned")},
            pictures=root / "pictures",
            judge=RightAtFirst(),  # type: ignore[arg-type]
            count=1,
            progress=Silent(),
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nameless"], "'nameless' is no NAME=CLIP"),
        (["a=b", "a=c"], "every CLIP has a name of its own"),
        (["a=b", "--count", "0"], "--count is at least 1"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["builtin", *words, "--pictures", "somewhere"])


def test_a_page_without_markers_is_refused_before_the_work(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="does not hold"):
        main(["builtin", "a=b", "--pictures", str(root / "pictures"), "--write", str(page)])

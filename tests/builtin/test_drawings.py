from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from limner.builtin.drawings import SIDE, draw_captioned, draw_folder, draw_sitter, sitters_alone
from limner.builtin.world import BACKGROUNDS
from limner.builtin.world.sitter import SITTER
from limner.data.auto import AutoDataset


def test_the_drawings_are_a_data_set_as_users_have_them(tmp_path: Path) -> None:
    captions = draw_folder(tmp_path / "one", count=5)
    reading = AutoDataset(path=tmp_path / "one").read()
    assert [example.captions for example in reading.examples] == [(caption,) for caption in captions]
    assert len(set(captions)) == 5
    for path in (tmp_path / "one").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (SIDE, SIDE)


def test_the_same_seed_draws_the_same_pictures(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        draw_folder(tmp_path / name, count=2, seed=seed)
    one, again, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "again", "other")
    )
    assert one == again
    assert one != other


def test_a_captions_file_holds_what_sidecars_hold(tmp_path: Path) -> None:
    captions = draw_captioned(tmp_path / "table", count=3)
    assert captions == draw_folder(tmp_path / "sidecars", count=3)
    reading = AutoDataset(path=tmp_path / "table").read()
    assert reading.layout == "table metadata.csv"
    assert [(example.id, example.captions) for example in reading.examples] == [
        (f"{number:02d}.png", (caption,)) for number, caption in enumerate(captions)
    ]
    for name in ("00.png", "02.png"):
        assert (tmp_path / "table" / name).read_bytes() == (tmp_path / "sidecars" / name).read_bytes()


def test_the_sitter_is_drawn_alone_on_different_backgrounds_without_captions(tmp_path: Path) -> None:
    scenes = draw_sitter(tmp_path, count=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00.png", "01.png", "02.png"]
    assert all([thing.kind for thing in scene.things] == [SITTER] for scene in scenes)
    assert len({scene.background for scene in scenes}) == 3


def test_there_is_a_sitter_alone_for_each_background() -> None:
    assert {scene.background for scene in sitters_alone(3)} == set(BACKGROUNDS)
    assert not [scene for scene in sitters_alone(3) if scene.things[0].size == "small"]


def test_more_sitters_than_backgrounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are 8 backgrounds"):
        draw_sitter(tmp_path, count=9)

from __future__ import annotations

from pathlib import Path

from PIL import Image

from limner.builtin.drawings import SIDE, draw_folder
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

from __future__ import annotations

import random
import re

from limner.builtin.world import HELD_OUT_STYLE, STYLES, caption, scene_at
from limner.builtin.world.vocabulary import vocabulary


def words_of(count: int, styles: tuple[str, ...]) -> set[str]:
    texts = (
        caption(
            scene_at(11, position, "test" if position % 2 else "train", styles), random.Random(position), complete=True
        )
        for position in range(count)
    )
    return {word for text in texts for word in re.findall(r"[^\s,]+", text)}


def test_every_word_of_the_captions_is_known_and_no_other() -> None:
    found = words_of(2000, STYLES)
    assert found <= set(vocabulary())
    assert set(vocabulary()) - found == set()


def test_the_words_of_the_held_out_style_are_unknown() -> None:
    new = words_of(200, (HELD_OUT_STYLE,)) - set(vocabulary())
    assert new == {"stained", "glass", "window"}


def test_words_stand_once_and_in_order() -> None:
    assert list(vocabulary()) == sorted(set(vocabulary()))

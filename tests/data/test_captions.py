from __future__ import annotations

from collections import Counter

from limner.data.captions import draw_caption

CAPTIONS = ["a", "b", "c", "d", "e"]


def test_each_caption_is_drawn_equally_often() -> None:
    drawn = Counter(draw_caption(CAPTIONS, seed=0, position=p, dropout=0.0) for p in range(5000))
    assert set(drawn) == set(CAPTIONS)
    assert all(abs(count - 1000) < 150 for count in drawn.values())


def test_dropout_empties_its_share_and_leaves_the_other_draws_alone() -> None:
    plain = [draw_caption(CAPTIONS, seed=0, position=p, dropout=0.0) for p in range(5000)]
    dropped = [draw_caption(CAPTIONS, seed=0, position=p, dropout=0.1) for p in range(5000)]
    empty = sum(caption == "" for caption in dropped)
    assert 400 < empty < 600
    assert all(new in ("", old) for old, new in zip(plain, dropped, strict=True))
    assert {draw_caption(["a"], seed=0, position=p, dropout=1.0) for p in range(50)} == {""}

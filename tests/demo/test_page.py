from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from limner.builtin.scoring import Share
from limner.demo.judging import Goal, Judged, Verdict
from limner.demo.page import Measure, Page, Pair, in_words, percent, render
from limner.page import data_uri
from tests.elements import Elements

NASTY = """<script>alert("&'1")</script>"""


def picture(colour: str, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, colour)


def page(text: str = "words") -> Page:
    before = Judged((Verdict(text, False),), text)
    after = Judged((Verdict(text, True),), text)
    return Page(
        title=text,
        about=text,
        pairs=(Pair(text, text, 3, picture("red"), picture("blue"), (before, after)),),
        measures=(Measure(text, Share(1, 24), Share(21, 24), Goal(least=0.85, under_before=0.1)),),
        pictures=(picture("green", (300, 200)),),
        ledger=((text, text),),
        losses=(0.5, 0.4, 0.3),
        settings=((text, text),),
        files=((text, text),),
        commands=((text, text),),
    )


def test_every_text_is_escaped() -> None:
    html = render(page(NASTY))
    assert "<script" not in html
    found = Elements(html)
    assert "script" not in {tag for tag, _ in found.elements}
    assert "".join(found.texts).count(NASTY) >= 15
    assert any(NASTY in (attributes.get("alt") or "") for _, attributes in found.elements)


def test_the_page_needs_no_network_and_no_script() -> None:
    html = render(page())
    for tag, attributes in Elements(html).elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", html))


def test_the_pictures_inside_are_those_that_were_given() -> None:
    sources = [attributes["src"] or "" for tag, attributes in Elements(render(page())).elements if tag == "img"]
    images = [Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) for source in sources]
    thumbnail, before, after = images
    assert thumbnail.size == (128, 85)
    assert [image.tobytes() for image in (before, after)] == [picture("red").tobytes(), picture("blue").tobytes()]
    assert data_uri(picture("red")) in sources


def test_the_numbers_are_those_of_the_shares() -> None:
    text = "".join(Elements(render(page())).texts)
    for share, shown in ((Share(1, 24), "4 %"), (Share(21, 24), "88 %")):
        low, high = share.interval()
        assert f"{shown}{share.right} of {share.asked} 95 % interval: {100 * low:.0f} to {100 * high:.0f} %" in text


def test_the_goal_is_reached_only_where_both_shares_are_where_they_should_be() -> None:
    goal = Goal(least=0.85, under_before=0.1)
    assert goal.text() == "from under 10 % to at least 85 %"
    assert goal.reached(Share(0, 20), Share(17, 20))
    assert not goal.reached(Share(2, 20), Share(17, 20))
    assert not goal.reached(Share(0, 20), Share(16, 20))
    most = Goal(most=0.1)
    assert most.text() == "at most 10 %"
    assert most.reached(Share(20, 20), Share(2, 20))
    assert not most.reached(Share(20, 20), Share(3, 20))


def test_what_failed_is_said_in_words_too() -> None:
    missed = replace(page().measures[0], after=Share(2, 24))
    text = " ".join("".join(Elements(render(replace(page(), measures=(missed,)))).texts).split())
    assert "not reached: from under 10 %" in text
    assert "✗wrong: words" in text
    assert "✓right: words" in text


def test_a_page_without_a_judge_says_so_and_has_no_verdicts() -> None:
    own = page()
    html = render(replace(own, measures=(), pairs=tuple(replace(pair, judged=None) for pair in own.pairs)))
    text = "".join(Elements(html).texts)
    assert "Nobody has judged these" in text
    assert "Nobody has judged these" not in "".join(Elements(render(own)).texts)
    assert not re.search(r"[✓✗]|interval", text.partition("Nobody")[2])


def test_pictures_stand_under_their_headings() -> None:
    first = page().pairs[0]
    pairs = tuple(replace(first, section=section) for section in ("one", "one", "two"))
    html = render(replace(page(), pairs=pairs))
    assert html.index("<h2>one</h2>") < html.index("<article>") < html.index("<h2>two</h2>")
    assert html.count("<h2>one</h2>") == 1
    assert html.count("<article>") == 3


@pytest.mark.parametrize(
    ("right", "asked", "shown"),
    [(0, 300, "0 %"), (300, 300, "100 %"), (299, 300, "99 %"), (1, 300, "1 %"), (1, 8, "12 %")],
)
def test_whole_percents_never_round_to_none_or_all(right: int, asked: int, shown: str) -> None:
    assert percent(Share(right, asked)) == shown
    assert f"{right} of {asked}" in in_words(Share(right, asked))

"""The page: whole, safe, and the slider moves what it should."""

from __future__ import annotations

import re
from dataclasses import replace

from PIL import Image

from limner.core.intervals import Change
from limner.report.evidence import HELD_OUT, LEARNED
from limner.report.page import Beside, Page, Pair, render
from limner.report.scores import CALLED, OTHERS, Score
from limner.report.verdict import judge, recommend
from tests.elements import Elements
from tests.report.test_verdict import evidence

NASTY = """<script>alert("&'1")</script>"""


def picture(colour: str, side: int = 16) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def page(side: int = 16) -> Page:
    row = (evidence(10), evidence(20, held_out=0.2))
    return Page(
        run=NASTY,
        model=NASTY,
        shown=10,
        pairs=(
            Pair("recipe", NASTY, 0, picture("red", side), picture("green", side)),
            Pair("unrelated", "a boat", 1, picture("blue", side), picture("white", side)),
        ),
        result=row,
        verdicts=tuple(judge(one) for one in row),
        recommendation=recommend(row),
        scores=(
            Score("CLIP score", NASTY, CALLED, 20.0, 21.0, Change(1.0, 0.5, 1.5, 12), 12),
            Score("likeness", NASTY, OTHERS, 0.5, 0.51, Change(0.01, -0.5, 0.5, 12), 12),
        ),
        left_out=((NASTY, NASTY),),
        beside=Beside(NASTY, 0.9, NASTY, ((picture("red"), picture("blue"), 0.95, True),)),
        by_timestep={name: {LEARNED: (0.1, 0.2), HELD_OUT: (0.3, 0.4)} for name in ("base", "step_000010")},
        drift={"step_000010": {"recipe": 0.25, "unrelated": 0.01}},
        steps=((1, 0.5, 1e-3), (2, 0.25, 1e-4)),
        seconds=130.0,
        pictures=(picture("red"),),
        ledger=((NASTY, NASTY),),
        settings=((NASTY, NASTY),),
        environment=((NASTY, NASTY),),
    )


def test_every_text_is_escaped_and_every_element_closed() -> None:
    html = render(page())
    assert "<script" not in html
    found = Elements(html)
    assert "".join(found.texts).count(NASTY) == 15
    assert sum(NASTY in (attributes.get("alt") or "") for _, attributes in found.elements) == 2


def test_the_page_needs_no_network_and_its_only_script_moves_a_slider() -> None:
    html = render(page())
    for tag, attributes in Elements(html).elements:
        assert tag not in ("script", "link", "iframe", "object")
        scripts = {name: value for name, value in attributes.items() if name.startswith("on") or name == "href"}
        assert scripts in ({}, {"oninput": "this.parentNode.style.setProperty('--seen',this.value+'%')"})
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", html))


def test_the_numbers_and_what_to_keep_stand_there() -> None:
    text = "".join(Elements(render(page())).texts)
    for words in (
        "Keep step 10: good",
        "step 20: overtrained",
        "-0.1000",
        "0.5000 before, 0.4000 after",
        "0.2000 before; pictures: held out",
        "Pixels moved by 25.0 %",
        "2 in 2 min",
        "0.4000",
        "+1.000 +0.500 to +1.500",
        "+0.010 -0.500 to +0.500within the noise",
        "0.950: a copy",
        "Above a likeness of 0.900",
    ):
        assert words in text


def test_without_a_good_checkpoint_the_base_is_kept() -> None:
    bad = (evidence(10, learned=0.0),)
    found = replace(page(), result=bad, verdicts=(judge(bad[0]),), recommendation=recommend(bad))
    assert "Keep the base model: undertrained" in "".join(Elements(render(found)).texts)


def test_a_large_picture_is_made_smaller() -> None:
    html = render(page(side=700))
    assert "image/jpeg" in html
    assert len(html) < 200_000

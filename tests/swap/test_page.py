from __future__ import annotations

import base64
import io
import re
from html import unescape

import pytest
from PIL import Image

from limner.evaluation.hidden_states import LARGEST_MOVE, POSITIONS, Gauge, LayerMove
from limner.swap.page import Column, Page, layer_plot, render, spread
from tests.elements import Elements

NASTY = """<script>alert("&'1")</script>"""


def gauge(moved: float) -> Gauge:
    layers = ("embeddings", "layer 1", "read by the pipeline")
    return Gauge(NASTY, ("a", "b"), tuple(LayerMove(name, dict.fromkeys(POSITIONS, moved)) for name in layers))


def picture(colour: str, side: int = 16) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def page(side: int = 16) -> Page:
    return Page(
        model=NASTY,
        encoder=NASTY,
        prompts=((NASTY, 3),),
        columns=(
            Column("the model's own", None, (picture("red", side),), ()),
            Column("blend 0.5", gauge(LARGEST_MOVE / 2), (picture("green", side),), (0.125,)),
            Column("blend 1", gauge(LARGEST_MOVE * 2), (picture("blue", side),), (0.25,)),
        ),
        proposed=0.5,
        settings=((NASTY, NASTY),),
        commands=((NASTY, NASTY),),
    )


def test_every_text_is_escaped() -> None:
    html = render(page())
    assert "<script" not in html
    found = Elements(html)
    assert "".join(found.texts).count(NASTY) >= 8
    assert sum(NASTY in (attributes.get("alt") or "") for _, attributes in found.elements) == 3


def test_the_page_needs_no_network_and_no_script() -> None:
    html = render(page())
    for tag, attributes in Elements(html).elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", html))


@pytest.mark.parametrize(("side", "shown", "kind"), [(16, 16, "PNG"), (300, 300, "JPEG"), (700, 512, "JPEG")])
def test_the_pictures_inside_are_those_that_were_given(side: int, shown: int, kind: str) -> None:
    found = [attributes["src"] or "" for tag, attributes in Elements(render(page(side))).elements if tag == "img"]
    images = [Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) for source in found]
    assert [image.format for image in images] == [kind] * 3
    assert {image.size for image in images} == {(shown, shown)}
    main = [max(range(3), key=lambda band, one=image: one.convert("RGB").getpixel((5, 5))[band]) for image in images]
    assert main == [0, 1, 2]


def test_numbers_and_verdicts_stand_at_their_blend() -> None:
    text = " ".join("".join(f" {part} " for part in Elements(render(page())).texts).split())
    assert "blend 0.5 5.0 % within it 12.5 %" in text
    assert "blend 1 20.0 % beyond the bound 25.0 %" in text
    assert "pixels differ by 25.0 %" in text
    assert text.count("read by the pipeline") == 2
    assert text.count("layer first token words end token padding all tokens embeddings 5.0 %") == 1
    assert text.count("layer first token words end token padding all tokens embeddings 20.0 %") == 1
    assert "{" not in render(page()).partition("</style>")[2]
    assert "The commands have blend 0.5" in text


def test_the_plot_has_a_line_for_each_blend_and_higher_is_further() -> None:
    svg = layer_plot([("blend 0.5", [0.0, 0.01, 0.05]), ("blend 1", [0.0, 0.1, 0.4])])
    lines = [
        [float(point.partition(",")[2]) for point in line.split()] for line in re.findall(r'points="([^"]*)"', svg)
    ]
    assert [len(line) for line in lines] == [3, 3]
    assert lines[0][0] == lines[1][0]
    assert lines[1][2] < lines[0][2] < lines[0][0]
    assert all(0 <= y <= 280 for line in lines for y in line)
    assert "blend 1: 40.0 % in the last layer" in unescape(svg)
    assert layer_plot([("blend 0", [0.0])])


def test_labels_do_not_overlap() -> None:
    assert spread([100, 200, 10], apart=26) == [100, 200, 10]
    moved = spread([100, 100, 90], apart=26)
    assert sorted(moved) == [48, 74, 100]

"""What is done to captions, and in which order."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.data.caption_tools import AS_WRITTEN, Captions, CaptionTools, caption_rows
from limner.data.captions import draw_caption
from limner.data.example import BytesImage, Example, Role
from limner.data.ledger import Prepared
from limner.data.prompts import has_word

ODD = " a cat ,,on a  mat,\tred "


def tools(trigger_word: str | None = None, **options: Any) -> CaptionTools:
    return CaptionTools(Captions(**options), trigger_word)


def read(chosen: CaptionTools, caption: str, count: int = 1, role: Role = "instance", seed: int = 0) -> list[str]:
    return [chosen.read(caption, role=role, seed=seed, position=position) for position in range(count)]


def prepared(*captions: str, role: Role = "instance", name: str = "a.png") -> Prepared:
    return Prepared(Example(name, BytesImage(b""), captions, role=role), "", (64, 64), (64, 64))


# ----------------------------------------------------------------------------------------------------------- tags
def test_a_caption_that_no_tool_changes_stays_byte_for_byte() -> None:
    assert read(AS_WRITTEN, ODD, 3) == [ODD] * 3
    assert read(tools(shuffle_tags=True, tag_dropout=0.9, keep_first=3), ODD, 50) == [ODD] * 50
    assert set(read(tools(shuffle_tags=True), "b,a", 200)) == {"b,a", "a, b"}
    assert set(read(tools(tag_dropout=0.5), " b,a", 200)) == {" b,a", "a", "b"}


def test_every_order_of_the_tags_comes_equally_often() -> None:
    drawn = Counter(read(tools(shuffle_tags=True), "a, b, c", 6000))
    assert set(drawn) == {", ".join(order) for order in permutations("abc")}
    assert all(abs(count - 1000) < 130 for count in drawn.values())


def test_each_tag_is_dropped_with_its_probability_and_the_first_ones_never() -> None:
    drawn = read(tools(tag_dropout=0.3, keep_first=1), "a, b, c, d", 4000)
    assert all(caption.startswith("a") for caption in drawn)
    for tag in "bcd":
        assert abs(sum(tag not in caption for caption in drawn) / 4000 - 0.3) < 0.03
    pairs = sum("b" not in caption and "c" not in caption for caption in drawn)
    assert abs(pairs / 4000 - 0.09) < 0.02  # each on its own


def test_dropping_never_empties_a_caption() -> None:
    drawn = Counter(read(tools(tag_dropout=0.999), "a, b, c", 3000))
    assert set(drawn) == {"a", "b", "c"} | {tag for tag in drawn if "," in tag}
    assert all(drawn[tag] > 800 for tag in "abc")
    assert set(read(tools(tag_dropout=0.999), "alone ", 100)) == {"alone "}


def test_the_first_tags_stay_in_front_while_the_others_are_shuffled() -> None:
    drawn = set(read(tools(shuffle_tags=True, keep_first=2, separator=";"), "x y;b;c;d,e", 300))
    assert drawn == {"x y;b;c;d,e", "x y; b; d,e; c"}


def test_one_tool_switched_on_moves_no_draw_of_the_other() -> None:
    caption = "a, b, c, d, e, f"
    both = read(tools(shuffle_tags=True, tag_dropout=0.5), caption, 300)
    shuffled = read(tools(shuffle_tags=True), caption, 300)
    thinned = read(tools(tag_dropout=0.5), caption, 300)
    for one, order, left in zip(both, shuffled, thinned, strict=True):
        assert one.split(", ") == [tag for tag in order.split(", ") if tag in left]
    plain = [draw_caption(["x", "y", "z"], seed=3, position=p, dropout=0.2) for p in range(300)]
    tagged = [
        draw_caption(["x", "y", "z"], seed=3, position=p, dropout=0.2, tools=tools(prefix="-")) for p in range(300)
    ]
    assert tagged == [f"-{caption}" if caption else "" for caption in plain]


def test_a_visit_reads_the_same_whenever_it_comes_and_another_seed_reads_otherwise() -> None:
    chosen = tools(shuffle_tags=True, tag_dropout=0.2)
    caption = "a, b, c, d, e, f"
    assert read(chosen, caption, 40) == read(chosen, caption, 60)[:40]
    assert read(chosen, caption, 40) != read(chosen, caption, 40, seed=1)


# --------------------------------------------------------------------------------------------- trigger word, frame
def test_the_tools_act_in_the_order_that_is_promised() -> None:
    chosen = tools(
        "zwx", prefix="<", suffix=">", add_trigger_word=True, shuffle_tags=True, tag_dropout=0.4, keep_first=1
    )
    drawn = read(chosen, "a,b,c,d", 400)
    pattern = re.compile(r"<zwx, a((, [bcd]){0,3}|,b,c,d)>")
    assert all(pattern.fullmatch(caption) for caption in drawn)
    assert {"<zwx, a>", "<zwx, a,b,c,d>"} < set(drawn)


def test_a_trigger_word_whose_tag_was_dropped_is_put_back() -> None:
    chosen = tools("zwx", add_trigger_word=True, tag_dropout=0.5)
    drawn = read(chosen, "red, Zwx on a hill, blue", 200)
    assert {"zwx, red", "zwx, blue", "red, Zwx on a hill"} < set(drawn)
    assert all(has_word(caption, "zwx") for caption in drawn)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog", "zwx a dog"),
        ("a ZWX dog", "a ZWX dog"),
        ("zwx", "zwx"),
        ("zwxy dogs", "zwx zwxy dogs"),
        ("azwx", "zwx azwx"),
        ("a dog (zwx).", "a dog (zwx)."),
        ("", "zwx"),
    ],
)
def test_the_trigger_word_is_put_before_captions_that_lack_it_as_a_word(caption: str, expected: str) -> None:
    assert read(tools("zwx", add_trigger_word=True), caption) == [expected]


def test_a_trigger_word_may_be_made_of_signs() -> None:
    assert has_word("a<zwx>b", "<zwx>")
    assert not has_word("a zwx b", "<zwx>")
    assert has_word("a photo of C++.", "c++")


def test_class_pictures_are_not_called_by_the_trigger_word() -> None:
    chosen = tools("zwx", add_trigger_word=True, prefix="a drawing of ")
    assert read(chosen, "a dog", role="class") == ["a drawing of a dog"]
    assert read(chosen, "a dog") == ["a drawing of zwx a dog"]
    with_word = tools("zwx", prefix="a drawing of zwx, ")
    caption_rows(with_word, [prepared("a dog")], seed=0)
    with pytest.raises(UserError, match=r"captions\.prefix: has the trigger word 'zwx'"):
        caption_rows(with_word, [prepared("a dog"), prepared("a dog", role="class")], seed=0)


def test_a_caption_that_is_dropped_whole_stays_empty() -> None:
    chosen = tools("zwx", prefix="a ", suffix=" z", add_trigger_word=True, shuffle_tags=True)
    drawn = {draw_caption(["b, c"], seed=0, position=p, dropout=0.5, tools=chosen) for p in range(100)}
    assert drawn == {"", "a zwx, b, c z", "a zwx, c, b z"}
    assert {draw_caption(["b"], seed=0, position=p, dropout=1, tools=chosen) for p in range(20)} == {""}


# ---------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_first": 1}, "keep_first does nothing without shuffle_tags or tag_dropout"),
        ({"separator": ";"}, "separator does nothing without shuffle_tags or tag_dropout"),
        ({"separator": "", "shuffle_tags": True}, "is empty"),
        ({"separator": ", ", "shuffle_tags": True}, "begins or ends with a blank"),
        ({"prefix": "a photo of"}, "prefix 'a photo of' would run into the caption"),
        ({"suffix": "in red"}, "suffix 'in red' would run into the caption"),
        ({"tag_dropout": 1.0}, "less than 1"),
        ({"keep_first": -1, "shuffle_tags": True}, "greater than or equal to 0"),
    ],
)
def test_options_that_do_nothing_or_harm_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Captions(**options)


def test_a_trigger_word_that_cannot_be_added_is_a_conflict() -> None:
    added = Captions(add_trigger_word=True, prefix="Zwx, ")
    assert added.conflicts(None) == ["captions.add_trigger_word: there is no trigger_word to add. Set trigger_word."]
    assert "captions.prefix has 'zwx' already" in added.conflicts("zwx")[0]
    assert added.conflicts("other") == []
    assert "holds the separator" in Captions(add_trigger_word=True, shuffle_tags=True).conflicts("a, b")[0]
    assert Captions().conflicts(None) == []


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"shuffle_tags": True}, "shuffle_tags"),
        ({"tag_dropout": 0.1}, "tag_dropout"),
        ({"tag_dropout": 0.1, "shuffle_tags": True, "keep_first": 1}, "shuffle_tags"),
        ({"tag_dropout": 0.1, "separator": ";", "keep_first": 2}, "tag_dropout"),
    ],
)
def test_tag_tools_that_would_change_no_caption_are_refused(options: dict[str, Any], key: str) -> None:
    captions = ["a dog on a hill", "one;two"] if key == "tag_dropout" else ["a dog", "one, "]
    with pytest.raises(UserError, match=rf"captions\.{key}: would change nothing: no caption has enough tags"):
        caption_rows(tools(**options), [prepared(*captions)], seed=0)


# ------------------------------------------------------------------------------------------------ what people see
def test_the_rows_show_a_caption_as_it_is_read() -> None:
    chosen = tools("zwx", add_trigger_word=True, shuffle_tags=True, keep_first=1, suffix=", drawing")
    rows = dict(caption_rows(chosen, [prepared("a, b, zwx"), prepared("a", "b, c, d, e")], seed=0))
    assert rows["tags"] == "1 to 4 in a caption; of 3 captions 2 shuffled"
    assert rows["trigger word"] == "'zwx' is put before 2 of 3 captions"
    first = chosen.read("a, b, zwx", role="instance", seed=0, position=0)
    assert rows["a caption reads"] == f"{first!r}, and stands in the data as 'a, b, zwx'"
    assert caption_rows(AS_WRITTEN, [prepared("a, b")], seed=0) == []


def test_no_visit_reads_more_than_the_longest_forms_of_a_caption() -> None:
    def words(caption: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]+", caption))

    chosen = tools("zwx", add_trigger_word=True, shuffle_tags=True, tag_dropout=0.2, prefix="( ", suffix=" ) end")
    for caption in ("a,b,c d,e", "a b zwx,c", "no tags at all", "a),(b,c", "a zwx;b,", "x, zwx"):
        forms = chosen.longest(Example("a", BytesImage(b""), (caption,)))
        counts = [words(one) for one in read(chosen, caption, 300)]
        assert max(counts) == max(map(words, forms)), caption


def test_a_held_out_picture_reads_its_first_caption_framed_and_its_tags_as_written() -> None:
    tools = CaptionTools(
        Captions(prefix="a drawing, ", suffix=", ink", add_trigger_word=True, shuffle_tags=True, tag_dropout=0.9), "zwx"
    )
    example = Example("a.png", BytesImage(b""), ("red, hill, sea", "another"))
    assert tools.fixed(example) == "a drawing, zwx, red, hill, sea, ink"
    assert AS_WRITTEN.fixed(example) == "red, hill, sea"

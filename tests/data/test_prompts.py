"""Captions made from words."""

from __future__ import annotations

import pytest

from limner.data.prompts import article, check_template, fill


@pytest.mark.parametrize(("noun", "expected"), [("airplane", "an"), ("Otter", "an"), ("dog", "a"), ("", "a")])
def test_the_article_goes_by_the_first_letter(noun: str, expected: str) -> None:
    assert article(noun) == expected


def test_a_word_that_looks_like_a_place_is_not_filled_again() -> None:
    assert fill("{a} and {b}", {"a": "{b}", "b": "x"}) == "{b} and x"


def test_a_bracket_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="curly bracket without its partner"):
        check_template("{a} }", allowed={"a"}, required=set(), name="prompt")

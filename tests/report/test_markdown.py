"""A user's text inside Markdown, read by another program."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from limner.report.markdown import plain, table

READER = MarkdownIt("commonmark").enable("table")
HOSTILE = (
    "<script>alert('x')</script> & &lt; &#124;",
    "a | b \\| c \\\\| d",
    "![x](y) [link](javascript:alert(1)) <https://e.org> *b* __b__ ~~s~~ `code` ``` $$x$$",
    "# title\n---\n- item\n| a | b |\n\n    code",
    "---\nlicense: mit\n---",
    "\\`*_{}[]<>#+-.!|~$&",
    'ein Häuschen, 日本 🦊 in the sea: it\'s "old"',
    "a\x00b\u2028c\x85d\u200fe",
)


def words(tokens: list) -> str:  # type: ignore[type-arg]
    return "".join(one.content for token in tokens for one in token.children or () if one.type.startswith("text"))


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_read_back_as_one_line_of_text_and_nothing_else(text: str) -> None:
    shown = " ".join("".join(" " if ord(sign) < 32 or sign in "\x85\u2028" else sign for sign in text).split())
    tokens = READER.parse(f"# x {plain(text)}\n\n**x** {plain(text)}\n\n{table(['a', 'b'], [[plain(text), 'z']])}\n")
    kinds = [token.type for token in tokens if token.level == 0 and not token.type.endswith("close")]
    assert kinds == ["heading_open", "paragraph_open", "table_open"]
    inside = {one.type for token in tokens for one in token.children or ()} - {"text", "text_special"}
    assert inside <= {"strong_open", "strong_close"}
    cells = [words([token]) for token in tokens if token.type == "inline"]
    assert cells == [f"x {shown}", f"x {shown}", "a", "b", shown, "z"]


def test_a_text_of_plain_words_stays_as_it_is() -> None:
    assert plain("a photo of Rex, my dog (2019)!") == "a photo of Rex, my dog (2019)!"

"""A page of pictures with words and numbers: one HTML file with thumbnails inside, no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import UserError
from limner.core.rundir import write_atomic
from limner.page import shown, smaller

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 224


@dataclass(frozen=True)
class Card:
    """One picture, and what is said of it."""

    picture: Image
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Pictures under one heading."""

    title: str
    about: str
    cards: tuple[Card, ...]


def write_page(
    path: Path, title: str, about: str, rows: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Writes the page, whole or not at all; whatever stands in captions and names is text, never markup."""
    table = "".join(f'<tr><th scope="row">{escape(label)}</th><td>{escape(value)}</td></tr>' for label, value in rows)
    among = sum(len(section.cards) for section in sections)
    body = "\n".join(_section(section, among) for section in sections)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)} · Limner</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p></header>\n"
        f"<table><tbody>{table}</tbody></table>\n{body}\n</main>\n</body>\n</html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be written: {error.strerror}.", where="--page", fix="Name another file."
        ) from None


def _section(section: Section, among: int) -> str:
    cards = "".join(_card(card, among) for card in section.cards)
    about = f"<h2>{escape(section.title)}</h2><p>{escape(section.about)}</p>"
    return f'<section>{about}<div class="cards">{cards}</div></section>'


def _card(card: Card, among: int) -> str:
    small = smaller(card.picture, THUMBNAIL)
    source = shown(small, side=THUMBNAIL, among=among, as_it_is=0)
    lines = "".join(f"<p>{escape(line)}</p>" for line in card.lines)
    return (
        f'<article><img src="{source}" width="{small.width}" height="{small.height}" alt="">'
        f"<h3>{escape(card.title)}</h3>{lines}</article>"
    )


_CSS = """
:root{--ground:#f6f4ef;--card:#fffdf8;--ink:#23201b;--soft:#6a6459;--line:#ddd6c8}
@media(prefers-color-scheme:dark){:root{--ground:#17181b;--card:#212327;--ink:#ebe7df;--soft:#a8a298;--line:#3a3c42}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:1480px;margin:0 auto;padding:clamp(16px,3vw,48px)}
h2{font-size:1.3rem;margin:2em 0 .3em}
header p,section>p,article p{color:var(--soft);margin:.2em 0}
table{border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.4em 1em .4em 0;border-bottom:1px solid var(--line);font-weight:400}
th{color:var(--soft);white-space:nowrap}
.cards{display:grid;gap:16px;margin-top:.8em;grid-template-columns:repeat(auto-fill,minmax(min(100%,256px),1fr))}
article{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;font-size:.92rem}
h3{font-size:1rem;margin:.6em 0 .3em}
img{display:block;max-width:100%;height:auto;border-radius:8px}
"""

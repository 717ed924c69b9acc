"""The page of ``limner grid``: each table with its sides in sight, then what was asked for, in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from limner.grid.sheet import Shown, Table
from limner.page import Rows, data_uri, document, header, smaller, table

_LARGE, _SMALL, _FEW = 512, 256, 64
"""Longest side of the pictures in the page where they are few, and where they are many."""
_AS_PNG = 256


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    target: str
    about: str
    """What all pictures have alike, in one line."""
    tables: tuple[Table, ...]
    prompts: tuple[str, ...]
    notes: tuple[str, ...]
    settings: Rows


def render(page: Page) -> str:
    """Returns the page as HTML."""
    pictures = sum(len(row) for one in page.tables for row in one.pictures)
    side = _LARGE if pictures <= _FEW else _SMALL
    tables = [_section(one, number, side) for number, one in enumerate(page.tables, start=1)]
    title = f"Grid of {page.target}"
    return document(title, [header(title, page.about), _notes(page.notes), *tables, _made(page)], css=_CSS)


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<section><ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul></section>'


def _section(one: Table, number: int, side: int) -> str:
    name = one.title or "The pictures"
    named = any(one.rows)
    head = "".join(f'<th scope="col"><span>{escape(column)}</span></th>' for column in one.columns)
    corner = "<td></td>" if named else ""
    columns = f"<thead><tr>{corner}{head}</tr></thead>" if any(one.columns) else ""
    rows = "".join(
        f"<tr>{_row_name(row) if named else ''}{''.join(_picture(shown, side) for shown in pictures)}</tr>"
        for row, pictures in zip(one.rows, one.pictures, strict=True)
    )
    return (
        f'<section class="wide"><h2 id="table{number}">{escape(name)}</h2>'
        f'<div class="grid" role="region" tabindex="0" aria-labelledby="table{number}">'
        f"<table>{columns}<tbody>{rows}</tbody></table></div></section>"
    )


def _row_name(row: str) -> str:
    return f'<th scope="row"><span>{escape(row)}</span></th>'


def _picture(shown: Shown, side: int) -> str:
    image = smaller(shown.image, side)
    source = data_uri(image, "PNG" if max(image.size) <= _AS_PNG else "JPEG")
    return (
        f'<td><a href="{escape(shown.file)}"><img src="{source}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(shown.words)}" title="{escape(shown.words)}"></a></td>'
    )


def _made(page: Page) -> str:
    prompts = "".join(f"<li>{escape(prompt) or '(no words)'}</li>" for prompt in page.prompts)
    return (
        f"<section><h2>Prompts</h2><ol>{prompts}</ol></section>"
        f"<section><h2>How it was made</h2>{table(page.settings)}</section>"
    )


_CSS = """
.grid{overflow:auto;width:fit-content;max-width:100%;max-height:92vh;border:1px solid var(--line);
border-radius:12px;background:var(--card)}
.grid table{width:auto;border-collapse:separate;border-spacing:0}
.grid th,.grid td{border:0;padding:5px;font-size:.88rem;line-height:1.35}
.grid th{color:var(--ink);background:var(--card);font-weight:600;white-space:normal}
.grid th span{overflow-wrap:break-word;display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:5;
overflow:hidden}
.grid thead th,.grid thead td{position:sticky;top:0;z-index:1;background:var(--card);vertical-align:bottom}
.grid tbody th{position:sticky;left:0;padding-left:10px}
.grid tbody th span{width:max-content;max-width:clamp(6.2em,22vw,12em)}
.grid thead td{left:0;z-index:2}
.grid img{display:block;width:clamp(132px,17vw,256px);height:auto;border-radius:6px;background:var(--tint)}
.notes li{padding:.2em 0;color:var(--soft)}
"""

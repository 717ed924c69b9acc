"""The commands caption, search and score: CLIP and captioning models used on their own."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown

_CLIP = "A CLIP model: a Hub id, a transformers folder, or the folder of a run. Unset: openai/clip-vit-base-patch32."

Pictures = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of pictures.", show_default=False)]
Model = Annotated[str | None, typer.Option(help=_CLIP, show_default=False)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub model.", show_default=False)]
Page = Annotated[Path | None, typer.Option(help="Write an HTML page with thumbnails here.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")]


class Written(StrEnum):
    """Where captions go."""

    sidecars = "sidecars"
    table = "table"


def caption(
    pictures: Pictures,
    model: Annotated[
        str | None,
        typer.Option(
            help="A BLIP, BLIP-2 or GIT model: a Hub id or a transformers folder. Unset: "
            "Salesforce/blip-image-captioning-base. With --rank: a CLIP model, as in limner search.",
            show_default=False,
        ),
    ] = None,
    revision: Revision = None,
    write: Annotated[
        Written, typer.Option(help="photo.txt beside photo.jpg (sidecars), or metadata.jsonl (table).")
    ] = Written.sidecars,
    prompt: Annotated[str, typer.Option(help="What the model is told before it writes; no part of the caption.")] = "",
    beams: Annotated[
        int | None, typer.Option(help="Captions followed at once while searching for the best. Unset: 3.", min=1)
    ] = None,
    rank: Annotated[
        Path | None,
        typer.Option(help="Captions or tags, one per line: a CLIP model chooses among them.", show_default=False),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Around a candidate while ranking, as 'a photo of {tag}'; several are averaged."),
    ] = None,
    best: Annotated[
        int | None, typer.Option(help="With --rank: so many at most, with commas. Unset: 1.", min=1)
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="With --rank: only those with this score (100 x cosine) or more.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Text before each caption, exactly as written.")] = "",
    trigger: Annotated[
        str | None, typer.Option(help="A word put at the beginning of captions that lack it.", show_default=False)
    ] = None,
    max_words: Annotated[int | None, typer.Option(help="Longer captions are cut after so many words.", min=1)] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write captions that are there anew; copies are kept as NAME.bak.")
    ] = False,
    device: Device = "auto",
    json_lines: Json = False,
) -> None:
    """Write captions for the pictures of a folder that have none."""
    from limner.console import JsonProgress

    with shown(json_lines) as progress:
        from limner.reading.captioning import caption as write_captions

        result = write_captions(
            pictures,
            model=model,
            revision=revision,
            rank=rank,
            templates=template or [],
            best=best,
            above=above,
            prompt=prompt,
            beams=beams,
            write=write.value,
            prefix=prefix,
            trigger=trigger,
            max_words=max_words,
            replace=replace,
            device=device,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            for line in result.lines:
                progress.event("row", dataclasses.asdict(line))
            progress.event("result", result.as_dict())
        else:
            progress.say(f"{result.sentence()}; the ledger is {result.ledger}")
            for line in result.lines:
                if line.outcome == "captioned":
                    print(f"{line.id}: {line.caption}")  # the result: on standard output


def search(
    pictures: Pictures,
    queries: Annotated[
        list[str] | None, typer.Argument(help="What to look for, in quotation marks; several may be given.")
    ] = None,
    like: Annotated[
        list[Path] | None, typer.Option(help="A picture: find those like it; several may be given.")
    ] = None,
    model: Model = None,
    revision: Revision = None,
    top: Annotated[int, typer.Option(help="Pictures per query.", min=1)] = 10,
    page: Page = None,
    device: Device = "auto",
    json_lines: Json = False,
) -> None:
    """Find pictures by words, or by another picture; the second search in a folder is quick."""
    from limner.console import JsonProgress

    with shown(json_lines) as progress:
        from limner.reading.embedding import DEFAULT_CLIP
        from limner.reading.searching import search as find

        result = find(
            pictures,
            queries or [],
            like=like or [],
            model=model or DEFAULT_CLIP,
            revision=revision,
            top=top,
            page=page,
            device=device,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", result.as_dict())
            return
        progress.say(f"{result.pictures:,} pictures, {result.embedded:,} of them embedded now, the others remembered")
        for found in result.found:
            print(found.query)
            for hit in found.hits:
                print(f"{hit.similarity:7.3f}  {hit.path}")
        if page is not None:
            print(page)


def score(
    data: Annotated[
        Path, typer.Argument(metavar="DIR_OR_RECIPE", help="Captioned pictures: a folder, or a recipe's dataset.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the recipe's: dataset.path=photos")
    ] = None,
    model: Model = None,
    revision: Revision = None,
    worst: Annotated[int, typer.Option(help="How many of the worst-matching pairs to list.", min=0)] = 20,
    page: Page = None,
    device: Device = "auto",
    json_lines: Json = False,
) -> None:
    """Check captions: how well each fits its picture, and which pairs fit worst."""
    from limner.console import JsonProgress

    with shown(json_lines) as progress:
        from limner.reading.embedding import DEFAULT_CLIP
        from limner.reading.scoring import score as compare
        from limner.reading.scoring import sentence

        result = compare(
            data,
            overrides or [],
            model=model or DEFAULT_CLIP,
            revision=revision,
            worst=worst,
            page=page,
            device=device,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", result.as_dict(worst))
            return
        progress.table("captions", result.rows())
        for pair in result.pairs[:worst]:
            print(f"{pair.score:7.2f}  {pair.id}: {pair.caption!r}\n         {sentence(pair)}")
        if page is not None:
            print(page)

"""The command grid: pictures in tables, one setting along each side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")]


def grid(
    target: Annotated[str, typer.Argument(help="A run folder, or a model as in generate --model.", show_default=False)],
    x: Annotated[
        str,
        typer.Option(
            help="Columns: NAME=VALUE,VALUE with checkpoint, weight, guidance, steps, seed, scheduler; "
            "checkpoint alone is all that are kept; prompt alone is those of --prompt."
        ),
    ] = "",
    y: Annotated[str, typer.Option(help="Rows, as --x.")] = "",
    z: Annotated[str, typer.Option(help="A table for each value, as --x.")] = "",
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to draw; several may be given. Unset: those of a run's samples.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="PATH or PATH:WEIGHT on a model; the weight along a side is that of the one without."),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(help="Step of a run's checkpoint, or base; unset: the one that was exported, else the newest."),
    ] = "",
    weight: Annotated[str, typer.Option(help="Weight of the adapter in all pictures; unset: 1.")] = "",
    seed: Annotated[str, typer.Option(help="Seed of all pictures; unset: that of a run's samples, else 0.")] = "",
    steps: Annotated[str, typer.Option(help="Denoising steps; unset: as in a run's samples, else 30.")] = "",
    guidance: Annotated[str, typer.Option(help="Guidance scale; unset: as in a run's samples, else 7.5.")] = "",
    scheduler: Annotated[
        str, typer.Option(help="Sampler, as ddim, euler_a; unset: that of a run's samples, else the model's own.")
    ] = "",
    negative: Annotated[
        str | None, typer.Option(help="What the pictures should not show; unset: as in a run's samples.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT in pixels; unset: as a run's samples, else the model's.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page, the image and the pictures; unset: RUN/grid.")
    ] = None,
    json_lines: Json = False,
) -> None:
    """Draw a grid: checkpoint x prompt, adapter weight x guidance, base and tuned x seeds; an image and a page."""
    from limner.console import JsonProgress
    from limner.grid import grid as draw_grid

    fixed = {"checkpoint": checkpoint, "weight": weight, "seed": seed, "steps": steps, "guidance": guidance}
    fixed["scheduler"] = scheduler
    with shown(json_lines) as progress:
        found = draw_grid(
            target,
            x=x,
            y=y,
            z=z,
            prompts=prompt or [],
            adapters=adapter or [],
            fixed={name: text for name, text in fixed.items() if text},
            negative=negative,
            size=size,
            device=device,
            out=out,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", found.as_dict())
        else:
            print(found.page)  # the result: on standard output

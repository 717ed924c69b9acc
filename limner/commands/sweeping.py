"""The command sweep: a recipe trained with several values of its settings, and the runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown

FAILED, STOPPED = 1, 128


def sweep(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML); see recipes/.", show_default=False)],
    settings: Annotated[
        list[str],
        typer.Argument(
            help="Settings with their values: seed=1,2,3 method.rank=4,16. Commas part values; a list is one value in "
            "brackets, key=[a,b]; a value that has a comma is quoted, key='\"red, blue\",green'. One value is for all "
            "runs. out=FOLDER holds all of them.",
            show_default=False,
        ),
    ],
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")
    ] = False,
) -> None:
    """Train a recipe with every combination of settings, one run after another: means, spreads, and a page.

    The same command goes on where it was stopped. Runs that differ in seed alone are averaged. Ends with 1 where a run
    failed.
    """
    from limner.console import JsonProgress
    from limner.sweep import sweep as sweep_recipe

    with shown(json_lines) as progress:
        found = sweep_recipe(recipe, settings, progress=progress)
        if isinstance(progress, JsonProgress):
            progress.event("result", found.as_dict())
        elif found.interrupted is not None:
            progress.say(f"stopped; the same command goes on: {found.command()}")
        else:
            progress.say(found.standing())
        if not json_lines:
            print(found.page)  # the result: on standard output
    if found.interrupted is not None:
        raise typer.Exit(STOPPED + found.interrupted)
    if found.failed:
        raise typer.Exit(FAILED)

"""The command export: the files of any checkpoint of a run, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown
from limner.core.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    step: Annotated[
        int | None, typer.Option(help="Step of a checkpoint; unset: the newest, for the Hub the report's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the files; unset: RUN/export.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps; empty: the run's own.")] = "",
    push_to_hub: Annotated[
        str, typer.Option(help="OWNER/NAME on the Hub: the files, the model card and its pictures are uploaded there.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="Everybody may see what --push-to-hub uploads.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")
    ] = False,
) -> None:
    """Write a checkpoint's files for other programs, each read back and compared, and upload them if you say so."""
    from limner.console import JsonProgress
    from limner.exporting import export_checkpoint
    from limner.publishing import publish

    with shown(json_lines) as progress:
        if public and not push_to_hub:
            raise UserError("does nothing without --push-to-hub.", where="--public", fix="Leave it out.")
        if push_to_hub:
            address = publish(run, push_to_hub, step=step, public=public, out=out, device=device, progress=progress)
            if isinstance(progress, JsonProgress):
                progress.event("result", {"uploaded": address})
            else:
                print(address)  # the result: on standard output
            return
        found = export_checkpoint(run, step, out=out, device=device, progress=progress)
        if isinstance(progress, JsonProgress):
            files = [{"path": str(one.path), "max_error": one.max_error} for one in found]
            progress.event("result", {"exports": files})
        else:
            for one in found:
                print(one.path)  # the result: on standard output

"""The commands compare, measure, blend and swap: a tuned model beside its base, in numbers and in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")]


def compare(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    step: Annotated[
        list[int] | None, typer.Option(help="Step of a checkpoint; several may be given. Unset: all that are kept.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to draw beside the recipe's samples; several may be given.")
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page, the pictures and report.json; unset: RUN/report.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps; empty: the run's own.")] = "",
    json_lines: Json = False,
) -> None:
    """Compare a run's base model with its checkpoints: losses, pictures, what it came to, which one to keep."""
    from limner.console import JsonProgress
    from limner.report import compare as compare_run

    with shown(json_lines) as progress:
        found = compare_run(
            run,
            steps=step or [],
            prompts=prompt or [],
            count=count,
            out=out,
            device=device,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", found.as_dict())
        else:
            progress.table("what it came to", found.rows())
            print(found.page)  # the result: on standard output


def measure(
    target: Annotated[str, typer.Argument(help="A run folder, or a CLIP model as in model.path.", show_default=False)],
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe whose metrics are measured; unset: the run's own.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Name of a metric; several may be given. Unset: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a run's measurements.json and plots; unset: none.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_lines: Json = False,
) -> None:
    """Measure a CLIP model, or a run before and after, with a recipe's metrics and their intervals."""
    from limner.console import JsonProgress
    from limner.measuring import measure as measure_target

    with shown(json_lines) as progress:
        found = measure_target(target, recipe=recipe, names=metric or [], device=device, out=out, progress=progress)
        if isinstance(progress, JsonProgress):
            progress.event("result", found.as_dict())


def blend(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run of CLIP.", show_default=False)],
    shares: Annotated[str, typer.Option(help="Shares of the tuned weights, separated by commas.")] = (
        "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    ),
    write: Annotated[float | None, typer.Option(help="Also write the model of this share.", min=0, max=1)] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Name of a metric; several may be given. Unset: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for table, curve and model; unset: RUN/blend.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_lines: Json = False,
) -> None:
    """Measure a run's model between base and tuned weights, draw the curve, and propose the best share."""
    from limner.blend_curve import blend as blend_run
    from limner.blend_curve import parse_shares
    from limner.console import JsonProgress

    with shown(json_lines) as progress:
        found = blend_run(
            run, parse_shares(shares), out=out, write=write, names=metric or [], device=device, progress=progress
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", found.as_dict())


def swap(
    model: Annotated[str, typer.Argument(help="A Hub id, a diffusers folder, a .safetensors file, a run, or builtin.")],
    text_encoder: Annotated[str, typer.Option(help="PATH or PATH:BLEND of a tuned CLIP.")],
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given several times.")],
    out: Annotated[Path, typer.Option(help="A new folder for the page and the pictures.")],
    blends: Annotated[
        str, typer.Option(help="Between the model's own (0) and the tuned one (1); empty: 0.25,0.5,1.")
    ] = "",
    negative: Annotated[str, typer.Option(help="What the pictures should not show.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of each prompt's first picture.", min=0)] = 0,
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.", min=0)] = 7.5,
    scheduler: Annotated[str, typer.Option(help="Sampler, as ddim, euler_a, dpmpp_2m; empty: the model's own.")] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels; empty: what the model was made for.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_lines: Json = False,
) -> None:
    """Draw with a model's own text encoder and with a tuned one, side by side on a page."""
    from limner.console import JsonProgress
    from limner.swap import swap as run_swap

    with shown(json_lines) as progress:
        result = run_swap(
            model,
            text_encoder=text_encoder,
            prompts=prompt,
            out=out,
            blends=blends,
            negative=negative,
            seed=seed,
            count=count,
            steps=steps,
            guidance=guidance,
            scheduler=scheduler,
            size=size,
            device=device,
            progress=progress,
        )
        if isinstance(progress, JsonProgress):
            progress.event("result", result.as_dict())
        else:
            for title, rows in result.tables():
                progress.table(title, rows)
            for purpose, command in result.commands:
                progress.say(f"  # {purpose}\n  {command}")
            print(result.page)  # the result: on standard output

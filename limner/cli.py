"""The command line. Nothing heavy is imported before a command needs it: --help answers at once."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner import __version__
from limner.commands import comparing, exporting, gridding, making, reading, sweeping
from limner.commands.shown import shown as _progress
from limner.core.errors import UserError

if TYPE_CHECKING:
    from limner.run import RunResult

WRONG_USE, STOPPED = 2, 128

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune text-to-image models on your own pictures, and prove what changed.",
)

Recipe = Annotated[Path, typer.Argument(help="A recipe (YAML); see recipes/.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that replace the recipe's: train.steps=500", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines instead of bars and tables.")]


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest whole checkpoint.")] = False,
    json_lines: Json = False,
) -> None:
    """Fine-tune a model: limner train RECIPE.yaml [key=value ...]"""
    from limner.config import load_recipe
    from limner.console import JsonProgress

    with _progress(json_lines) as progress:
        config, origins = load_recipe(recipe, overrides or [])
        from limner.run import finetune

        result = finetune(config, resume=resume, progress=progress, origins=origins)
        if isinstance(progress, JsonProgress):
            progress.event("result", result.as_dict())
        elif result.interrupted is not None:
            progress.say(f"stopped at step {result.step} of {result.steps}; continue with --resume")
        else:
            progress.say(f"done: {result.out}, {result.step} steps, the prediction moved by {result.change:.2g}")
            if result.report is not None:
                progress.table("what it came to", result.report.rows())
                progress.say(f"before and after: {result.report.page}")
        if result.validation is not None and not isinstance(progress, JsonProgress):
            progress.say(result.validation.sentence())
    _exit_if_stopped(result)


def _exit_if_stopped(result: RunResult) -> None:
    if result.interrupted is not None:
        raise typer.Exit(STOPPED + result.interrupted)


@app.command()
def check(recipe: Recipe, overrides: Overrides = None, json_lines: Json = False) -> None:
    """Show everything that can be known before training; trains nothing."""
    from limner.config import load_recipe
    from limner.console import JsonProgress

    with _progress(json_lines) as progress:
        config, _ = load_recipe(recipe, overrides or [])
        from limner.preflight import plan

        planned = plan(config, progress=progress)
        progress.table("plan", planned.rows)
        if isinstance(progress, JsonProgress):
            progress.event(
                "result", {"steps": planned.steps, "epochs": planned.epochs, "data": planned.ledger.manifest}
            )
            for row in planned.ledger.rows:
                progress.event("row", dataclasses.asdict(row))


@app.command()
def generate(
    model: Annotated[str, typer.Option(help="A Hub id, a diffusers folder, a .safetensors file, or builtin.")],
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files; nothing in it is overwritten.")],
    adapter: Annotated[
        list[str] | None, typer.Option(help="PATH or PATH:WEIGHT of a LoRA, LoHa or LoKr; several may be given.")
    ] = None,
    embedding: Annotated[
        list[str] | None, typer.Option(help="PATH or WORD=PATH of a textual inversion; several may be given.")
    ] = None,
    text_encoder: Annotated[
        str, typer.Option(help="PATH or PATH:BLEND of a tuned CLIP, whose text encoder takes the place of the model's.")
    ] = "",
    negative: Annotated[str, typer.Option(help="What the pictures should not show.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the first picture; -1 draws one.", min=-1)] = -1,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.", min=0)] = 7.5,
    scheduler: Annotated[str, typer.Option(help="Sampler, as ddim, euler_a, dpmpp_2m; empty: the model's own.")] = "",
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 1,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels; empty: what the model was made for.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json_lines: Json = False,
) -> None:
    """Draw pictures with a model and any number of adapters."""
    from limner.console import JsonProgress
    from limner.drawing import draw

    paths: list[str] = []
    with _progress(json_lines) as progress:
        for path in draw(
            model=model,
            adapters=adapter or [],
            embeddings=embedding or [],
            text_encoder=text_encoder,
            prompts=prompt,
            negative=negative,
            seed=seed,
            steps=steps,
            guidance=guidance,
            scheduler=scheduler,
            count=count,
            size=size,
            device=device,
            out=out,
            progress=progress,
        ):
            paths.append(str(path))
            if not json_lines:
                print(path)  # the result: on standard output
        if isinstance(progress, JsonProgress):
            progress.event("result", {"pictures": paths})


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A file or folder: model, LoRA, run, picture, recipe; or builtin.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a file or folder is: its kind, metadata, keys, rank and alpha. Only headers are read."""
    from limner.inspect import inspect_path

    found = inspect_path(path)
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else "\n".join(found.lines()))


@app.command()
def demo(
    photos: Annotated[
        Path | None, typer.Option(help="A folder with your pictures; unset: Limner draws a set.", show_default=False)
    ] = None,
    sitter: Annotated[
        bool, typer.Option("--sitter", help="Teach one new character (DreamBooth), not a style.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    json_lines: Json = False,
) -> None:
    """Teach the built-in model a style or a character, and write a page with the pictures before and after."""
    from limner.console import JsonProgress
    from limner.demo import demo as run_demo

    with _progress(json_lines) as progress:
        result = run_demo(out, photos=photos, sitter=sitter, progress=progress)
        if isinstance(progress, JsonProgress):
            progress.event("result", result.as_dict())
        elif result.page is not None:
            if result.measures:
                progress.table("numbers", result.numbers())
            progress.table("files", result.files)
            progress.say("next, with your own pictures:")
            for purpose, command in result.commands:
                progress.say(f"  # {purpose}\n  {command}")
            print(result.page)  # the result: on standard output
    _exit_if_stopped(result.run)


for command in (
    comparing.compare,
    comparing.measure,
    comparing.blend,
    comparing.swap,
    sweeping.sweep,
    gridding.grid,
    reading.caption,
    reading.search,
    reading.score,
    exporting.export,
):
    app.command()(command)
app.command("new-clip")(making.new_clip)


def _version(value: bool) -> None:
    if value:
        print(f"limner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before a command."""


def main() -> None:
    """The entry point: exit code 0 only when the job was done, 2 for a mistake of the user, 130 on Ctrl-C."""
    try:
        app()
    except UserError as error:
        _end(str(error))
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(WRONG_USE)

"""The command new-clip: a model to train from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.commands.shown import shown


def new_clip(
    out: Annotated[Path, typer.Argument(help="A new folder for the model.", show_default=False)],
    text: Annotated[str, typer.Option(help="The pipeline whose text encoder it gets: a folder, a Hub id, builtin.")] = (
        "builtin"
    ),
    image_size: Annotated[int, typer.Option(help="Side of the pictures that it reads, in pixels.")] = 128,
    patch_size: Annotated[int, typer.Option(help="Side of the squares that a picture is cut into.")] = 16,
    width: Annotated[int, typer.Option(help="Numbers for each square, a multiple of 32.")] = 160,
    layers: Annotated[int, typer.Option(help="Layers of the picture tower.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random weights.", min=0)] = 0,
) -> None:
    """Write a CLIP model to train from scratch: a random picture tower beside a pipeline's text encoder."""
    from limner.core.config import validate
    from limner.new_clip import PictureTower
    from limner.new_clip import new_clip as make

    with shown(json_lines=False) as progress:
        sizes = {"image_size": image_size, "patch_size": patch_size, "width": width, "layers": layers}
        model = make(out, validate(PictureTower, sizes, where="new-clip"), text=text, seed=seed)
        towers = {"picture tower": model.vision_model, "text tower": model.text_model}
        counts = {name: sum(weights.numel() for weights in tower.parameters()) for name, tower in towers.items()}
        progress.say(", ".join(f"{name} {count:,} numbers" for name, count in counts.items()))
        print(out)  # the result: on standard output

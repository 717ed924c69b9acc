"""The same prompts and seeds with a model's own text encoder and with a tuned one at each blend."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import write_atomic, write_json
from limner.drawing import load_model, parse_size
from limner.evaluation.change import pixel_change
from limner.models.schedulers import check_scheduler_name
from limner.models.text_encoder import TextEncoder, names_blend, parse_text_encoder
from limner.page import Rows
from limner.swap.page import Column, Page, render

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.evaluation.generate import GenerateRequest
    from limner.evaluation.hidden_states import Gauge
    from limner.models.sd1 import SD1Model

BLENDS = (0.25, 0.5, 1.0)
PAGE, RECORD = "index.html", "swap.json"
RECIPE = "recipes/sd1_lora_tuned_encoder.yaml"


@dataclass(frozen=True)
class Swapped:
    """What one blend came to."""

    blend: float
    gauge: Gauge
    changes: tuple[float, ...]
    """Of each picture: the mean absolute difference from the own encoder's, as a share of the range of a colour."""
    files: tuple[Path, ...]

    @property
    def change(self) -> float:
        return sum(self.changes) / len(self.changes)


@dataclass(frozen=True)
class SwapResult:
    """What the comparison came to."""

    page: Path
    own: tuple[Path, ...]
    """The pictures with the model's own text encoder."""
    swapped: tuple[Swapped, ...]
    commands: Rows
    """How to go on: what for, and the command."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON: all that is needed to hold pictures against the gauge."""
        return {
            "page": str(self.page),
            "own": [str(path) for path in self.own],
            "blends": [
                {
                    "blend": one.blend,
                    "gauge": one.gauge.as_dict(),
                    "changes": list(one.changes),
                    "pictures": [str(path) for path in one.files],
                }
                for one in self.swapped
            ],
            "commands": [command for _, command in self.commands],
        }

    def tables(self) -> list[tuple[str, Rows]]:
        """Returns the numbers as tables for people: a title and rows each."""
        from limner.evaluation.hidden_states import POSITIONS, share

        blends = [
            (f"blend {one.blend:g}", f"hidden states moved by {share(one.gauge.moved)}, pixels by {share(one.change)}")
            for one in self.swapped
        ]
        last = self.swapped[-1]
        layers = [
            (layer, ", ".join(f"{position} {value}" for position, value in zip(POSITIONS, values, strict=True)))
            for layer, *values in last.gauge.rows()
        ]
        return [("blends", blends), (f"hidden states at blend {last.blend:g}", layers)]


def swap(
    model: str,
    *,
    text_encoder: str,
    prompts: Sequence[str],
    out: Path,
    blends: str = "",
    negative: str = "",
    seed: int = 0,
    count: int = 1,
    steps: int = 30,
    guidance: float = 7.5,
    scheduler: str = "",
    size: str = "",
    device: str = "auto",
    progress: Progress | None = None,
) -> SwapResult:
    """Draws everything, and writes the page, the pictures and swap.json into ``out``, which must be new or empty.

    ``text_encoder`` is ``PATH`` or ``PATH:BLEND``, ``blends`` are numbers in [0, 1] with commas. Everything is checked
    and every blend's hidden states are measured before the first picture is drawn.
    """
    from limner.evaluation.generate import GenerateRequest
    from limner.training.precision import choose_device, choose_precision

    progress = progress or Silent()
    encoders = _encoders(text_encoder, blends)
    wanted = parse_size(size)
    check_scheduler_name(scheduler, where="--scheduler")
    _refuse_used(out)
    chosen = choose_precision("auto", choose_device(device))
    own = load_model(model, where="MODEL")
    request = GenerateRequest(
        prompts=tuple(prompts), negative=negative, seed=seed, steps=steps, guidance=guidance, scheduler=scheduler,
        count=count, size=wanted,
    )  # fmt: skip
    own.text_encoder.to(chosen.device)
    variants, gauges = _variants(own, encoders, progress)
    drawn = []
    for name, one in zip(["own", *(f"blend_{e.blend:g}" for e in encoders)], (own, *variants), strict=True):
        one.to(chosen.device, chosen.dtype)
        drawn.append(_draw(one, request, out / "pictures" / name, progress))
    columns = [Column("the model's own", None, tuple(drawn[0][1]), ())]
    swapped = []
    for encoder, gauge, (files, images) in zip(encoders, gauges, drawn[1:], strict=True):
        changes = tuple(pixel_change(a, b) for a, b in zip(drawn[0][1], images, strict=True))
        swapped.append(Swapped(encoder.blend, gauge, changes, tuple(files)))
        columns.append(Column(f"blend {encoder.blend:g}", gauge, tuple(images), changes))
    best = _proposed(swapped)
    page = Page(
        model=model,
        encoder=encoders[0].path,
        prompts=tuple((prompt, seed + n) for prompt in prompts for n in range(count)),
        columns=tuple(columns),
        proposed=best,
        settings=_settings(request, out),
        commands=_commands(model, encoders[0].path, best, prompts[0], own.default_size),
    )
    result = SwapResult(out / PAGE, tuple(drawn[0][0]), tuple(swapped), page.commands)
    write_json(out / RECORD, result.as_dict())
    write_atomic(result.page, render(page).encode())
    return result


# ------------------------------------------------------------------------------------------------- before the drawing
def _encoders(text: str, blends: str) -> list[TextEncoder]:
    """Returns the encoder at each blend, in rising order."""
    chosen = parse_text_encoder(text)
    if names_blend(text):
        if blends:
            raise UserError(
                f"{blends!r} and the blend in {text!r} say two things.", where="--blends", fix="Leave one of them out."
            )
        return [chosen]
    values = _numbers(blends) if blends else BLENDS
    return [TextEncoder(path=chosen.path, blend=value) for value in sorted(set(values))]


def _numbers(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [-1.0]
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"{text!r} are no numbers in [0, 1].", where="--blends", fix="For instance 0.25,0.5,1.")
    return values


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} is there and not empty.", where="--out", fix="Choose a new folder.")


def _variants(own: SD1Model, encoders: Sequence[TextEncoder], progress: Progress) -> tuple[list[SD1Model], list[Gauge]]:
    """Returns the model with each encoder, and how far each one's hidden states moved."""
    from limner.evaluation.hidden_states import measure_move

    variants = [own.with_text_encoder(encoder) for encoder in encoders]
    for notice in variants[0].notices:
        progress.warn(notice)
    gauges = []
    for encoder, variant in zip(encoders, variants, strict=True):
        gauges.append(measure_move(own.text_encoder, variant.text_encoder, own.tokenizer))
        warning = gauges[-1].warning() if encoder.blend > 0 else None
        if warning is not None:
            progress.warn(f"blend {encoder.blend:g}: {warning}")
    return variants, gauges


# -------------------------------------------------------------------------------------------------------- the pictures
def _draw(
    model: SD1Model, request: GenerateRequest, folder: Path, progress: Progress
) -> tuple[list[Path], list[Image]]:
    from limner.evaluation.generate import generate
    from limner.evaluation.picture import save_picture

    folder.mkdir(parents=True)
    files: list[Path] = []
    images: list[Image] = []
    total = len(request.prompts) * request.count
    for number, picture in enumerate(generate(model, request)):
        for warning in picture.warnings if folder.name == "own" else ():
            progress.warn(warning)
        files.append(save_picture(picture, folder / f"{number:02d}.png"))
        images.append(picture.image)
        progress.stage(f"pictures {folder.name}", number + 1, total)
    return files, images


# -------------------------------------------------------------------------------------------------------- how to go on
def _proposed(swapped: Sequence[Swapped]) -> float:
    """Returns the largest blend whose hidden states stay within the bound; the smallest where none does."""
    within = [one.blend for one in swapped if not one.gauge.too_far]
    return max(within, default=swapped[0].blend)


def _settings(request: GenerateRequest, out: Path) -> Rows:
    negative = [("negative prompt", request.negative)] if request.negative else []
    return (
        ("drawn with", f"{request.steps} denoising steps, guidance {request.guidance:g}, seeds from {request.seed}"),
        *negative,
        ("pictures, whole and with their settings", str(out / "pictures")),
        ("the same numbers as JSON", str(out / RECORD)),
    )


def _commands(model: str, path: str, blend: float, prompt: str, side: int) -> Rows:
    chosen = f"{path}:{blend:g}"
    draw = ["limner", "generate", "--model", model, "--text-encoder", chosen, "--prompt", prompt, "--out", "drawings"]
    train = [
        "limner", "train", RECIPE, f"model.path={model}", f"model.text_encoder.path={path}",
        f"model.text_encoder.blend={blend:g}", "dataset.path=photos", f"images.resolution={side}", "out=runs/mine",
    ]  # fmt: skip
    return (
        ("Draw with it:", shlex.join(draw)),
        ("Train a LoRA with it, on captioned pictures of yours in photos:", shlex.join(train)),
    )

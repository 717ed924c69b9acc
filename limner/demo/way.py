"""The first thing to try: a small model trained on a few pictures, from check to export, in one or two minutes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.data.auto import AutoDataset
from limner.data.folder import Folder
from limner.run import RunResult, finetune

STEPS, RESOLUTION = 60, 128
CAPTION = "a photograph"
EARLY, LATE = slice(None, 10), slice(-10, None)


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    run: RunResult
    loss_before: float
    """The mean loss of the first ten steps."""
    loss_after: float
    """The mean loss of the last ten steps."""


def demo(out: Path, *, photos: Path | None, progress: Progress) -> DemoResult:
    """Trains a small pipeline with random weights on ``photos``, or on pictures that Limner draws itself.

    The model knows nothing and a minute teaches it little: the demo shows the way from pictures to files, not art.
    Everything is written below ``out``; what an earlier demo left there is removed.
    """
    from limner.builtin.drawings import draw_folder
    from limner.builtin.untrained import save_untrained
    from limner.core.rundir import read_metrics

    if photos is not None and photos.resolve().is_relative_to(out.resolve()):
        raise UserError(
            f"{str(photos)!r} lies in {str(out)!r}, which the demo empties.", where="--photos", fix="Move it."
        )
    _clear(out)
    pictures = photos
    if pictures is None:
        pictures = out / "pictures"
        captions = draw_folder(pictures)
        progress.say(f"drew {len(captions)} pictures with captions into {pictures}")
    save_untrained(out / "model")
    progress.say(f"made a small Stable Diffusion 1.x pipeline with random weights in {out / 'model'}")
    run = finetune(_config(out, pictures, progress), progress=progress)
    losses = [line["loss"] for line in read_metrics(run.out / "metrics.jsonl")]
    return DemoResult(run, sum(losses[EARLY]) / len(losses[EARLY]), sum(losses[LATE]) / len(losses[LATE]))


def _clear(out: Path) -> None:
    marker = out / ".limner-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise UserError("is there and no demo made it.", where=str(out), fix="Choose another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()


def _config(out: Path, pictures: Path, progress: Progress) -> RunConfig:
    return RunConfig.model_validate(
        {
            "out": out / "run",
            "model": {"kind": "sd1", "path": str(out / "model")},
            "dataset": _dataset(pictures, progress),
            "images": {"resolution": RESOLUTION, "flip": True},
            "method": {"kind": "full"},
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "schedule": {"kind": "cosine", "warmup_steps": 5},
            "train": {"steps": STEPS, "batch_size": 4, "save_every": 30},
            "samples": {"prompts": ["stained glass of a red owl on a meadow"], "steps": 10},
        }
    )


def _dataset(pictures: Path, progress: Progress) -> AutoDataset | Folder:
    """Returns the data set; pictures without captions get one for all, and it is said."""
    dataset = AutoDataset(path=pictures)
    try:
        dataset.read()
    except UserError as error:
        folder = Folder(path=pictures, caption=CAPTION)
        folder.read()  # raises where the pictures themselves are the problem
        progress.warn(f"{error.what} The demo uses {CAPTION!r} for every picture.")
        return folder
    return dataset

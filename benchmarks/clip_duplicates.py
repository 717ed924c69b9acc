"""CIFAR-10 by a small CLIP from random weights: what it is worth that other pictures' captions may be right too.

    python benchmarks/clip_duplicates.py cifar-10-batches-py --out runs/clip-duplicates

trains recipes/clip_cifar10_small.yaml twice for each seed, with ``objective.positives`` as they are (duplicates) and
as other tools have them (own), everything else equal: weights, order, crops, captions. Prints the zero-shot accuracy on
the test pictures, and the difference with two 95 % intervals: over the pictures, for just these seeds (a paired
bootstrap), and over the seeds (Student's t), which is what another seed may bring. A call that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from limner.config import load_config
from limner.console import TerminalProgress
from limner.core.intervals import Change, paired_change
from limner.core.rundir import RunDir
from limner.measuring import AFTER
from limner.new_clip import PictureTower, new_clip
from limner.run import finetune

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "clip_cifar10_small.yaml"
TOWER = PictureTower(image_size=32, patch_size=4, width=128, layers=4)
POSITIVES = ("duplicates", "own")
QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""97.5 % of Student's t lie below, by number of seeds."""


def outcomes(data: Path, root: Path, *, seed: int, positives: str, steps: int, settings: Sequence[str]) -> list[float]:
    """Trains what is not trained yet; returns 1 or 0 for each test picture."""
    model, run = root / f"model-{seed}", RunDir(root / f"{positives}-{seed}")
    if not model.is_dir():
        new_clip(model, TOWER, seed=seed)
    if not (run.metrics_report / AFTER).is_file():
        metric = load_config(RECIPE).model_dump(mode="json")["metrics"][0]
        metric["dataset"]["path"] = str(data)
        own = [f"out={run.path}", f"seed={seed}", f"model.path={model}", f"dataset.path={data}", f"train.steps={steps}"]
        own += [f"objective.positives={positives}", f"metrics=[{json.dumps(metric)}]", "train.epochs=null", *settings]
        with TerminalProgress() as progress:
            finetune(load_config(RECIPE, own), resume=bool(run.checkpoint_steps()), progress=progress)
    (measured,) = json.loads((run.metrics_report / AFTER).read_bytes())
    return [float(value) for value in measured["numbers"][0]["outcomes"]]


def over_seeds(differences: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the mean of a few differences."""
    half = QUANTILE[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences) - half, statistics.mean(differences) + half


def told(change: Change, differences: Sequence[float]) -> str:
    """Returns the difference with both intervals, in points."""
    low, high = over_seeds(differences)
    return (
        f"duplicates - own: {100 * change.value:+.2f} points; over the pictures {100 * change.low:+.2f} to "
        f"{100 * change.high:+.2f}, over the seeds {100 * low:+.2f} to {100 * high:+.2f}"
    )


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="CIFAR10", help="cifar-10-batches-py")
    parser.add_argument("--out", type=Path, default=Path("runs/clip-duplicates"), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=400, help="of 128 pictures (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(QUANTILE), help="default: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    chosen = parser.parse_args()
    found: dict[str, list[list[float]]] = {name: [] for name in POSITIVES}
    for seed in range(chosen.seeds):
        for positives in POSITIVES:
            begun = time.monotonic()
            right = outcomes(
                chosen.data, chosen.out, seed=seed, positives=positives, steps=chosen.steps, settings=chosen.set
            )
            found[positives].append(right)
            print(
                f"seed {seed}, {positives}: {100 * statistics.mean(right):.2f} %, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    means = {name: [statistics.mean(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    differences = [
        statistics.mean(one) - statistics.mean(other)
        for one, other in zip(found["duplicates"], found["own"], strict=True)
    ]
    print(told(paired_change(means["own"], means["duplicates"]), differences))


if __name__ == "__main__":
    main()

"""How right the built-in model is: drawn from captions of scenes it never saw, read by the judge, told in a table.

    python -m limner.builtin_report MODEL

draws a picture for each of 1,000 captions, measures the autoencoder on the pictures of the same scenes, and writes the
table into docs/builtin.md and the first pictures, right or wrong, into docs/images/builtin.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from limner.core.errors import UserError
from limner.judged.measuring import COUNT, GUIDANCE, SEED, STEPS, measure
from limner.judged.report import PAGE, around_numbers, write_report


def main(words: Sequence[str] | None = None) -> None:
    """Measures a model and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a folder in diffusers' layout, trained on the picture world")
    parser.add_argument("--count", type=int, default=COUNT, help="captions (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of scenes, captions and noise (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="guidance scale (default: %(default)s)")
    chosen = parser.parse_args(words)
    try:
        around_numbers(chosen.out / PAGE)  # before the work, not after it
        from limner.builtin.judge import load_judge

        measured = measure(
            chosen.model,
            judge=load_judge(),
            count=chosen.count,
            seed=chosen.seed,
            steps=chosen.steps,
            guidance=chosen.guidance,
            on_progress=_print_progress,
        )
        page, sheet = write_report(measured, chosen.out)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{page}\n{sheet}")


def _print_progress(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

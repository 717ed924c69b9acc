"""What learning rate, rank, steps and method do, measured on the built-in model by its judge, for the guides.

    python -m limner.builtin_study dreambooth --write docs/guides/dreambooth.md

trains every setting of a study and draws the same prompts with each. What is done is kept below --out: the same
command goes on where it was stopped, and does nothing again. The table goes between the two markers of the page, the
plot into ../images beside the page's folder; without --write both are written below --out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from limner.console import TerminalProgress
from limner.core.errors import UserError
from limner.core.markers import around, write_between
from limner.core.rundir import write_atomic
from limner.models.weights import BUILTIN
from limner.study.grid import STUDIES, Conditions, Study
from limner.study.plot import check_plotting, plot
from limner.study.running import Measured, measure_study
from limner.study.table import as_markdown, markers

IMAGES = "images"


def write(measured: Measured, *, page: Path | None, out: Path) -> tuple[Path, Path]:
    """Writes table and plot, into the page and the folder of its pictures or below ``out``; returns both paths."""
    name = f"study_{measured.study.name}.png"
    if page is None:
        text, picture, address = out / f"{measured.study.name}.md", out / name, name
    else:
        text, picture, address = page, page.parent.parent / IMAGES / name, f"../{IMAGES}/{name}"
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(picture, plot(measured))
    markdown = as_markdown(measured, address)
    if page is None:
        write_atomic(text, markdown.encode())
    else:
        write_between(page, *markers(measured.study.name), markdown)
    return text, picture


def run(study: Study, conditions: Conditions, *, model: str, out: Path, page: Path | None) -> tuple[Path, Path]:
    """Measures a study with the judge that ships, writes it, and returns the paths of table and plot."""
    from limner.builtin.judge import load_judge
    from limner.builtin.judge.reading import WEIGHTS

    check_plotting()  # before the work, not after it
    if page is not None:
        around(page, *markers(study.name))
    if conditions.seeds < 1:
        raise UserError(
            f"{conditions.seeds} is less than 1.", where="--seeds", fix="Diversity needs 2, the bars ask 3."
        )
    judge = load_judge()
    with TerminalProgress() as progress:
        measured = measure_study(
            study,
            conditions,
            root=out,
            model=model,
            judge=judge,
            judge_hash=hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
            progress=progress,
        )
    return write(measured, page=page, out=out)


def main(words: Sequence[str] | None = None) -> None:
    """Runs one study."""
    parser = argparse.ArgumentParser(
        prog="python -m limner.builtin_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", metavar="NAME", choices=sorted(STUDIES), help=", ".join(sorted(STUDIES)))
    parser.add_argument("--model", default=BUILTIN, help="a model of the picture world (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="what is kept (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=Conditions.prompts, help="of each sort (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=Conditions.seeds, help="of each prompt (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the guide page that gets the table")
    chosen = parser.parse_args(words)
    conditions = Conditions(prompts=chosen.prompts, seeds=chosen.seeds)
    try:
        paths = run(STUDIES[chosen.study], conditions, model=chosen.model, out=chosen.out, page=chosen.write)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    main()

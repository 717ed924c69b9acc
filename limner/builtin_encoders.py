"""What tuned text encoders do to retrieval and to the pictures, measured on the picture world by its judge.

    python -m limner.builtin_encoders builtin before=CLIP tuned=OTHER_CLIP --pictures runs/builtin/distinct

Every CLIP is a run of CLIP or a folder of transformers' CLIPModel; the first has the pipeline's own text encoder. How
well each finds the pictures of a table by their captions, and they them, stands beside what the judge sees when its
text encoder reads the captions for the pipeline: the same captions and noise for all, so differences are paired.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.scoring import Aspect, Score
from limner.console import TerminalProgress
from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.intervals import Change, paired_change
from limner.core.markers import around, write_between
from limner.core.naming import public_name
from limner.core.progress import Progress
from limner.evaluation.hidden_states import measure_move, share
from limner.evaluation.measurement import Number
from limner.judged.measuring import GUIDANCE, SEED, STEPS, Drawn
from limner.study.table import markers

if TYPE_CHECKING:
    from limner.builtin.judge import Judge
    from limner.evaluation.retrieval import Retrieval

STUDY = "text_encoders"
"""The name in the markers of a page."""
COLUMNS: Mapping[Aspect, str] = {
    "thing": "things",
    "colour": "in their colours",
    "count": "number",
    "background": "background",
    "style": "style",
}


@dataclass(frozen=True)
class Row:
    """One text encoder."""

    name: str
    moved: float
    """Relative distance of the hidden states that the pipeline reads from those of its own text encoder."""
    found: Number
    """R@1, the mean of both ways."""
    scores: tuple[Score, ...]
    """Of each picture, in the order of the captions."""

    def outcomes(self, aspect: Aspect) -> list[float]:
        """Returns what share of each picture is right; for all of :data:`COLUMNS` each picture is asked."""
        return [right / asked for right, asked in (one.counts()[aspect] for one in self.scores)]

    def overall(self) -> list[float]:
        """Returns the mean of all :data:`COLUMNS`, of each picture."""
        return [sum(several) / len(COLUMNS) for several in zip(*map(self.outcomes, COLUMNS), strict=True)]


def measure_encoders(
    model: str,
    clips: Mapping[str, str],
    *,
    pictures: Path,
    judge: Judge,
    count: int,
    seed: int = SEED,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    progress: Progress,
) -> tuple[Row, ...]:
    """Returns a row for each of ``clips``, names with their folders, on the CPU.

    Raises UserError where the first has another text encoder than the pipeline, or one does not fit.
    """
    from limner.models.clip import Clip, exported_clip
    from limner.models.sd1 import SD1
    from limner.models.text_encoder import TextEncoder

    own = validate(SD1, {"path": model}, where="MODEL").load()
    folders = {name: str(exported_clip(Path(path)) or path) for name, path in clips.items()}
    variants = {name: own.with_text_encoder(TextEncoder(path=path)) for name, path in folders.items()}
    moves = {
        name: measure_move(own.text_encoder, variant.text_encoder, own.tokenizer).moved
        for name, variant in variants.items()
    }
    first = next(iter(clips))
    if moves[first] != 0:
        raise UserError(
            f"has another text encoder than {model}: the states that it reads moved by {share(moves[first])}.",
            where=first,
            fix="Name first a CLIP model whose text encoder is the pipeline's own; the others are compared with it.",
        )
    metric = _retrieval(pictures)
    rows = []
    for name, variant in variants.items():
        found = metric.measure(Clip(path=folders[name]).load()).numbers[0]
        drawn = Drawn(variant, count, seed, steps, guidance)
        judged = drawn.judged(judge, lambda _, done, total, name=name: progress.stage(name, done, total))  # type: ignore[misc]
        rows.append(Row(name, moves[name], found, tuple(one for _, one in judged)))
    return tuple(rows)


def _retrieval(pictures: Path) -> Retrieval:
    from limner.data.table import Table
    from limner.evaluation.retrieval import Retrieval

    metric = Retrieval(dataset=Table(path=pictures), name="pictures")
    metric.survey()  # raises before any work for data that cannot be measured
    return metric


# ------------------------------------------------------------------------------------------------------------- telling
def as_markdown(rows: Sequence[Row], command: str) -> str:
    """Returns the table; in brackets the difference to the first row with its 95 % interval, in points."""
    first = rows[0]
    lines = [
        f"`{command}`",
        "",
        f"| text encoder | states moved | R@1, {len(first.found.outcomes):,} pictures | all five | "
        f"{' | '.join(COLUMNS.values())} |",
        "| --- |" + " ---: |" * (3 + len(COLUMNS)),
    ]
    for row in rows:
        pairs = [(first.found.outcomes, row.found.outcomes), (first.overall(), row.overall())]
        pairs += [(first.outcomes(aspect), row.outcomes(aspect)) for aspect in COLUMNS]
        cells = [_cell(base, own, alone=row is first) for base, own in pairs]
        lines.append(f"| {row.name} | {share(row.moved)} | {' | '.join(cells)} |")
    lines += [
        "",
        f"*R@1*: the mean of both ways. The rest is what the judge sees in {len(first.scores):,} pictures of held-out "
        "captions, the same captions and noise in all rows; *all five* is the mean of the columns behind it. In "
        "brackets: the difference to the first row in points with its 95 % interval, a paired bootstrap over pictures.",
        "",
    ]
    return "\n".join(lines)


def _cell(base: Sequence[float], own: Sequence[float], *, alone: bool) -> str:
    value = f"{100 * sum(own) / len(own):.1f} %"
    return value if alone else f"{value} ({_points(paired_change(base, own))})"


def _points(change: Change) -> str:
    return f"{100 * change.value:+.1f}: {100 * change.low:+.1f} to {100 * change.high:+.1f}"


def main(words: Sequence[str] | None = None) -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(
        prog="python -m limner.builtin_encoders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a pipeline of the picture world, or builtin")
    parser.add_argument("clips", metavar="NAME=CLIP", nargs="+", help="the first has the pipeline's text encoder")
    parser.add_argument("--pictures", type=Path, required=True, metavar="TABLE", help="pictures with captions to find")
    parser.add_argument("--count", type=int, default=300, help="pictures that are drawn (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page that gets the table; unset: printed")
    chosen = parser.parse_args(words)
    try:
        clips = dict(_named(text) for text in chosen.clips)
        if chosen.count < 1 or len(clips) < len(chosen.clips):
            raise UserError("--count is at least 1, and every CLIP has a name of its own.")
        if chosen.write is not None:
            around(chosen.write, *markers(STUDY))  # before the work, not after it
        from limner.builtin.judge import load_judge

        with TerminalProgress() as progress:
            rows = measure_encoders(
                chosen.model,
                clips,
                pictures=chosen.pictures,
                judge=load_judge(),
                count=chosen.count,
                progress=progress,
            )
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    named = shlex.join(f"{name}={public_name(path)}" for name, path in clips.items())
    command = f"python -m limner.builtin_encoders {public_name(chosen.model)} {named} --count {chosen.count}"
    text = as_markdown(rows, f"{command} --pictures {public_name(str(chosen.pictures))}")
    if chosen.write is None:
        print(text)
    else:
        write_between(chosen.write, *markers(STUDY), text)
        print(chosen.write)


def _named(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise UserError(f"{text!r} is no NAME=CLIP.", where="CLIP", fix="Write for instance tuned=runs/clip.")
    return name, path


if __name__ == "__main__":
    main()

"""What a run came to, in one word and one sentence, and which of its checkpoints to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from limner.core.intervals import Change
from limner.report.evidence import HELD_OUT, Compared, Evidence, Worth

LEAST_LEARNED = 0.01
"""By how much of the base model's loss the loss on the pictures that were learned from must have fallen.

A few tiny steps lower the loss of every picture a little: by 0.01 % in six steps of a LoRA on the built-in model, where
thirty full ones made 10 %. Such a change is beyond the noise, and is nothing.
"""
Name = Literal["good", "undertrained", "overtrained", "captions do not fit", "not shown"]


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one checkpoint."""

    name: Name
    reason: str
    advice: str


@dataclass(frozen=True)
class Recommendation:
    """Which checkpoint to keep; None: the base model."""

    step: int | None
    verdict: Verdict
    """Of that checkpoint; of the last one where none is kept."""
    reason: str


def judge(evidence: Evidence) -> Verdict:
    """Returns the first of these that the evidence shows, each beyond the noise (95 % intervals of paired changes):

    what was learned from is not known better than by the base, and by :data:`LEAST_LEARNED` (undertrained); a held-out
    picture's own caption is worth no more than another's (captions do not fit); pictures that were held out are known
    worse than by the base, or than by an earlier checkpoint (overtrained); they are known better (good). Otherwise
    nothing is shown of other pictures than those that were learned from.
    """
    learned, held_out, worth = evidence.learned, evidence.held_out, evidence.worth
    if not learned.fell or -learned.change.value < LEAST_LEARNED * learned.base:
        return Verdict(
            "undertrained",
            f"the loss on the pictures that it learned from is not {100 * LEAST_LEARNED:g} % below the base model's "
            f"({_told(learned)})",
            "Train longer, or with a higher optimizer.lr.",
        )
    if worth is not None and worth.part == HELD_OUT and not worth.shown:
        return Verdict(
            "captions do not fit",
            f"to pictures that were held out their own captions are worth no more than those of others "
            f"({told_worth(worth)}): they do not fit, or say nothing that tells the pictures apart",
            "Look at the captions beside the pictures; limner score lists those that fit worst.",
        )
    if held_out is None:
        return Verdict(
            "not shown",
            f"it knows its own pictures better ({_told(learned)}); whether others too is not known, for none was held "
            "out",
            "Set validation.share in the recipe to hold some out.",
        )
    if held_out.rose:
        return Verdict(
            "overtrained",
            f"it knows its own pictures better ({_told(learned)}) and others worse ({_told(held_out)}): it learned "
            "by heart",
            "Keep an earlier checkpoint, train shorter, or with more pictures.",
        )
    since = evidence.since_best
    if since is not None and since.held_out.rose:
        return Verdict(
            "overtrained",
            f"pictures that were held out are known worse than at step {since.step} ({_told(since.held_out)}): since "
            "then it has learned by heart",
            f"Keep step {since.step}, train shorter, or with more pictures.",
        )
    if held_out.fell:
        return Verdict(
            "good",
            f"the loss on pictures that were held out fell ({_told(held_out)})",
            "Look at the pictures: the loss says that it learned, not that you like it.",
        )
    return Verdict(
        "not shown",
        f"it knows its own pictures better ({_told(learned)}); on those that were held out the change is within the "
        f"noise ({_told(held_out)})",
        "Hold out more pictures, or train longer.",
    )


def recommend(row: Sequence[Evidence]) -> Recommendation:
    """Returns the checkpoint to keep: of the good ones, or else of those of which nothing is shown, that with the
    lowest loss on what was held out, or where nothing was, the last. ``row`` is in the order of the steps.
    """
    verdicts = {evidence.step: judge(evidence) for evidence in row}
    for name in ("good", "not shown"):
        able = [evidence for evidence in row if verdicts[evidence.step].name == name]
        if not able:
            continue
        held = [(one.held_out.tuned, one.step) for one in able if one.held_out is not None]
        step = min(held)[1] if held else able[-1].step
        why = "the lowest loss on held-out pictures" if held else "the last one; no loss on other pictures tells more"
        last = verdicts[row[-1].step]
        later = f"; the last, step {row[-1].step}: {last.name}" if last.name not in ("good", "not shown") else ""
        return Recommendation(step, verdicts[step], f"step {step}: {why}{later}")
    last = verdicts[row[-1].step]
    return Recommendation(
        None, last, f"the base model: no checkpoint is better; the last, step {row[-1].step}: {last.name}"
    )


def _told(compared: Compared) -> str:
    return f"{compared.base:.4f} to {compared.tuned:.4f}, {told_change(compared.change)}"


def told_worth(worth: Worth) -> str:
    """Returns '0.1307 (0.0511 to 0.2302), with the base model 0.1685 (0.0690 to 0.2877)'."""
    tuned, base = (f"{value:.4f} ({low:.4f} to {high:.4f})" for value, low, high in (worth.tuned, worth.base))
    return f"{tuned}, with the base model {base}"


def told_change(change: Change) -> str:
    """Returns '-0.0123 (-0.0200 to -0.0051)', and says so where it is within the noise."""
    text = f"{change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f})"
    return f"{text}, within the noise" if change.within_noise else text

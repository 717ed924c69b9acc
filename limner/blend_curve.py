"""Weights between base and tuned (WiSE-FT, arXiv:2109.01903): measured, drawn, and the best of them proposed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import load_config
from limner.core.errors import UserError
from limner.core.intervals import Change, paired_change
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir, write_atomic, write_json
from limner.evaluation.kept import measure_or_take
from limner.evaluation.measurement import Measurement, percent, points
from limner.evaluation.plotting import MISSING, CurvePoint, can_plot, curve_plot
from limner.export.result import ExportResult, compare, staged, write_record
from limner.measuring import chosen_metrics, measure_one, models_of_run
from limner.models.blending import blended
from limner.models.probe import probe_dual_encoder
from limner.training.environment import describe_environment
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor

    from limner.evaluation import Metric
    from limner.models.clip import ClipModel

SHARES = tuple(number / 10 for number in range(11))
TABLE, CURVE, MEASURED = "blend.json", "curve.png", "measured"


# ----------------------------------------------------------------------------------------------------- what is proposed
@dataclass(frozen=True)
class Blend:
    """What one share of the tuned weights came to, against the base on the same pictures."""

    share: float
    target: Change
    """Of the first number of the target metric."""
    guards: tuple[Change, ...] = ()
    """Of the first number of each guard metric."""


@dataclass(frozen=True)
class Proposal:
    """A share, and why it and no other."""

    share: float
    reason: str


def propose(blends: Sequence[Blend]) -> Proposal:
    """Returns the share of the largest gain on the target among those that lose nothing on any guard.

    A share loses on a guard if its change there is below 0 and not within the noise. A gain counts if it is above 0 and
    not within the noise; where no share is left that gains, it is 0, the base. Of equal gains it is the smaller share.
    """
    allowed = [blend for blend in blends if not any(_loses(guard) for guard in blend.guards)]
    gaining = [blend for blend in allowed if blend.target.value > 0 and not blend.target.within_noise]
    guarded = "no guard was measured, so forgetting does not show"
    if any(blend.guards for blend in blends):
        guarded = "no guard loses more than the noise"
    if not gaining:
        beyond = any(blend.target.value > 0 and not blend.target.within_noise for blend in blends)
        why = "every share that gains on the target loses on a guard" if beyond else "no share gains beyond the noise"
        return Proposal(0.0, f"{why}: the base model")
    best = min(gaining, key=lambda blend: (-blend.target.value, blend.share))
    return Proposal(best.share, f"the largest gain on the target, {points(best.target)}; {guarded}")


def _loses(guard: Change) -> bool:
    return guard.value < 0 and not guard.within_noise


# -------------------------------------------------------------------------------------------------------- the command
@dataclass(frozen=True)
class BlendResult:
    """What ``limner blend`` found and wrote."""

    out: Path
    proposal: Proposal
    shares: tuple[float, ...]
    written: ExportResult | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        written = (
            None if self.written is None else {"path": str(self.written.path), "max_error": self.written.max_error}
        )
        return {
            "out": str(self.out),
            "shares": list(self.shares),
            "proposed": self.proposal.share,
            "reason": self.proposal.reason,
            "written": written,
        }


def blend(
    run: str | Path,
    shares: Sequence[float] = SHARES,
    *,
    out: Path | None = None,
    write: float | None = None,
    names: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> BlendResult:
    """Measures a run's metrics at every share of the tuned weights, 0 always among them, and proposes one.

    The first metric that is no guard is the target. blend.json and curve.png go into ``out``, by default RUN/blend;
    with ``write`` the model of that share goes there too, as a CLIPModel folder that is read back and compared. What
    is measured is kept in ``out`` at once, so that a call that was stopped goes on with the next one.
    """
    progress = progress or Silent()
    folder = out or Path(run) / "blend"
    wanted = sorted({0.0, *shares})
    if not all(0 <= share <= 1 for share in (*wanted, write or 0.0)):
        raise UserError("a share is in [0, 1].", where="--shares", fix="0 is the base, 1 the tuned model.")
    config = load_config(RunDir(Path(run)).config) if RunDir(Path(run)).status.is_file() else None
    if config is None:
        raise UserError(f"{str(run)!r} is no run folder.", where="RUN", fix="Name the folder of a finished run.")
    metrics = chosen_metrics(config, names, where=str(run))
    targets = [metric.title for metric in metrics if not metric.guard]
    if not targets:
        raise UserError("all metrics are guards.", where="metrics", fix="Add one that shows what was to be learned.")
    base, tuned = models_of_run(Path(run), device)
    told = _told(base, tuned)
    weights = (_weights(base), _weights(tuned))
    between = functools.partial(_blended, *weights, run=Path(run))
    measured = _measure_shares(base, between, wanted, metrics, (folder / MEASURED, told), progress)
    blends = [_against_base(share, measured, targets[0]) for share in wanted]
    proposal = propose(blends)
    _tell(folder, measured, blends, proposal, targets[0], progress)
    written = None
    if write is not None:
        _put(base, weights[0])
        written = write_model(base, between(write), folder / f"model_{write:g}", str(run))
        progress.say(f"{written.path}: read back by {written.reader}, largest difference {written.max_error:.1e}")
    return BlendResult(folder, proposal, tuple(wanted), written)


def _told(base: ClipModel, tuned: ClipModel) -> dict[str, Any]:
    """Returns all that decides what a metric says of a blend, but for its share and the metric itself."""
    return {
        "base": base.identity(),
        "tuned": tuned.identity(),
        "preprocessing": dataclasses.asdict(base.preprocessing),
        "environment": describe_environment(Precision("fp32", base.logit_scale.device)),
    }


def _measure_shares(
    model: ClipModel,
    between: Callable[[float], Mapping[str, Tensor]],
    shares: Sequence[float],
    metrics: Sequence[Metric],
    kept: tuple[Path, Mapping[str, Any]],
    progress: Progress,
) -> dict[float, dict[str, Measurement]]:
    """Returns what each metric says of ``model`` with the weights of each share, by the metric's name.

    Each measurement is kept, in the folder and with what decides its numbers, as soon as it is made; what is kept there
    of an earlier call is not measured again.
    """
    folder, told = kept
    folder.mkdir(parents=True, exist_ok=True)
    shown = [(metric, metric.survey().content) for metric in metrics]

    def measure(share: float, metric: Metric) -> Measurement:
        _put(model, between(share))
        return measure_one(model, metric, progress, f"share {share:g}")

    measured, taken = {}, 0
    for share in shares:
        path, of_share = folder / f"share_{float(share)!r}.json", {**told, "share": share}
        found, known = measure_or_take(path, of_share, shown, functools.partial(measure, share))
        measured[share] = {one.metric: one for one in found}
        taken += known
    if taken:
        progress.say(f"{taken} of {len(shares) * len(shown)} measurements are those of an earlier call, in {folder}")
    return measured


def parse_shares(text: str) -> tuple[float, ...]:
    """Returns the numbers of '0,0.5,1'."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} is no list of numbers.", where="--shares", fix="For instance 0,0.5,1.") from None


def _weights(model: ClipModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.network.state_dict().items()}


def _put(model: ClipModel, weights: Mapping[str, Tensor]) -> None:
    model.network.load_state_dict(dict(weights))


def _blended(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float, *, run: Path) -> dict[str, Tensor]:
    try:
        return blended(base, tuned, share)
    except ValueError as error:
        raise UserError(
            f"base and tuned model are built differently: {error}.",
            where=str(run),
            fix="Only runs whose model has the base's tensors can be blended.",
        ) from None


def _against_base(share: float, measured: Mapping[float, Mapping[str, Measurement]], target: str) -> Blend:
    changes = {
        name: paired_change(measured[0.0][name].numbers[0].outcomes, one.numbers[0].outcomes)
        for name, one in measured[share].items()
    }
    guards = tuple(change for name, change in changes.items() if measured[share][name].guard)
    return Blend(share, changes[target], guards)


def _tell(
    folder: Path,
    measured: Mapping[float, Mapping[str, Measurement]],
    blends: Sequence[Blend],
    proposal: Proposal,
    target: str,
    progress: Progress,
) -> None:
    """Writes blend.json and the curve, and prints a row for each share."""
    guard = next((name for name, one in measured[0.0].items() if one.guard), None)
    shares = [
        {
            "share": blend.share,
            "metrics": {name: one.summary()["numbers"] for name, one in measured[blend.share].items()},
            "target_change": _as_dict(blend.target),
            "guard_changes": [_as_dict(change) for change in blend.guards],
        }
        for blend in blends
    ]
    first = {name: one.numbers[0].name for name, one in measured[0.0].items()}
    proposed = {"share": proposal.share, "reason": proposal.reason}
    values = {"target": target, "guard": guard, "compared": first, "shares": shares, "proposed": proposed}
    write_json(folder / TABLE, values)
    for name, one in measured[0.0].items():
        role = "guard" if one.guard else "target" if name == target else "metric"
        rows = [(f"share {share:g}", _cell(of[name])) for share, of in measured.items()]
        progress.table(f"{role} {name}: {first[name]}, {one.pictures:,} pictures", rows)
    progress.say(
        f"proposed: share {proposal.share:g}, {proposal.reason}. It was chosen on the pictures that it was "
        "measured on: measure it on others before you tell its numbers."
    )
    if not can_plot():
        progress.warn(MISSING)
        return
    curve = [
        CurvePoint(share, _triple(of[target]), None if guard is None else _triple(of[guard]))
        for share, of in measured.items()
    ]
    names = f"{target}, {first[target]}", None if guard is None else f"{guard}, {first[guard]}"
    write_atomic(folder / CURVE, curve_plot(curve, proposal.share, *names))


def _as_dict(change: Change) -> dict[str, Any]:
    return {
        "value": change.value,
        "low": change.low,
        "high": change.high,
        "changed": change.changed,
        "within_noise": change.within_noise,
    }


def _cell(measurement: Measurement) -> str:
    number = measurement.numbers[0]
    return percent(number.value, (number.low, number.high))


def _triple(measurement: Measurement) -> tuple[float, float, float]:
    number = measurement.numbers[0]
    return number.value, number.low, number.high


# ---------------------------------------------------------------------------------------------------------- writing
def write_model(model: ClipModel, weights: Mapping[str, Tensor], folder: Path, run: str) -> ExportResult:
    """Writes the folder of a CLIPModel with these weights in ``model``'s place, reads it back, and compares."""
    import torch
    import transformers

    from limner.models.clip import Clip
    from limner.models.weights import quiet

    model.network.cpu()
    before = probe_dual_encoder(model)
    _put(model, weights)
    with staged(folder) as part:
        with quiet():
            model.network.save_pretrained(part)
            model.tokenizer.save_pretrained(part)
        write_json(part / "preprocessor_config.json", model.preprocessing.as_transformers())
        again = Clip(path=str(part)).load()
        other = _weights(again)
        if not all(torch.equal(value.cpu(), other[name]) for name, value in weights.items()):
            raise UserError(
                "the weights that were read back are not those written.", where=str(folder), fix="Report it."
            )
        reader = f"transformers {transformers.__version__}"
        result = compare(
            part, reader=reader, file=probe_dual_encoder(again), trained=probe_dual_encoder(model), base=before
        )
        write_record(part, result, {"limner.blend_of": Path(run).name})
    return ExportResult(folder, result.reader, result.max_error, result.effect)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from limner.core.errors import NonFiniteError
from limner.core.rundir import RunDir, read_metrics
from limner.data.batch import Batch
from limner.run import finetune
from limner.training.backward import accumulate
from limner.training.ema import Ema
from limner.training.loop import MAX_SKIPPED, TrainState, train
from tests.numerics.conftest import run_config


def state(scaler: torch.amp.GradScaler | None = None) -> TrainState:
    params = {"w": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.SGD(params.values(), lr=1.0)
    return TrainState(params, optimizer, (0.1,), Ema(params, 0.5), scaler)


def batches(step: int) -> Sequence[Batch]:
    return [Batch((step,), (f"{step}.png",), ("a",), torch.zeros(1, 2, 1, 1), None, torch.ones(1))]


def losses_of(values: Sequence[float], one: TrainState) -> object:
    def per_example(batch: Batch) -> Tensor:
        return (one.params["w"].sum() * values[batch.positions[0]])[None]

    return accumulate(per_example, (lambda loss: loss) if one.scaler is None else one.scaler.scale)


def test_whoever_iterates_may_stop_and_go_on_later() -> None:
    one = state()
    reports = train(one, losses_of([1.0] * 5, one), batches, lambda step: 1.0, steps=5, max_grad_norm=0, seed=0)
    assert next(reports).step == 1
    assert one.step == 1
    again = train(one, losses_of([1.0] * 5, one), batches, lambda step: 1.0, steps=5, max_grad_norm=0, seed=0)
    assert [report.step for report in again] == [2, 3, 4, 5]
    torch.testing.assert_close(one.params["w"].detach(), torch.full((3,), 0.5))


def test_the_rate_is_the_group_s_own_times_the_schedule_and_the_norm_is_clipped() -> None:
    one = state()
    reports = list(
        train(one, losses_of([2.0, 2.0], one), batches, lambda step: 1 - step / 2, steps=2, max_grad_norm=1.0, seed=0)
    )
    assert [report.lr for report in reports] == [0.1, 0.05]
    assert reports[0].grad_norm == pytest.approx(2 * 3**0.5)
    moved = 0.1 / 3**0.5 + 0.05 / 3**0.5  # a gradient of norm 1 along (1, 1, 1)
    torch.testing.assert_close(one.params["w"].detach(), torch.full((3,), 1 - moved))


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_picture() -> None:
    one = state()
    reports = train(
        one, losses_of([1.0, float("nan")], one), batches, lambda step: 1.0, steps=2, max_grad_norm=0, seed=0
    )
    next(reports)
    before = one.params["w"].detach().clone()
    with pytest.raises(NonFiniteError, match=r"step 2: the loss of 1\.png \('a'\)"):
        next(reports)
    assert torch.equal(one.params["w"].detach(), before)
    assert one.step == 1


class _Overflow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * float("inf")


def overflowing(one: TrainState, at: Sequence[int]) -> object:
    def per_example(batch: Batch) -> Tensor:
        w = one.params["w"]
        return (_Overflow.apply(w) if batch.positions[0] in at else w).sum()[None]  # type: ignore[no-untyped-call]

    return accumulate(per_example, (lambda loss: loss) if one.scaler is None else one.scaler.scale)


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    one = state()
    with pytest.raises(NonFiniteError, match=r"step 1: the gradient is not finite \(pictures: 0\.png\)"):
        next(train(one, overflowing(one, [0]), batches, lambda step: 1.0, steps=2, max_grad_norm=1.0, seed=0))
    assert torch.equal(one.params["w"].detach(), torch.ones(3))


def test_fp16_skips_an_overflow_lowers_its_scale_and_gives_up_in_the_end() -> None:
    one = state(torch.amp.GradScaler("cpu", init_scale=8.0))
    assert one.scaler is not None
    reports = list(train(one, overflowing(one, [1]), batches, lambda step: 1.0, steps=3, max_grad_norm=1.0, seed=0))
    assert [report.skipped for report in reports] == [False, True, False]
    assert one.scaler.get_scale() == 4.0
    assert one.skipped == 0
    forever = state(torch.amp.GradScaler("cpu"))
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        list(
            train(forever, overflowing(forever, range(99)), batches, lambda s: 1.0, steps=99, max_grad_norm=1.0, seed=0)
        )
    assert forever.step == MAX_SKIPPED


def test_a_run_that_explodes_keeps_its_last_good_checkpoint(tmp_path: Path, tiny_model: Path, drawings: Path) -> None:
    config = run_config(
        tiny_model,
        drawings,
        tmp_path / "run",
        method={"kind": "full"},
        optimizer={"lr": 1e30},
        schedule={"kind": "constant", "warmup_steps": 0},
        train={"save_every": 1, "keep_checkpoints": 1, "ema_decay": None},
        dataset={"caption_lines": "whole"},
    )
    with pytest.raises(NonFiniteError, match=r"\.png"):
        finetune(config)
    run = RunDir(config.out)
    assert run.checkpoint_steps()[-1] == len(read_metrics(run.metrics)) < 8
    assert run.checkpoint_steps()[0] == 0  # nothing was removed in favour of a checkpoint that no step has proved
    assert '"failed"' in run.status.read_text()

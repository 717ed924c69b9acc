"""Every adapter method: what waits for the second update, micro-batches, checkpointing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.models.sd1 import SD1
from limner.training.objectives import Denoising
from tests.numerics.test_gradients import PRECISION, batch

TARGETS = ("to_q", "to_out.0", "conv1", "conv_shortcut", "proj_in", "conv")
METHODS = {
    "lora": Lora(rank=2, targets=TARGETS, text_encoder=True),
    "dora": Lora(rank=2, targets=TARGETS, dora=True, text_encoder=True),
    "loha": Loha(rank=2, targets=TARGETS, text_encoder=True),
    "lokr": Lokr(rank=2, targets=TARGETS, text_encoder=True),
    "lokr, all split": Lokr(
        rank=1, targets=TARGETS, decompose_factor=4, decompose_both=True, use_effective_conv2d=True, text_encoder=True
    ),
    "lokr, whole": Lokr(rank=1000, targets=TARGETS),
}
Gradients = dict[str, torch.Tensor]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_waits_has_no_gradient_at_first_and_all_the_rest_has_one(
    tiny_model: Path, method: Lora | Loha | Lokr
) -> None:
    model = SD1(path=str(tiny_model)).load()
    trainable = method.apply(model, seed=0)
    model.train_mode(trainable.parts)
    backward = Denoising().backward(model, seed=1, precision=PRECISION, scale=lambda loss: loss)
    backward([batch(range(3), model)])
    without = {name for name, p in trainable.params.items() if p.grad is None or not p.grad.any()}
    assert without == trainable.waits
    assert 0 < len(without) < len(trainable.params)
    with torch.no_grad():
        for parameter in trainable.params.values():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad.sign()
            parameter.grad = None
    backward([batch(range(3), model)])
    assert all(p.grad is not None and p.grad.any() for p in trainable.params.values())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_micro_batches_and_checkpointing_give_the_gradient_of_the_whole(
    tiny_model: Path, method: Lora | Loha | Lokr
) -> None:
    def gradients(sizes: list[int], *, checkpointed: bool = False) -> Gradients:
        model = SD1(path=str(tiny_model)).load()
        trainable = method.apply(model, seed=0)
        for name, parameter in trainable.params.items():  # nothing is zero any more
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        if checkpointed:
            model.checkpoint_gradients()
        model.train_mode(trainable.parts)
        backward = Denoising(min_snr_gamma=5.0).backward(model, seed=1, precision=PRECISION, scale=lambda loss: loss)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        backward([batch(range(s, s + n), model) for s, n in zip(starts, sizes, strict=True)])
        found = {name: p.grad for name, p in trainable.params.items() if p.grad is not None}
        assert found.keys() == trainable.params.keys()
        return found

    whole = gradients([4])
    largest = max(float(grad.norm()) for grad in whole.values())
    for other in (gradients([1, 3]), gradients([4], checkpointed=True)):
        for name, grad in whole.items():  # a norm after a layer takes its scale away: such a gradient is all rounding
            assert float((other[name] - grad).norm()) < 1e-4 * float(grad.norm()) + 1e-6 * largest, name

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.core.errors import UserError
from limner.training.proof import LearningProof


def networks() -> tuple[nn.Linear, nn.Linear, dict[str, nn.Parameter]]:
    torch.manual_seed(0)
    trained, frozen = nn.Linear(3, 3), nn.Linear(3, 3)
    frozen.requires_grad_(False)
    return trained, frozen, {f"a.{name}": value for name, value in trained.named_parameters()}


def update(params: dict[str, nn.Parameter], lr: float = 0.1) -> None:
    for parameter in params.values():
        parameter.grad = torch.ones_like(parameter)
        parameter.data -= lr * parameter.grad


def test_an_update_of_everything_is_the_proof() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset())
    update(params)
    proof.after_update()
    assert proof.done


def test_a_tensor_without_gradient_is_named_even_if_weight_decay_moved_it() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset())
    update(params)
    assert params["a.bias"].grad is not None
    params["a.bias"].grad.zero_()
    with pytest.raises(
        UserError, match=r"1 of 2 trained tensors did not learn in update 1, since their gradient is zero.*a\.bias"
    ):
        proof.after_update()


def test_an_update_too_small_for_float32_is_found() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset())
    update(params, lr=1e-12)
    with pytest.raises(UserError, match=r"2 of 2 trained tensors .* the update was too small"):
        proof.after_update()


def test_one_bit_of_a_frozen_tensor_is_seen() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset())
    update(params)
    frozen.weight.data.view(torch.int32)[1, 2] ^= 1
    with pytest.raises(UserError, match=r"1 frozen tensors changed: b\.weight"):
        proof.after_update()


def test_a_tensor_that_waits_must_learn_in_the_second_update() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset({"a.weight"}))
    update({"a.bias": params["a.bias"]})
    proof.after_update()
    assert not proof.done
    update({"a.bias": params["a.bias"]})
    with pytest.raises(UserError, match=r"did not learn in update 2, .*a\.weight"):
        proof.after_update()


def test_a_warm_up_may_move_tensors_late_but_not_never() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset(), patience=3)
    update(params, lr=1e-12)
    proof.after_update()
    update({"a.bias": params["a.bias"]})
    proof.after_update()
    assert not proof.done
    with pytest.raises(
        UserError, match=r"1 of 2 .* in update 3, since the update was too small to change them: a\.weight"
    ):
        proof.after_update()


def test_without_a_gradient_no_patience_helps() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset(), patience=100)
    with pytest.raises(UserError, match="their gradient is zero or missing"):
        proof.after_update()


def test_updates_of_one_size_up_and_down_do_not_cancel() -> None:
    layer = nn.Linear(1, 64, bias=False)
    layer.weight.data.fill_(1.5)
    params = {"a.weight": layer.weight}
    proof = LearningProof(params, {"a": layer}, frozenset())
    layer.weight.grad = torch.ones_like(layer.weight)
    layer.weight.data[::2] += 2**-10
    layer.weight.data[1::2] -= 2**-10  # as Adam's first update: the sign of the gradient times the rate
    proof.after_update()
    assert proof.done


def test_a_seldom_tensor_waits_for_its_first_gradient_and_must_then_move() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset(), seldom=frozenset({"a.weight"}))
    for _ in range(5):
        update({"a.bias": params["a.bias"]})
        params["a.weight"].grad = torch.zeros_like(params["a.weight"])
        proof.after_update()
    assert not proof.done
    params["a.weight"].grad = torch.ones_like(params["a.weight"])
    with pytest.raises(UserError, match=r"1 of 2 .* in update 6, since the update was too small .*a\.weight"):
        proof.after_update()


def test_a_seldom_tensor_that_learns_late_is_proved() -> None:
    trained, frozen, params = networks()
    proof = LearningProof(params, {"a": trained, "b": frozen}, frozenset(), seldom=frozenset({"a.weight"}))
    update({"a.bias": params["a.bias"]})
    proof.after_update()
    assert not proof.done
    update(params)
    proof.after_update()
    assert proof.done

"""Muon: against PyTorch's own where that has one, and against what defines it."""

from __future__ import annotations

import copy

import pytest
import torch

from limner.training.muon import make_muon, orthogonalised
from limner.training.optimizers import Muon


def made(parameters: list[torch.nn.Parameter], **changes: float) -> torch.optim.Optimizer:
    return Muon(**changes).build([{"params": parameters, "lr": 0.02}])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7), (7, 1)])
def test_the_result_has_the_same_singular_vectors_and_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    inside = u.T @ found @ v.T
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-9)
    assert torch.allclose(u @ inside @ v, found, atol=1e-9)
    x = values / values.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    torch.testing.assert_close(inside.diagonal(), x, rtol=1e-8, atol=1e-8)


def test_it_does_not_depend_on_the_size_of_the_gradient_and_turns_with_it() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, 9, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    torch.testing.assert_close(orthogonalised(matrix), orthogonalised(1e-4 * matrix), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        rotation @ orthogonalised(matrix), orthogonalised(rotation @ matrix), rtol=1e-4, atol=1e-5
    )


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_matrices_move_as_with_pytorchs_own() -> None:
    """PyTorch's computes in bfloat16, so the two agree to its precision only."""
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(12, 20, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        made([ours], momentum=0.95, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        gradient = torch.randn(12, 20, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_vectors_move_as_with_adamw() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(7, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        made([ours], betas=(0.8, 0.9), weight_decay=0.1),  # type: ignore[arg-type]
        torch.optim.AdamW([theirs], lr=0.02, betas=(0.8, 0.9), weight_decay=0.1),
    )
    for _ in range(5):
        gradient = torch.randn(7, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_convolution_is_a_matrix_with_a_row_for_each_output() -> None:
    generator = torch.Generator().manual_seed(4)
    gradient = torch.randn(6, 4, 3, 3, generator=generator)
    kernel, matrix = torch.nn.Parameter(torch.zeros(6, 4, 3, 3)), torch.nn.Parameter(torch.zeros(6, 36))
    kernel.grad, matrix.grad = gradient, gradient.flatten(1)
    optimizer = made([kernel, matrix])
    optimizer.step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.02, rel=0.35)


def test_it_goes_on_from_its_saved_state_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(5)
    start = [torch.randn(4, 6, generator=generator), torch.randn(6, generator=generator)]
    gradients = [[torch.randn(value.shape, generator=generator) for value in start] for _ in range(4)]

    def run(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, rows: slice) -> None:
        for row in gradients[rows]:
            for parameter, gradient in zip(parameters, row, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    whole = [torch.nn.Parameter(value.clone()) for value in start]
    run(whole, made(whole), slice(None))
    parts = [torch.nn.Parameter(value.clone()) for value in start]
    first = made(parts)
    run(parts, first, slice(2))
    second = made(parts)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(parts, second, slice(2, None))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_closure_is_refused() -> None:
    optimizer = make_muon(
        [{"params": [torch.nn.Parameter(torch.ones(2))]}], momentum=0.9, betas=(0.9, 0.9), weight_decay=0
    )
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)

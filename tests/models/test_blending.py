"""Blended weights: exact at both ends, a straight line between, nothing silently left out."""

from __future__ import annotations

import pytest
import torch

from limner.models.blending import blended

BASE = {"weight": torch.tensor([0.1, -3.0, 7.0]), "ids": torch.arange(3)}
TUNED = {"weight": torch.tensor([0.3, 5.0, 7.0]), "ids": torch.arange(3)}


@pytest.mark.parametrize(("share", "wanted"), [(0, BASE), (1, TUNED)])
def test_the_ends_are_exact(share: float, wanted: dict[str, torch.Tensor]) -> None:
    found = blended(BASE, TUNED, share)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_quarter_of_the_way_is_a_quarter_of_the_way() -> None:
    found = blended(BASE, TUNED, 0.25)["weight"]
    torch.testing.assert_close(found, torch.tensor([0.15, -1.0, 7.0]))


def test_half_precision_is_rounded_once_and_stays_half_precision() -> None:
    base, tuned = torch.tensor([1.0], dtype=torch.float16), torch.tensor([1.0 + 2**-10], dtype=torch.float32)
    found = blended({"w": base}, {"w": tuned}, 0.75)["w"]
    assert found.dtype == torch.float16
    assert found.item() == 1.0 + 2**-10  # 1.00073 is nearer to the next half than to 1; halves summed would be 1


def test_the_result_is_no_view_of_either_model() -> None:
    found = blended(BASE, TUNED, 0)["weight"]
    found.zero_()
    assert BASE["weight"][2] == 7


@pytest.mark.parametrize(
    ("base", "tuned", "share", "message"),
    [
        (BASE, TUNED, 1.1, "share is 1.1"),
        (BASE, TUNED, -0.1, "in \\[0, 1\\]"),
        (BASE, {"weight": TUNED["weight"]}, 0.5, "1 tensors are in one of the two models only, such as 'ids'"),
        ({"w": torch.zeros(2)}, {"w": torch.zeros(1)}, 0.5, "'w' is \\(2,\\) in the base and \\(1,\\)"),
    ],
)
def test_models_that_do_not_belong_together_are_refused(
    base: dict[str, torch.Tensor], tuned: dict[str, torch.Tensor], share: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        blended(base, tuned, share)

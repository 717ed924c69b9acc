"""The contrastive losses against independent loops, and what duplicates do to the naive ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from limner.training.contrastive_losses import balanced_bias, info_nce, info_nce_floor, positive_pairs, siglip

CLASSES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 1, 2, 2, 3]
"""The labels of a batch of 16 pictures of a world with ten captions."""
OWN = torch.eye(len(CLASSES), dtype=torch.bool)
SAME = positive_pairs(range(len(CLASSES)), CLASSES)


def random(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_pairs() -> Tensor:
    pairs = random(6, 6, seed=2) > 0.7
    return pairs | torch.eye(6, dtype=torch.bool)


def test_info_nce_is_the_loop_over_its_definition() -> None:
    logits, pairs = 5 * random(6, 6), some_pairs()
    assert bool((pairs.sum(1) > 1).any())
    assert not torch.equal(pairs, pairs.T)
    for i, found in enumerate(info_nce(logits, pairs).tolist()):
        terms = []
        for values, wanted in ((logits[i].tolist(), pairs[i].tolist()), (logits[:, i].tolist(), pairs[:, i].tolist())):
            total = sum(math.exp(value) for value in values)
            chosen = [math.log(math.exp(v) / total) for v, is_one in zip(values, wanted, strict=True) if is_one]
            terms.append(-sum(chosen) / len(chosen))
        assert found == pytest.approx(sum(terms) / 2, rel=1e-12)


def test_siglip_is_the_loop_over_its_definition() -> None:
    logits, pairs = 5 * random(6, 6), some_pairs()
    total = 0.0
    for i in range(6):
        for j in range(6):
            z = 1 if pairs[i, j] else -1
            total += math.log(1 + math.exp(-z * float(logits[i, j])))
    assert float(siglip(logits, pairs).mean()) == pytest.approx(total / 6, rel=1e-12)
    first = siglip(logits, pairs)[0]
    changed = logits.clone()
    changed[1:, 1:] = 0.0  # neither in the row nor in the column of the first pair
    assert siglip(changed, pairs)[0] == first


def test_no_logits_get_below_the_floor_and_the_targets_themselves_reach_it() -> None:
    pairs = SAME
    reached = info_nce(pairs.double().log().clamp(min=-200), pairs)
    torch.testing.assert_close(reached, info_nce_floor(pairs).double(), rtol=1e-6, atol=1e-9)
    for seed in range(20):
        assert bool((info_nce(random(16, 16, seed), pairs) > info_nce_floor(pairs)).all())
    assert not info_nce_floor(OWN).any()


def perfect(scale: float) -> tuple[Tensor, Tensor]:
    """Returns the embeddings, [B, 10] both, and logits of a model that knows every class."""
    one_hot = functional.one_hot(torch.tensor(CLASSES), 10).double().requires_grad_()
    captions = one_hot.detach().clone().requires_grad_()
    return captions, scale * one_hot @ captions.T


def test_with_ten_captions_in_the_world_a_perfect_model_has_a_naive_loss_of_the_log_of_its_duplicates() -> None:
    naive, aware = info_nce(perfect(100.0)[1], OWN).mean(), info_nce(perfect(100.0)[1], SAME)
    counts = [CLASSES.count(label) for label in CLASSES]
    assert float(naive.detach()) == pytest.approx(sum(map(math.log, counts)) / len(counts), rel=1e-9)
    assert float(naive.detach()) > 0.5
    gaps = [
        float((info_nce(perfect(scale)[1].detach(), SAME) - info_nce_floor(SAME)).mean())
        for scale in (5.0, 20.0, 100.0)
    ]
    assert gaps[0] > gaps[1] > gaps[2] >= -1e-6
    assert gaps[2] < 1e-6
    assert float(aware.mean().detach()) == pytest.approx(float(info_nce_floor(SAME).mean()), rel=1e-6)


def gradient(loss: Tensor, to: Tensor) -> Tensor:
    return torch.autograd.grad(loss, to)[0]


def test_at_the_perfect_point_the_naive_loss_still_pushes_equal_captions_off_and_the_aware_one_rests() -> None:
    duplicate = SAME & ~OWN
    for loss in (info_nce, siglip):
        logits = perfect(100.0)[1].detach()
        logits = (logits - 50.0 if loss is siglip else logits).requires_grad_()
        naive = gradient(loss(logits, OWN).mean(), logits)
        assert bool((naive[duplicate] > 0.01).all())  # a step downhill lowers the similarity
        assert float(gradient(loss(logits, SAME).mean(), logits).abs().max()) < 1e-9


def test_captions_that_read_the_same_cannot_be_told_apart_so_cross_entropy_is_the_same_with_and_without() -> None:
    """One prompt per class: every row counts the one vector of its duplicates, whichever of them is called its own."""
    pictures, labels = random(16, 8), torch.tensor(CLASSES)
    table = random(10, 8, seed=1).requires_grad_()
    found = []
    for pairs in (OWN, SAME):
        loss = info_nce(pictures @ table[labels].T, pairs).mean()
        found.append((float(loss.detach()), gradient(loss, table)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_siglip_is_not_the_same_with_equal_captions() -> None:
    pictures, labels = random(16, 8), torch.tensor(CLASSES)
    table = random(10, 8, seed=1).requires_grad_()
    naive, aware = (gradient(siglip(pictures @ table[labels].T, pairs).mean(), table) for pairs in (OWN, SAME))
    assert float((naive - aware).abs().max()) > 0.01


def test_two_wordings_of_one_class_are_pushed_apart_by_the_naive_loss_only() -> None:
    """Pictures 0 and 1 are of one class and differ a little; each has drawn another template."""
    pictures = functional.normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [0.0, 0.0, 1.0]]).double(), dim=1)
    groups = ("cat", "cat", "dog")
    aware = positive_pairs(range(3), ("a cat", "photo of a cat", "a dog"), groups)
    spread = {}
    for name, pairs in (("naive", torch.eye(3, dtype=torch.bool)), ("aware", aware)):
        captions = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double().requires_grad_()
        step = -gradient(info_nce(20 * pictures @ captions.T, pairs).mean(), captions)
        spread[name] = float(step[0, 1] - step[1, 1])  # along the line between the two pictures
    assert spread["naive"] > 0.1
    assert spread["aware"] == pytest.approx(0.0, abs=1e-9)


def test_which_pairs_belong_together() -> None:
    pictures = ("p", "p", "q", "r", "s")
    captions = ("a", "b", "b", "c", "d")
    pairs = positive_pairs(pictures, captions, (None, None, None, "cat", "cat"))
    expected = [
        [1, 1, 1, 0, 0],  # p has the captions a and b, and b stands at place 2 too
        [1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],  # nothing says that q has the caption a
        [0, 0, 0, 1, 1],  # one class
        [0, 0, 0, 1, 1],
    ]
    assert pairs.int().tolist() == expected
    assert positive_pairs(range(3), "abc").int().tolist() == torch.eye(3).int().tolist()
    assert positive_pairs(range(2), "ab", (None, None)).int().tolist() == [[1, 0], [0, 1]]


def test_the_balanced_bias_expects_as_many_pairs_as_there_are() -> None:
    logits, pairs = 30 * random(6, 6) + 20, some_pairs()
    bias = torch.tensor(balanced_bias(logits, pairs), dtype=torch.float64, requires_grad=True)
    assert float(torch.sigmoid(logits + bias).sum()) == pytest.approx(int(pairs.sum()), rel=1e-9)
    assert float(gradient(siglip(logits + bias, pairs).mean(), bias)) == pytest.approx(0.0, abs=1e-9)

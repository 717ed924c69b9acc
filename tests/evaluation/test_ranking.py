"""Ranks: known answers on hand-made embeddings, ties, and a plain loop."""

from __future__ import annotations

import torch

from limner.core.rng import tensor_stream
from limner.evaluation.ranking import nearest_other, ranks
from limner.evaluation.retrieval import both_ways

CORNERS = torch.eye(4)


def test_each_corner_finds_itself_first() -> None:
    assert ranks(CORNERS, CORNERS, [[0], [1], [2], [3]]) == [1, 1, 1, 1]
    assert ranks(CORNERS, CORNERS, [[1], [1], [1], [1]])[1] == 1


def test_a_model_that_calls_all_alike_finds_nothing() -> None:
    assert ranks(torch.ones(3, 2), torch.ones(5, 2), [[0], [2], [4]]) == [5, 5, 5]


def test_right_candidates_do_not_stand_in_each_others_way() -> None:
    assert ranks(torch.ones(1, 2), torch.ones(5, 2), [[0, 1, 2]]) == [3]


def test_a_wrong_candidate_takes_as_many_places_as_it_has_copies() -> None:
    candidates = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.1, 0.0]])
    query = torch.tensor([[1.0, 0.0]])
    assert ranks(query, candidates, [[1]], [1, 1, 1]) == [2]
    assert ranks(query, candidates, [[1]], [3, 1, 1]) == [4]
    assert ranks(query, candidates, [[0]], [3, 1, 1]) == [1]


def test_the_ranks_are_those_of_a_plain_loop() -> None:
    rng = tensor_stream(0, 0, "ranking")
    queries = torch.randint(-2, 3, (600, 3), generator=rng).float()  # small whole numbers: many ties
    candidates = torch.randint(-2, 3, (40, 3), generator=rng).float()
    right = [sorted(set(torch.randint(0, 40, (3,), generator=rng).tolist())) for _ in range(600)]
    copies = torch.randint(1, 4, (40,), generator=rng).tolist()
    expected = []
    for query, own in zip(queries.tolist(), right, strict=True):
        scores = [sum(a * b for a, b in zip(query, one, strict=True)) for one in candidates.tolist()]
        best = max(scores[place] for place in own)
        wrong = [place for place in range(40) if place not in own and scores[place] >= best]
        expected.append(1 + sum(copies[place] for place in wrong))
    assert ranks(queries, candidates, right, copies) == expected


def test_the_nearest_other_is_never_the_right_one() -> None:
    assert nearest_other(CORNERS[:2], CORNERS, [0, 1]) == [1, 0]
    assert nearest_other(torch.tensor([[0.0, 0.2, 0.1, 0.0]]), CORNERS, [1]) == [2]


def test_two_captions_for_each_picture_both_ways() -> None:
    pictures = torch.eye(3)
    texts = torch.tensor([[1.0, 0, 0], [0, 0.9, 0.1], [0, 1.0, 0], [0, 0.2, 0.3], [0, 0.6, 0.5]])
    to_text, to_image = both_ways(pictures, texts, [[0, 1], [2, 2], [3, 4]])
    assert to_text == [1, 1, 1]  # the third: 0.5 of its second caption, above all others
    assert to_image == [[1, 3], [1, 1], [1, 2]]


def test_a_caption_of_two_pictures_is_right_for_both_and_a_copy_of_a_wrong_one_takes_two_places() -> None:
    pictures = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    to_text, to_image = both_ways(pictures, texts, [[0], [0], [1]])
    assert to_text == [1, 1, 3 - 2]
    assert to_image[0] == to_image[1] == [1]
    swapped, _ = both_ways(pictures, texts.flip(1), [[0], [0], [1]])
    assert swapped[2] == 3  # both copies of the wrong caption are nearer

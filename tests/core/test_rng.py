from __future__ import annotations

import torch

from limner.core.rng import example_seed, stream, tensor_stream


def test_streams_depend_on_seed_position_and_purpose_alone() -> None:
    first = [stream(7, 11, "flip").random() for _ in range(2)]
    assert first[0] == first[1]
    others = {stream(*key).random() for key in [(7, 11, "flip"), (8, 11, "flip"), (7, 12, "flip"), (7, 11, "crop")]}
    assert len(others) == 4


def test_joined_numbers_do_not_collide() -> None:
    assert example_seed(1, 11, "a") != example_seed(11, 1, "a")
    assert example_seed(1, 1, "1:a") != example_seed(1, 11, "a")


def test_noise_of_neighbouring_positions_is_uncorrelated() -> None:
    noise = torch.stack([torch.randn(4096, generator=tensor_stream(0, p, "noise")) for p in range(32)])
    correlation = torch.corrcoef(noise) - torch.eye(32)
    assert correlation.abs().max() < 0.08  # five standard deviations of 1 / sqrt(4096)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01

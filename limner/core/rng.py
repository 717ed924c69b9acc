"""Random streams as pure functions of a seed and a position in the run.

Nothing of them is ever saved: whoever knows the seed and the position can draw the same numbers again, on every
device, for every micro-batch size and every number of processes.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MANTISSA = 2**63


def example_seed(seed: int, position: int, purpose: str = "") -> int:
    """Returns the seed of one stream, in [0, 2**63).

    ``position`` counts examples since the start of the run (step * batch size + place in the batch). Each ``purpose``
    ("noise", "timestep", "caption", ...) has a stream of its own, so that switching one on or off moves no other.
    """
    digest = hashlib.blake2b(f"{seed}:{position}:{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _MANTISSA


def stream(seed: int, position: int, purpose: str) -> random.Random:
    """Returns a Python generator for choices about one example: its caption, its flip, its crop."""
    return random.Random(example_seed(seed, position, purpose))


def tensor_stream(seed: int, position: int, purpose: str) -> torch.Generator:
    """Returns a CPU generator for tensors of one example: its noise, its timestep."""
    import torch

    return torch.Generator("cpu").manual_seed(example_seed(seed, position, purpose))

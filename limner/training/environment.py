"""What the numbers of a run depend on beside its config: versions, device, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from limner import __version__
from limner.core.errors import UserError
from limner.training.precision import Precision

PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow")


def describe_environment(precision: Precision) -> dict[str, Any]:
    """Returns versions, device and threads, flat. Equal ones give equal bits on the CPU."""
    import torch

    device = precision.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "limner": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "device": f"{device.type} ({name})",
        "precision": precision.name,
        "threads": torch.get_num_threads(),
    }


def refuse_several_processes() -> None:
    """Raises UserError under torchrun and the like: each process would train the same thing beside the others."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise UserError(
            f"WORLD_SIZE is {processes}, but this version trains in one process.",
            where="environment",
            fix="Start it without torchrun.",
        )

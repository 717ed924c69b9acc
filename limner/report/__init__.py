"""What ``limner compare`` shows: a run's base model and its checkpoints, on the same prompts, noise and pictures."""

from limner.report.way import CompareResult, compare

__all__ = ["CompareResult", "compare"]

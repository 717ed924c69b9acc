"""One recipe with several values of its settings: every combination is a run, and the runs are compared."""

from limner.sweep.way import SweepResult, sweep

__all__ = ["SweepResult", "sweep"]

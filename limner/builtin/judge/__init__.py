"""The judge: a small network that reads pictures of the world, so that what a model draws is found right or wrong."""

from limner.builtin.judge.reading import Judge, Reading, Seen, load_judge

__all__ = ["Judge", "Reading", "Seen", "load_judge"]

"""What ``limner swap`` shows: the same pictures with a model's own text encoder and with a tuned one."""

from limner.swap.way import SwapResult, swap

__all__ = ["SwapResult", "swap"]

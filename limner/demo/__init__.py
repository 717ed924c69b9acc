"""What ``limner demo`` shows: a lesson for the built-in model, judged before and after, on a page."""

from limner.demo.way import DemoResult, demo

__all__ = ["DemoResult", "demo"]

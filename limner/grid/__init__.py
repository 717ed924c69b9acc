"""What ``limner grid`` draws: pictures in tables, one setting along each side."""

from limner.grid.way import GridResult, grid

__all__ = ["GridResult", "grid"]

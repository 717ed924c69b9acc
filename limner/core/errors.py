"""The one error that a user sees without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something that the user can repair: what is wrong, where it came from, what to do.

    ``where`` is a config key, a file or an option; ``fix`` is a full sentence. The text reads
    ``where: what fix``, for instance ``dataset.path: 'photos' has no images. Put images there or set dataset.path.``
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        glue = "\n" if "\n" in what else " "  # a list of findings ends its own last line
        text = f"{what.rstrip()}{glue}{fix}".strip()
        super().__init__(f"{where}: {text}" if where else text)


class ConfigError(UserError):
    """Every problem of a config at once; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str], *, where: str) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count}\n" + "\n".join(f"  - {problem}" for problem in problems), where=where)


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite; raised before the weights are touched."""

"""How a command shows what it does: bars and tables, or JSON lines."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from limner.core.errors import UserError

if TYPE_CHECKING:
    from limner.console import JsonProgress, TerminalProgress


@contextlib.contextmanager
def shown(json_lines: bool) -> Iterator[JsonProgress | TerminalProgress]:
    """Gives where a job tells what it does; an error of the user is told there as well."""
    from limner.console import JsonProgress, TerminalProgress

    _quiet_libraries()
    with JsonProgress() if json_lines else TerminalProgress() as progress:
        try:
            yield progress
        except (UserError, OSError) as error:
            if isinstance(progress, JsonProgress) and not isinstance(error, BrokenPipeError):
                progress.event("error", {"text": str(error)})
            raise
        except KeyboardInterrupt:
            progress.say("stopped")
            raise


def _quiet_libraries() -> None:
    """Keeps the libraries' own bars and advice off the terminal; errors still come through."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(diffusers|transformers|peft|huggingface_hub).*")

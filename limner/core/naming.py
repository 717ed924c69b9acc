"""Names that leave this machine: without the folders they lay in, and safe as file names."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_SLUG_BYTES = 60


def public_name(name: str) -> str:
    """Returns a model's or file's name without its folders; a Hub id (``owner/model``) is public and stays whole."""
    path = Path(name).expanduser()
    is_local = path.is_absolute() or name.startswith((".", "~")) or "\\" in name or name.count("/") != 1
    if is_local or path.suffix.lower() == ".safetensors" or path.exists():
        last = re.split(r"[\\/]", str(path.resolve() if path.exists() else path))[-1]
        return last.removesuffix(".safetensors")
    return name


def slug(text: str) -> str:
    """Returns a text as part of a file name: lower-case letters and digits of any script, joined by hyphens."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())
    cut = "-".join(words).encode()[:_SLUG_BYTES].decode(errors="ignore")
    return cut.strip("-")

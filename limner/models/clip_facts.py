"""What a safetensors file of CLIP holds, told from the names and shapes in its header."""

from __future__ import annotations

import re
from collections.abc import Mapping

from limner.models.safety import TensorInfo

_TOWERS = (
    ("picture tower", re.compile(r"(?:vision_model\.encoder\.layers|visual\.transformer\.resblocks)\.(\d+)\.")),
    ("text tower", re.compile(r"(?:(?:text_model\.)?encoder\.layers|transformer\.resblocks)\.(\d+)\.")),
)
_PATCHES = ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight")
_WORDS = (
    "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight", "token_embedding.weight",
)  # fmt: skip


def clip_facts(tensors: Mapping[str, TensorInfo]) -> tuple[str, dict[str, str]] | None:
    """Returns which part of CLIP a file holds, under whose names, and its sizes; None where it is neither."""
    shapes = {name: info.shape for name, info in tensors.items()}
    patches = next((shapes[name] for name in _PATCHES if name in shapes), ())
    words = next((shapes[name] for name in _WORDS if name in shapes), ())
    names = "open_clip" if "visual.conv1.weight" in shapes else "transformers"
    if len(patches) != 4 and len(words) != 2:
        return None
    facts = {}
    for (tower, pattern), width in zip(_TOWERS, (patches[:1], words[1:]), strict=True):
        layers = {found[1] for name in shapes if (found := pattern.match(name))}
        if width and layers:
            patch = f", patches of {patches[2]}" if tower == "picture tower" else ""
            facts[tower] = f"{len(layers)} layers, {width[0]} wide{patch}"
    if len(words) == 2:
        facts["words"] = f"{words[0]:,}"
    if len(patches) != 4:
        return "a CLIP text encoder alone", facts
    if len(words) != 2:
        return "a CLIP picture tower alone", facts
    return f"a CLIP model under {names}'{'s' if names == 'open_clip' else ''} names", facts

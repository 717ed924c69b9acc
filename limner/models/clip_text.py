"""How CLIP's text tower reads captions: token ids, kept per caption, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

Layer = Literal["last", "penultimate"]
MOST_KEPT = 200_000
"""Captions whose ids are kept; drawn tags make ever new ones."""


@dataclass(frozen=True, eq=False)
class CaptionReader:
    """Turns captions into ids; a caption that was read before is not tokenized again."""

    tokenizer: CLIPTokenizer
    limit: int
    """Tokens that are read, the two special ones included; the rest of a longer caption is cut."""
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def ids(self, captions: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the ids of each caption as the tower reads them, without padding."""
        if new := list(dict.fromkeys(caption for caption in captions if caption not in self._known)):
            if len(self._known) + len(new) > MOST_KEPT:
                self._known.clear()
                new = list(dict.fromkeys(captions))
            found = self.tokenizer(new, padding=False, truncation=True, max_length=self.limit).input_ids
            self._known.update(zip(new, map(tuple, found), strict=True))
        return [self._known[caption] for caption in captions]

    def padded(self, captions: Sequence[str], *, whole: bool) -> Tensor:
        """Returns ids [B, L]; L is the limit if ``whole``, as Stable Diffusion reads, else that of the longest caption.

        The tower looks back only, so the state of an end token is the same with and without what stands behind it.
        """
        import torch

        rows = self.ids(captions)
        length = self.limit if whole else max(map(len, rows))
        padding = self.tokenizer.pad_token_id
        return torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows])


def text_states(tower: CLIPTextModel, ids: Tensor, layer: Layer) -> Tensor:
    """Returns the hidden states [B, L, D] that Stable Diffusion reads, after the final norm; gradients flow.

    ``penultimate`` is what it reads with a clip_skip of 1 in diffusers (2 elsewhere): the last layer left out.
    """
    if layer == "last":
        last: Tensor = tower(ids).last_hidden_state
        return last
    states: Tensor = tower.final_layer_norm(tower(ids, output_hidden_states=True).hidden_states[-2])
    return states

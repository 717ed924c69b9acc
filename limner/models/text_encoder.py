"""The text encoder of a tuned CLIP in place of a pipeline's own: found, checked to fit, blended; or refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.models.adapters import AdapterRef, adapter_files
from limner.models.blending import blended
from limner.models.protocol import EncoderSource
from limner.models.safety import read_safetensors_header
from limner.models.text_tower import compare, find_tower, read_tower
from limner.models.weights import content_hash

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

ENCODER_KEYS = ("limner.text_encoder", "limner.text_encoder_blend", "limner.text_encoder_hash")
"""Names in the headers of exported files: the encoder, its blend, the hash of the weights that came of both."""
_BLEND = re.compile(r"\d+\.?\d*|\.\d+")


class TextEncoder(Config):
    """The text encoder of a tuned CLIP, in place of the model's own. Also as one text, PATH or PATH:BLEND."""

    path: str = Field(min_length=1)
    """A run of CLIP, a folder of transformers (CLIPModel or CLIPTextModel) or open_clip, a .safetensors file with the
    text encoder alone, a checkpoint of open_clip, OpenAI's original file, builtin, or the Hub id of a CLIP model."""
    blend: float = Field(default=1.0, ge=0, le=1)
    """Weights between the model's own (0) and the tuned ones (1)."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value

    def check(self, settings: Mapping[str, Any], tokenizer: CLIPTokenizer) -> None:
        """Raises UserError where it does not fit a text encoder of these settings, by its small files alone."""
        compare(find_tower(self.path, weights=False), settings, tokenizer)

    def in_place_of(self, own: CLIPTextModel, tokenizer: CLIPTokenizer) -> SwappedEncoder:
        """Returns the blend with ``own``, a network of its own. Raises UserError, naming all that does not fit."""
        tower = find_tower(self.path, weights=True)
        told = compare(tower, own.config.to_dict(), tokenizer)
        base = own.state_dict()
        values = blended(base, read_tower(tower, base), self.blend)
        network = copy.deepcopy(own)
        network.load_state_dict(values)
        return SwappedEncoder(network, EncoderSource(self.path, self.blend, weights_hash(network)), told)


@dataclass(frozen=True)
class SwappedEncoder:
    """What stands in a pipeline in place of its own text encoder."""

    network: CLIPTextModel
    source: EncoderSource
    notices: tuple[str, ...]
    """What its files do not tell, and so could not be compared; a sentence each."""


def parse_text_encoder(text: str, *, where: str = "--text-encoder") -> TextEncoder:
    """Returns the choice of ``path`` or ``path:blend``; a path that exists is taken whole, colons and all."""
    values = _parts(text)
    if not 0 <= values.get("blend", 1.0) <= 1:
        raise UserError(
            f"the blend {values['blend']:g} is not in [0, 1].",
            where=where,
            fix="0 is the model's own, 1 the tuned one.",
        )
    if not values["path"]:
        raise UserError("names nothing.", where=where, fix="Write PATH or PATH:BLEND.")
    return TextEncoder(path=values["path"], blend=values.get("blend", 1.0))


def names_blend(text: str) -> bool:
    """Returns whether ``path:blend`` says a blend."""
    return "blend" in _parts(text)


def _parts(text: str) -> dict[str, Any]:
    head, colon, tail = text.rpartition(":")
    if colon and head and _BLEND.fullmatch(tail) and not Path(text).exists():
        return {"path": head, "blend": float(tail)}
    return {"path": text}


def weights_hash(network: CLIPTextModel) -> str:
    """Returns the SHA-256 of an encoder's weights, in float32 and before anything is put on it."""
    return content_hash(network, {})


# --------------------------------------------------------------------------------------------------- what needs it
def missing_encoders(refs: Sequence[AdapterRef], encoder: CLIPTextModel) -> list[str]:
    """Returns for each adapter that was trained with another text encoder than ``encoder`` what should be told.

    Call it before anything is put on the encoder and before it changes its number format.
    """
    told, here = [], ""
    for ref in refs:
        metadata = read_safetensors_header(adapter_files(ref.path)[0]).metadata if ref.weight != 0 else {}
        name, blend, expected = (metadata.get(key, "") for key in ENCODER_KEYS)
        if not expected:
            continue
        here = here or weights_hash(encoder)
        if here != expected:
            option = f"--text-encoder {name or 'PATH'}:{blend}"
            told.append(f"{ref.path} was trained with a tuned text encoder that this model does not have: {option}")
    return told

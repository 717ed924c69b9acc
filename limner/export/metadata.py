"""What exported files say about themselves: text under names, in the header that every reader skips or shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import limner
from limner.core.naming import public_name
from limner.methods.trainable import ADAPTERS
from limner.models.text_encoder import ENCODER_KEYS

if TYPE_CHECKING:
    from torch import Tensor

    from limner.models.protocol import EncoderSource

_WORDS_WITHOUT_NAMES = frozenset(
    ["kind", "scheduler", "precision", "device", "prediction_type", "targets", "text_encoder_targets"]
)
"""Settings whose text is Limner's vocabulary, never a name of the user's."""
_ARCHITECTURES = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2"}
_KOHYA_BASES = {"sd1": "sd_v1", "sd2": "sd_v2"}
_ALIGNMENT = 8


def file_metadata(
    *,
    base: str,
    base_hash: str,
    manifest: str,
    trigger_word: str | None,
    step: int,
    settings: Mapping[str, Any],
    resolution: int,
    prediction_type: str,
    private: bool,
    text_encoder: EncoderSource | None = None,
) -> dict[str, str]:
    """Returns the header texts of an export. ``private`` leaves out every name of the user's files, folders, prompts.

    ``base`` is the base model as the user named it; ``manifest`` the hash of the data; ``text_encoder`` what stands in
    place of the base model's own.
    """
    shown = shown_name(base, private)
    kept = without_names(settings) if private else dict(settings)
    texts = {
        "format": "pt",
        "limner.version": limner.__version__,
        "limner.base_model": shown,
        "limner.base_model_hash": base_hash,
        "limner.data_hash": manifest,
        "limner.trigger_word": trigger_word or "",
        "limner.step": str(step),
        "limner.settings": json.dumps(kept, sort_keys=True, ensure_ascii=False),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": " ".join(filter(None, [trigger_word, f"on {shown}" if shown else ""])) or "Limner",
        "modelspec.resolution": f"{resolution}x{resolution}",
        "modelspec.prediction_type": {"epsilon": "epsilon", "v_prediction": "v"}.get(prediction_type, prediction_type),
        "modelspec.trigger_phrase": trigger_word or "",
        **_encoder_texts(text_encoder, private),
    }
    return {name: text for name, text in texts.items() if text}


def shown_name(name: str, private: bool) -> str:
    """Returns a name without its folders; where names are private only that of a Hub model."""
    shown = public_name(name)
    return "" if private and shown != name else shown


def _encoder_texts(encoder: EncoderSource | None, private: bool) -> dict[str, str]:
    if encoder is None:
        return {}
    values = (shown_name(encoder.name, private), f"{encoder.blend:g}", encoder.weights_hash)
    return dict(zip(ENCODER_KEYS, values, strict=True))


def without_names(settings: Any) -> Any:
    """Returns settings with numbers, switches and Limner's own words only: every other text could be a name."""
    if isinstance(settings, Mapping):
        return {
            key: value if key in _WORDS_WITHOUT_NAMES else without_names(value)
            for key, value in settings.items()
            if key in _WORDS_WITHOUT_NAMES or not _is_text(value)
        }
    return [without_names(item) for item in settings] if isinstance(settings, list | tuple) else settings


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and any(_is_text(item) for item in value))


def _architecture_ending(method: str) -> str:
    if method in ADAPTERS:
        return "/lora"
    return "/textual-inversion" if method == "textual_inversion" else ""


def architecture_metadata(family: str, method: str) -> dict[str, str]:
    """Returns what A1111's and kohya's readers ask first: which base the file is for."""
    texts = {}
    if family in _ARCHITECTURES:
        texts["modelspec.architecture"] = _ARCHITECTURES[family] + _architecture_ending(method)
    if family in _KOHYA_BASES and method in ADAPTERS:
        texts["ss_base_model_version"] = _KOHYA_BASES[family]
        texts["ss_v2"] = str(family == "sd2")
    return texts


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Returns a safetensors file; the same tensors and texts give the same bytes.

    The library itself writes several header texts in random order.
    """
    from safetensors.torch import save

    data: bytes = save({name: tensors[name].detach().cpu().clone().contiguous() for name in sorted(tensors)})
    length = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]

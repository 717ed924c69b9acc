"""open_clip_config.json: what it says of a CLIP model, and the same written for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import UserError
from limner.models.open_clip import HEAD_WIDTH, Activation, Sizes
from limner.models.preprocessing import Preprocessing
from limner.models.safety import read_config

CONFIG = "open_clip_config.json"
_TRANSFORMERS = "Take the export kind transformers, which holds every CLIP model."

_VISION = {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224, "head_width": 64, "mlp_ratio": 4.0}
_TEXT = {"layers": 12, "width": 512, "heads": 8, "vocab_size": 49408, "context_length": 77, "mlp_ratio": 4.0}
"""The fields that give sizes, with open_clip's defaults."""
_PLAIN: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "model_cfg": {
        "quick_gelu": (True, False),
        "custom_text": (False,),
        "init_logit_bias": (None,),
        "nonscalar_logit_scale": (False,),
    },
    "vision_cfg": {
        "ls_init_value": (None,),
        "attentional_pool": (False, None, ""),
        "input_patchnorm": (False,),
        "global_average_pool": (False,),
        "no_ln_pre": (False,),
        "pos_embed_type": ("learnable",),
        "final_ln_after_pool": (False,),
        "pool_type": ("tok",),
        "act_kwargs": (None, {}),
        "norm_kwargs": (None, {}),
        "timm_model_name": (None, ""),
        "block_type": (None,),
        "qk_norm": (False,),
        "scaled_cosine_attn": (False,),
    },
    "text_cfg": {
        "ls_init_value": (None,),
        "embed_cls": (False,),
        "no_causal_mask": (False,),
        "final_ln_after_pool": (False,),
        "pool_type": ("argmax",),
        "proj_bias": (False,),
        "proj_type": ("linear",),
        "act_kwargs": (None, {}),
        "norm_kwargs": (None, {}),
        "hf_model_name": (None, ""),
        "block_type": (None,),
        "qk_norm": (False,),
        "scaled_cosine_attn": (False,),
    },
}
"""What a field may be where the model is one that Limner can hold; any other value changes what is computed."""
_HARMLESS = {
    "model_cfg": ("embed_dim", "vision_cfg", "text_cfg", "init_logit_scale", "cast_dtype", "output_dict"),
    "vision_cfg": (
        *_VISION, "patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained",
        "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
    ),
    "text_cfg": (
        *_TEXT, "pad_id", "output_tokens", "hf_tokenizer_name", "tokenizer_kwargs", "hf_model_pretrained",
        "hf_proj_type", "hf_pooler_type", "hf_model_config", "bos_id", "eos_id",
    ),
}  # fmt: skip
"""Fields that give sizes, or that change nothing in a model without what the fields above would switch on."""


@dataclass(frozen=True)
class OpenClipSettings:
    """What the file says beside the sizes, which the tensors tell too."""

    path: Path
    activation: Activation
    vision_heads: int
    text_heads: int
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    dim: Any
    preprocess: Mapping[str, Any]

    def check(self, sizes: Sizes) -> None:
        """Raises UserError where the tensors have other sizes than the file says."""
        told = {
            "embed_dim": (self.dim, sizes.dim),
            "vision_cfg.width": (self.vision["width"], sizes.vision.width),
            "vision_cfg.layers": (self.vision["layers"], sizes.vision.layers),
            "vision_cfg.patch_size": (self.vision["patch_size"], sizes.patch),
            "vision_cfg.image_size": (self.vision["image_size"], sizes.side),
            "text_cfg.width": (self.text["width"], sizes.text.width),
            "text_cfg.layers": (self.text["layers"], sizes.text.layers),
            "text_cfg.vocab_size": (self.text["vocab_size"], sizes.words),
            "text_cfg.context_length": (self.text["context_length"], sizes.tokens),
        }
        for key, (said, there) in told.items():
            if said != there:
                raise UserError(
                    f"says {key}: {said!r}, and the weights have {there}.",
                    where=str(self.path),
                    fix="Use the settings that belong to these weights.",
                )


def read_open_clip_config(path: Path) -> OpenClipSettings:
    """Returns the settings; raises UserError for a model of another kind, naming the field that makes it one."""
    value = read_config(path)
    model = _keys(value.get("model_cfg"), "model_cfg", path)
    vision, text = (_keys(model.get(part), part, path) for part in ("vision_cfg", "text_cfg"))
    for part, found in (("vision_cfg", vision), ("text_cfg", text), ("model_cfg", model)):
        _refuse_unknown(part, found, path)
    if text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs"):
        own = (path.parent / "tokenizer.json").is_file() or (path.parent / "vocab.json").is_file()
        if not own:
            raise UserError(
                f"asks for another tokenizer, {text.get('hf_tokenizer_name') or text['tokenizer_kwargs']!r}.",
                where=str(path),
                fix="Put that tokenizer's files (tokenizer.json) into the same folder.",
            )
    vision, text = {**_VISION, **vision}, {**_TEXT, **text}
    numbers = {key: vision[key] for key in ("width", "head_width")} | {"heads": text["heads"]}
    if (
        not all(type(number) is int and number > 0 for number in numbers.values())
        or vision["width"] % vision["head_width"]
    ):
        raise UserError(f"has impossible sizes: {numbers}.", where=str(path), fix="Download the model again.")
    return OpenClipSettings(
        path=path,
        activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        vision_heads=vision["width"] // vision["head_width"],
        text_heads=text["heads"],
        vision=vision,
        text=text,
        dim=model.get("embed_dim"),
        preprocess=_keys(value.get("preprocess_cfg") or {}, "preprocess_cfg", path),
    )


def _keys(value: Any, name: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"has no {name} with keys and values.", where=str(path), fix="Download the model again, whole.")
    return value


def _refuse_unknown(part: str, found: Mapping[str, Any], path: Path) -> None:
    for key, value in found.items():
        if key in _HARMLESS[part] or value in _PLAIN[part].get(key, ()):
            continue
        raise UserError(
            f"has {part}.{key}: {value!r}, which makes it another kind of model than Limner holds.",
            where=str(path),
            fix="Use a model with two plain transformer towers, such as ViT-B-32 or ViT-L-14.",
        )


# -------------------------------------------------------------------------------------------------------- for others
def open_clip_config(sizes: Sizes, *, activation: Activation, preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns the file's values for a model; raises UserError for one that open_clip cannot be told of."""
    for name, tower in (("picture", sizes.vision), ("text", sizes.text)):
        if tower.width % tower.heads or int(tower.width * (tower.hidden / tower.width)) != tower.hidden:
            raise UserError(
                f"has a {name} tower whose MLPs have {tower.hidden} numbers, which open_clip's mlp_ratio cannot say.",
                where="export: open_clip",
                fix=_TRANSFORMERS,
            )
    vision: dict[str, Any] = {
        "image_size": sizes.side,
        "layers": sizes.vision.layers,
        "width": sizes.vision.width,
        "patch_size": sizes.patch,
    }
    if sizes.vision.width // sizes.vision.heads != HEAD_WIDTH:
        vision["head_width"] = sizes.vision.width // sizes.vision.heads
    text: dict[str, Any] = {
        "context_length": sizes.tokens,
        "vocab_size": sizes.words,
        "width": sizes.text.width,
        "heads": sizes.text.heads,
        "layers": sizes.text.layers,
    }
    for settings, tower in ((vision, sizes.vision), (text, sizes.text)):
        if tower.hidden != 4 * tower.width:
            settings["mlp_ratio"] = tower.hidden / tower.width
    model = {"embed_dim": sizes.dim, "vision_cfg": vision, "text_cfg": text}
    if activation == "quick_gelu":
        model["quick_gelu"] = True
    return {"model_cfg": model, "preprocess_cfg": preprocessing.as_open_clip()}

"""CLIP as OpenAI and open_clip name it, and as transformers does: the same numbers under other names.

The fused projection of queries, keys and values is one tensor there and three here; ``proj`` and ``text_projection``
are applied from the right there and from the left here, so they are transposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["quick_gelu", "gelu"]

HEAD_WIDTH = 64
"""Width of an attention head wherever no settings say it: OpenAI's models have no other."""
OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives have among their tensors, and no other program's files."""

_TEXT = "text_model."
_TOWERS = (("visual.", "vision_model."), ("", _TEXT))
_PLAIN = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"),
    ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
    ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
    ("visual.ln_post.bias", "vision_model.post_layernorm.bias"),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.weight", "text_model.final_layer_norm.weight"),
    ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ("logit_scale", "logit_scale"),
)
_TRANSPOSED = (("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight"))
_LAYER = (
    ("ln_1", "layer_norm1"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_FOREIGN = (
    ("visual.trunk.", "a picture tower of timm's"),
    ("visual.layer1.", "a picture tower that is a ResNet"),
    ("text_decoder.", "CoCa, which also writes captions"),
    ("text.transformer.embeddings.", "a text tower of transformers'"),
    ("text.transformer.encoder.", "a text tower of transformers'"),
    ("text.", "a text tower of open_clip's custom kind"),
    ("visual.attn_pool.", "a picture tower that pools by attention"),
    ("logit_bias", "a model of SigLIP's loss, with a bias"),
    ("text_model.", "a model under transformers' names, without its config.json"),
    ("vision_model.", "a model under transformers' names, without its config.json"),
)
_READABLE = "Limner reads CLIP with two transformer towers, such as OpenAI's ViT models and open_clip's ViT-B-32."

_READABLE_TEXT = "Limner reads the text towers of OpenAI's ViT models and of open_clip's plain ones, such as ViT-L-14."


@dataclass(frozen=True)
class Tower:
    """The sizes of one transformer."""

    width: int
    layers: int
    heads: int
    hidden: int
    """Width between the two layers of each MLP."""


@dataclass(frozen=True)
class Sizes:
    """Everything that the shapes of a CLIP model tell, and the heads, which they do not."""

    dim: int
    """Width of the space that both towers project into."""
    vision: Tower
    text: Tower
    patch: int
    side: int
    """Pixels on each side of a picture."""
    words: int
    tokens: int


Shapes = Mapping[str, tuple[int, ...]]


def stripped(names: Collection[str]) -> dict[str, str]:
    """Returns each name without ``module.``, which training on several GPUs puts before all, by the name itself."""
    all_have = all(name.startswith("module.") for name in names)
    return {name: name.removeprefix("module.") if all_have else name for name in names}


def sizes_of(shapes: Shapes, *, where: str, vision_heads: int | None = None, text_heads: int | None = None) -> Sizes:
    """Returns the sizes of a model under OpenAI's names.

    Raises UserError for other kinds of model, naming them, and for tensors that are missing, too many or misshapen.
    """
    for prefix, kind in _FOREIGN:
        if any(name.startswith(prefix) for name in shapes):
            raise UserError(f"is {kind}.", where=where, fix=_READABLE)
    for name in ("visual.conv1.weight", "visual.positional_embedding", "token_embedding.weight", "text_projection"):
        if name not in shapes:
            raise UserError(f"is no whole CLIP model: it has no {name!r}.", where=where, fix=_READABLE)
    try:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        side = math.isqrt(shapes["visual.positional_embedding"][0] - 1) * patch
        words, text_width = shapes["token_embedding.weight"]
        sizes = Sizes(
            dim=shapes["text_projection"][1],
            vision=_tower(shapes, "visual.", width, vision_heads, where),
            text=_tower(shapes, "", text_width, text_heads, where),
            patch=patch,
            side=side,
            words=words,
            tokens=shapes["positional_embedding"][0],
        )
    except (KeyError, ValueError, IndexError):
        raise UserError("has CLIP's names with other shapes.", where=where, fix=_READABLE) from None
    _compare(shapes, _expected(sizes), where)
    return sizes


@dataclass(frozen=True)
class TextSizes:
    """What the shapes of a text tower tell; its heads they do not."""

    width: int
    layers: int
    hidden: int
    words: int
    tokens: int


def text_sizes_of(shapes: Shapes, *, where: str) -> TextSizes:
    """Returns the sizes of the text tower of a model under OpenAI's names, or of a text tower alone.

    What belongs to the picture tower is not looked at. Raises UserError for other kinds of text tower, naming them, and
    for tensors that are missing, too many or misshapen.
    """
    found = {name: shape for name, shape in shapes.items() if not name.startswith(("visual.", "text_projection"))}
    for prefix, kind in _FOREIGN:
        if any(name.startswith(prefix) for name in found):
            raise UserError(f"is {kind}.", where=where, fix=_READABLE_TEXT)
    found.pop("logit_scale", None)
    if "token_embedding.weight" not in found:
        raise UserError("has no text tower: no 'token_embedding.weight'.", where=where, fix=_READABLE_TEXT)
    try:
        words, width = found["token_embedding.weight"]
        tokens = found["positional_embedding"][0]
        tower = _tower(found, "", width, 1, where)
    except (KeyError, ValueError, IndexError):
        raise UserError("has CLIP's names with other shapes.", where=where, fix=_READABLE_TEXT) from None
    expected: Shapes = {
        "token_embedding.weight": (words, width),
        "positional_embedding": (tokens, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        **_layer_shapes("", tower),
    }
    _compare(found, expected, where)
    return TextSizes(width, tower.layers, tower.hidden, words, tokens)


def _tower(shapes: Shapes, prefix: str, width: int, heads: int | None, where: str) -> Tower:
    pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    layers = {int(found[1]) for name in shapes if (found := pattern.match(name))}
    if heads is None and width % HEAD_WIDTH:
        raise UserError(
            f"has a tower of width {width}, no multiple of {HEAD_WIDTH}, so its attention heads cannot be told.",
            where=where,
            fix="Put its open_clip_config.json beside it.",
        )
    hidden = shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]
    return Tower(width, len(layers), heads or width // HEAD_WIDTH, hidden)


def _expected(sizes: Sizes) -> Shapes:
    """Returns the shape of every tensor of a model of these sizes."""
    vision, text, dim = sizes.vision.width, sizes.text.width, sizes.dim
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (vision,),
        "visual.conv1.weight": (vision, 3, sizes.patch, sizes.patch),
        "visual.positional_embedding": ((sizes.side // sizes.patch) ** 2 + 1, vision),
        "visual.proj": (vision, dim),
        "token_embedding.weight": (sizes.words, text),
        "positional_embedding": (sizes.tokens, text),
        "text_projection": (text, dim),
        "logit_scale": (),
    }
    for norm, width in (("visual.ln_pre", vision), ("visual.ln_post", vision), ("ln_final", text)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes | _layer_shapes("visual.", sizes.vision) | _layer_shapes("", sizes.text)


def _layer_shapes(prefix: str, tower: Tower) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    width, hidden = tower.width, tower.hidden
    for number in range(tower.layers):
        layer = f"{prefix}transformer.resblocks.{number}."
        shapes |= {f"{layer}{name}": (width,) for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")}
        shapes |= {
            f"{layer}attn.in_proj_weight": (3 * width, width),
            f"{layer}attn.in_proj_bias": (3 * width,),
            f"{layer}attn.out_proj.weight": (width, width),
            f"{layer}attn.out_proj.bias": (width,),
            f"{layer}mlp.c_fc.weight": (hidden, width),
            f"{layer}mlp.c_fc.bias": (hidden,),
            f"{layer}mlp.c_proj.weight": (width, hidden),
            f"{layer}mlp.c_proj.bias": (width,),
        }
    return shapes


def _compare(found: Shapes, expected: Shapes, where: str) -> None:
    missing, strange = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise UserError(f"lacks {len(missing)} tensors, such as {missing[0]!r}.", where=where, fix=_READABLE)
    if strange:
        raise UserError(
            f"has {len(strange)} tensors that a CLIP model of its sizes has not, such as {strange[0]!r}.",
            where=where,
            fix=_READABLE,
        )
    for name, shape in expected.items():
        scalar = name == "logit_scale" and found[name] == (1,)
        if found[name] != shape and not scalar:
            raise UserError(
                f"has {name!r} of shape {list(found[name])}, not {list(shape)}.", where=where, fix=_READABLE
            )


# --------------------------------------------------------------------------------------------------- the two layouts
def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of transformers' CLIPModel with the numbers of one under OpenAI's names."""
    found = {theirs: tensors[name] for name, theirs in _PLAIN}
    found["logit_scale"] = found["logit_scale"].reshape(())
    found |= {theirs: tensors[name].T.contiguous() for name, theirs in _TRANSPOSED}
    for prefix, tower in _TOWERS:
        found |= _layers_of_transformers(tensors, prefix, tower)
    return found


def text_to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of transformers' CLIPTextModel with the numbers of a text tower under OpenAI's names."""
    found = {theirs: tensors[name] for name, theirs in _PLAIN if theirs.startswith(_TEXT)}
    found |= _layers_of_transformers(tensors, "", _TEXT)
    return {name.removeprefix(_TEXT): value for name, value in found.items()}


def _layers_of_transformers(tensors: Mapping[str, Tensor], prefix: str, tower: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for number in range(_layers(tensors, f"{prefix}transformer.resblocks.")):
        layer, theirs = f"{prefix}transformer.resblocks.{number}.", f"{tower}encoder.layers.{number}."
        for kind in ("weight", "bias"):
            found |= {f"{theirs}{new}.{kind}": tensors[f"{layer}{old}.{kind}"] for old, new in _LAYER}
            parts = tensors[f"{layer}attn.in_proj_{kind}"].chunk(3)
            found |= {f"{theirs}{new}.{kind}": part.clone() for new, part in zip(_FUSED, parts, strict=True)}
    return found


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the opposite of :func:`to_transformers`, bit for bit."""
    import torch

    found = {name: tensors[theirs] for name, theirs in _PLAIN}
    found |= {name: tensors[theirs].T.contiguous() for name, theirs in _TRANSPOSED}
    for prefix, tower in _TOWERS:
        for number in range(_layers(tensors, f"{tower}encoder.layers.")):
            layer, theirs = f"{prefix}transformer.resblocks.{number}.", f"{tower}encoder.layers.{number}."
            for kind in ("weight", "bias"):
                found |= {f"{layer}{old}.{kind}": tensors[f"{theirs}{new}.{kind}"] for old, new in _LAYER}
                parts = [tensors[f"{theirs}{new}.{kind}"] for new in _FUSED]
                found[f"{layer}attn.in_proj_{kind}"] = torch.cat(parts)
    return found


def _layers(names: Collection[str], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)})


# ------------------------------------------------------------------------------------------------------- settings
def clip_config(sizes: Sizes, *, activation: Activation, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """Returns the settings of transformers' CLIPConfig for a model of these sizes.

    ``eos`` is the token whose state stands for the caption. OpenAI's code takes the highest id of a row, which is that
    token wherever it is the last word; transformers takes the first that equals ``eos_token_id``.
    """

    def tower(one: Tower) -> dict[str, Any]:
        return {
            "hidden_size": one.width,
            "intermediate_size": one.hidden,
            "num_hidden_layers": one.layers,
            "num_attention_heads": one.heads,
            "hidden_act": activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": sizes.dim,
        }

    words = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {
        "projection_dim": sizes.dim,
        "vision_config": {**tower(sizes.vision), "image_size": sizes.side, "patch_size": sizes.patch},
        "text_config": {
            **tower(sizes.text), **words, "vocab_size": sizes.words, "max_position_embeddings": sizes.tokens,
        },
    }  # fmt: skip

"""How far a tuned text encoder's hidden states moved: they are what Stable Diffusion reads, not CLIP's projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.models.evaluating import evaluating

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

LARGEST_MOVE = 0.1
"""Beyond this relative distance in the layer that the pipeline reads there is a warning.

In the built-in model one word of a caption exchanged for another of its kind (an orange butterfly for a green one)
moves the same states by more, in each pair of captions of :data:`WORLD` that a test compares. No more is known for it:
it was not calibrated by what pictures lose, and nothing was measured on weights of Stable Diffusion. The one tuned
encoder beyond it that was measured, on an earlier built-in model, cost its pictures nothing beyond the noise.
"""
PHOTOS = (
    "a photo of a dog in the snow",
    "a portrait of an old man, black and white",
    "two children on a beach",
    "a red car in front of a house",
    "a cup of coffee on a wooden table",
    "an oil painting of a ship in a storm",
    "a woman with a yellow umbrella in a city at night",
    "mountains behind a lake in the morning",
)
WORLD = (
    "a black butterfly over two pink pears in the snow, pencil drawing",
    "a large orange butterfly at the top in the snow",
    "a brown mushroom at the bottom on a plain background",
    "a watercolour painting of an orange whale on a plain background",
    "a comic of a black star and a brown cat on plain paper",
    "a red butterfly to the left of two yellow cats under the moon and stars in coloured pencil",
    "a black rabbit at night, pixel art",
    "a heart with bold outlines",
)
WORLD_NAME = "the built-in world"
PROMPTS: Mapping[str, Sequence[str]] = {"photos": PHOTOS, WORLD_NAME: WORLD}
"""Fixed captions by what they are about; that list is used which a vocabulary spells in fewer tokens a word."""
POSITIONS = ("first token", "words", "end token", "padding", "all tokens")


@dataclass(frozen=True)
class LayerMove:
    """||tuned - own|| / ||own|| of the hidden states of one layer, by the position of the token."""

    layer: str
    distances: Mapping[str, float]
    """By :data:`POSITIONS`; one that no prompt has is left out."""


@dataclass(frozen=True)
class Gauge:
    """How far the hidden states moved from those of the pipeline's own text encoder."""

    about: str
    """Which of :data:`PROMPTS` was read."""
    prompts: tuple[str, ...]
    layers: tuple[LayerMove, ...]
    """From the embeddings to the last, which the pipeline reads."""

    @property
    def moved(self) -> float:
        """The relative distance over all tokens in the layer that the pipeline reads."""
        return self.layers[-1].distances["all tokens"]

    @property
    def too_far(self) -> bool:
        return self.moved > LARGEST_MOVE

    def sentence(self) -> str:
        """Returns the one number in words."""
        return (
            f"the hidden states that the pipeline reads moved by {share(self.moved)} of their length "
            f"({len(self.prompts)} captions about {self.about})"
        )

    def warning(self) -> str | None:
        """Returns what should be told of a movement that is none, or too large."""
        if self.moved == 0:
            return "this text encoder gives the same hidden states as the model's own, so no picture will change"
        if not self.too_far:
            return None
        return (
            f"{share(self.moved)} is beyond {share(LARGEST_MOVE)}: the denoiser was not trained on such states, and "
            "pictures may suffer. Look at them with limner swap, blend less, or tune CLIP with an anchor"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Returns a row per layer, its distances in the order of :data:`POSITIONS`, in words."""
        return [
            (one.layer, *(share(one.distances[name]) if name in one.distances else "none" for name in POSITIONS))
            for one in self.layers
        ]

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values, for JSON."""
        layers = [{"layer": one.layer, **one.distances} for one in self.layers]
        return {
            "moved": self.moved, "bound": LARGEST_MOVE, "about": self.about, "prompts": list(self.prompts),
            "layers": layers,
        }  # fmt: skip


def share(value: float) -> str:
    """Returns a relative distance in percent; never 0 % for what is not."""
    if 0 < value < 0.0005:
        return "under 0.05 %"
    return f"{100 * value:.1f} %"


@dataclass(frozen=True, eq=False)
class States:
    """What a text encoder made of the fixed captions."""

    about: str
    prompts: tuple[str, ...]
    layers: tuple[Tensor, ...]
    """[B, L, D] after the embeddings and after each layer, the last one normed as it is read."""
    kinds: Mapping[str, Tensor]
    """Which tokens, [B, L], are of which of :data:`POSITIONS`."""


def read_states(encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> States:
    """Returns the hidden states of the captions that fit the vocabulary, read as the pipeline reads them: padded.

    Raises UserError for a model that reads too few tokens for any of them.
    """
    about, prompts = fitting_prompts(tokenizer)
    ids, kinds = _tokens(tokenizer, prompts)
    with evaluating([encoder]):
        return States(about, prompts, tuple(_states(encoder, ids)), kinds)


def movement(before: States, after: States) -> Gauge:
    """Returns how far the states moved; a distance is over all tokens of its kind and all prompts together."""
    layers = []
    for number, (base, moved) in enumerate(zip(before.layers, after.layers, strict=True)):
        name = "embeddings" if number == 0 else f"layer {number}"
        name = "read by the pipeline" if number == len(before.layers) - 1 else name
        distances = {kind: _distance(base, moved, where) for kind, where in before.kinds.items() if bool(where.any())}
        layers.append(LayerMove(name, distances))
    return Gauge(before.about, before.prompts, tuple(layers))


def measure_move(own: CLIPTextModel, tuned: CLIPTextModel, tokenizer: CLIPTokenizer) -> Gauge:
    """Returns how far ``tuned`` moved from ``own``, both in float32: :func:`movement` of what both read."""
    return movement(read_states(own, tokenizer), read_states(tuned, tokenizer))


def fitting_prompts(tokenizer: CLIPTokenizer) -> tuple[str, tuple[str, ...]]:
    """Returns which of :data:`PROMPTS` the vocabulary spells in fewer tokens a word, and those that fit its length."""
    counts = {about: _counts(tokenizer, prompts) for about, prompts in PROMPTS.items()}
    words = {about: sum(len(prompt.split()) for prompt in prompts) for about, prompts in PROMPTS.items()}
    about = min(PROMPTS, key=lambda name: sum(counts[name]) / words[name])
    kept = [p for p, count in zip(PROMPTS[about], counts[about], strict=True) if count <= tokenizer.model_max_length]
    if not kept:
        raise UserError(
            f"it reads {tokenizer.model_max_length} tokens, too few for any of the captions that a text encoder is "
            "compared on.",
            where="text encoder",
            fix="Use a model that reads more.",
        )
    return about, tuple(kept)


def _counts(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(prompts), truncation=False, padding=False, verbose=False).input_ids]


def _tokens(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
    """Returns what the encoder reads, and which tokens [B, L] are of which of :data:`POSITIONS`."""
    import torch

    read: Any = tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    place = torch.arange(read.input_ids.shape[1])[None]
    end = torch.tensor(_counts(tokenizer, prompts))[:, None] - 1
    first = (place == 0).expand_as(read.input_ids)
    return read, {
        "first token": first,
        "words": ~first & (place < end),
        "end token": place == end,
        "padding": place > end,
        "all tokens": torch.ones_like(first),
    }


def _states(encoder: CLIPTextModel, read: Any) -> list[Tensor]:
    """Returns the states [B, L, D] after the embeddings and after each layer, the last one normed as it is read."""
    masked = encoder.config.to_dict().get("use_attention_mask", False)  # as in SD1Model.encode_prompts
    mask = read.attention_mask.to(encoder.device) if masked else None
    answer = encoder(read.input_ids.to(encoder.device), attention_mask=mask, output_hidden_states=True)
    return [*answer.hidden_states[:-1], answer.last_hidden_state]


def _distance(base: Tensor, moved: Tensor, where: Tensor) -> float:
    where = where.to(base.device)
    own, other = base[where].double(), moved[where].double()
    return float((other - own).norm() / own.norm())

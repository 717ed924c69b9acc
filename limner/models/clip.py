"""CLIP (arXiv:2103.00020): pictures and captions in one space, from transformers', open_clip's and OpenAI's files."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.models.clip_files import SMALL_FILES, WEIGHTS, ActivationChoice, ForeignClip, is_foreign, open_foreign
from limner.models.clip_heads import HeadKind, HeadShape, put_head, read_heads, towers_folder
from limner.models.clip_text import CaptionReader, Layer, text_states
from limner.models.clip_vocabulary import read_tokenizer
from limner.models.preprocessing import Preprocessing, from_transformers
from limner.models.protocol import ModelSource
from limner.models.safety import check_tree, read_config
from limner.models.tokens import TokenCounter
from limner.models.weights import (
    BUILTIN,
    Located,
    content_hash,
    find_weights,
    locate,
    no_weights,
    quiet,
    weight_patterns,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn
    from transformers import CLIPModel, CLIPTokenizer

_STEM = "model"
_SMALL_FILES = ("config.json", "preprocessor_config.json", *SMALL_FILES)
_CLASS = "CLIPModel"


class Clip(Config):
    """A CLIP model: a picture tower and a text tower."""

    kind: Literal["clip"] = "clip"
    path: str = Field(min_length=1)
    """A Hub id such as openai/clip-vit-base-patch32, a folder of transformers or open_clip, a checkpoint of open_clip,
    OpenAI's original file, or builtin."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; unset is its main branch."""
    activation: ActivationChoice = "auto"
    """What the towers compute between the layers of their MLPs: quick_gelu (OpenAI's) or gelu (most of open_clip's).
    auto is what the model's files say; a bare state dict does not say it."""
    tokenizer: str | None = Field(default=None, min_length=1)
    """For a checkpoint without a tokenizer: a folder with one, OpenAI's bpe_simple_vocab_16e6.txt.gz, or a Hub id.
    Unset: what lies beside the checkpoint, else that of openai/clip-vit-base-patch32."""

    def load(self) -> ClipModel:
        """Returns the model in float32, not training. A Hub model is downloaded first."""
        import torch
        from transformers import CLIPModel

        small = self._locate(_SMALL_FILES)
        if is_foreign(small.path):
            return self._load_foreign(small)
        self._refuse_foreign_settings()
        patterns = [*_SMALL_FILES, *(name.removeprefix("./") for name in weight_patterns(".", _STEM))]
        place = self._locate(patterns)
        folder = _checked(towers_folder(place.path))
        if find_weights(folder, _STEM) is None:
            raise no_weights(folder, _STEM)
        with quiet():
            network, info = CLIPModel.from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        gaps = sorted([*info["missing_keys"], *info["unexpected_keys"]])
        if gaps:
            raise UserError(
                f"does not fit its settings: {len(gaps)} tensors are missing or too many, such as {gaps[0]!r}.",
                where=str(folder),
                fix="Download the model again, whole.",
            )
        read_heads(network, place.path)
        preprocessing, notices = _preprocessing(folder, int(network.config.vision_config.image_size))
        return ClipModel(
            network=network.requires_grad_(False).eval(),
            tokenizer=_tokenizer(folder),
            preprocessing=preprocessing,
            source=ModelSource(self.path, "clip", place.revision),
            folder=folder,
            notices=notices,
        )

    def token_counter(self) -> TokenCounter:
        """Returns what can be said of captions and sizes without reading weights."""
        place = self._locate(_SMALL_FILES)
        if is_foreign(place.path):
            found = self._open_foreign(place)
            return TokenCounter(found.tokenizer(self.tokenizer), found.sizes.tokens, size_multiple=found.sizes.side)
        self._refuse_foreign_settings()
        folder = _checked(towers_folder(place.path))
        tokenizer = _tokenizer(folder)
        side = int(read_config(folder / "config.json")["vision_config"].get("image_size", 224))
        return TokenCounter(tokenizer, limit=tokenizer.model_max_length, size_multiple=side)

    def _load_foreign(self, place: Located) -> ClipModel:
        found = self._open_foreign(place)
        tokenizer, preprocessing = found.tokenizer(self.tokenizer), found.preprocessing()
        return ClipModel(
            network=found.load(tokenizer).requires_grad_(False).eval(),
            tokenizer=tokenizer,
            preprocessing=preprocessing,
            source=ModelSource(self.path, "clip", place.revision),
            folder=found.folder,
            notices=(*found.notices, *preprocessing.notices(found.weights)),
        )

    def _open_foreign(self, place: Located) -> ForeignClip:
        """Checks a checkpoint; of a Hub model the first of the weights that it has is downloaded."""
        if place.revision is not None:
            for name in WEIGHTS:
                place = self._locate([*_SMALL_FILES, name])
                if (place.path / name).is_file():
                    break
        return open_foreign(place, self.activation)

    def _refuse_foreign_settings(self) -> None:
        for key, given in (("activation", self.activation != "auto"), ("tokenizer", self.tokenizer is not None)):
            if given:
                raise UserError(
                    f"has no meaning for {self.path!r}, a folder of transformers', which says it itself.",
                    where=f"model.{key}",
                    fix="Leave it out; it is for checkpoints that do not say it.",
                )

    def _locate(self, patterns: Sequence[str]) -> Located:
        place = locate(self.path, self.revision, hub_patterns=patterns)
        return Located(place.path / "clip") if self.path == BUILTIN else place


def exported_clip(run: Path) -> Path | None:
    """Returns the CLIP model that a run folder's export holds, with new heads if it has some; None where there is none.

    It may be there and not be finished: ``Clip`` says so when it reads it.
    """
    folder = RunDir(run).export / "transformers"
    return folder if folder.is_dir() else None


def _checked(path: Path) -> Path:
    """Returns the folder; raises where it is none of a CLIP model."""
    if not (path / "config.json").is_file():
        raise UserError(
            "is no CLIP model: it has no config.json.",
            where=str(path),
            fix="Name a folder of transformers' CLIPModel, or a Hub id such as openai/clip-vit-base-patch32.",
        )
    check_tree(path)
    config = read_config(path / "config.json")
    classes = config.get("architectures") or [_CLASS]
    if config.get("model_type") != "clip" or classes != [_CLASS]:
        raise UserError(
            f"is {config.get('model_type')} {classes}, not a {_CLASS}.",
            where=str(path / "config.json"),
            fix="Name a whole CLIP model, with both towers.",
        )
    return path


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Returns the tokenizer, once it is sure that the text tower pools at the token that ends a caption.

    transformers pools at the first token that equals ``eos_token_id``, and without an error at the first of all where
    none does; where the settings say 2, as OpenAI's old ones do, it pools at the highest number.
    """
    text = read_config(folder / "config.json").get("text_config") or {}
    tokenizer = read_tokenizer(folder, text.get("max_position_embeddings", 77))
    end = text.get("eos_token_id", 49407)
    if end not in (2, tokenizer.eos_token_id) or (end == 2 and tokenizer.eos_token_id != len(tokenizer) - 1):
        raise UserError(
            f"says that token {end} ends a caption; for its tokenizer of {len(tokenizer):,} words that is "
            f"{tokenizer.eos_token_id}.",
            where=str(folder / "config.json"),
            fix="Use the tokenizer that belongs to the model, or set text_config.eos_token_id to its end.",
        )
    return tokenizer


def _preprocessing(folder: Path, side: int) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns how the model's pictures are prepared, and what should be told of it."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        told = f"{folder}: has no preprocessor_config.json; OpenAI's colour statistics are used"
        return Preprocessing(side), (told,)
    found = from_transformers(read_config(file), side, where=file)
    return found, found.notices(file)


def _refuse_trained(network: nn.Module) -> None:
    if any(parameter.requires_grad for parameter in network.parameters()):
        raise RuntimeError("the hash must be taken before the model is trained: it stands for the base model")


@dataclass(frozen=True, eq=False)
class ClipModel:
    """A :class:`~limner.models.protocol.DualEncoder` around transformers' CLIPModel."""

    network: CLIPModel
    tokenizer: CLIPTokenizer
    preprocessing: Preprocessing
    """How the pictures that the picture tower learned from were made."""
    source: ModelSource
    folder: Path
    """The folder whose small files (tokenizer, settings) belong to the model."""
    notices: tuple[str, ...] = ()

    @property
    def means(self) -> tuple[float, ...]:
        """Mean of each colour, of values in [0, 1], that the picture tower subtracts."""
        return self.preprocessing.means

    @property
    def stds(self) -> tuple[float, ...]:
        """Deviation of each colour that it divides by."""
        return self.preprocessing.stds

    def prepare(self, image: Image.Image) -> Tensor:
        """Returns a picture exactly as the model was made for it, float32 [3, H, W] in [-1, 1]."""
        return self.preprocessing.prepare(image)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {
            "vision_model": self.network.vision_model,
            "visual_projection": self.network.visual_projection,
            "text_encoder": self.network.text_model,
            "text_projection": self.network.text_projection,
            "temperature": self._temperature,
        }

    @functools.cached_property
    def _temperature(self) -> nn.Module:
        """The network's ``logit_scale``, the same parameter, as a module, so that it has a name like all others."""
        from torch import nn

        return nn.ParameterDict({"logit_scale": self.network.logit_scale})

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the factor of all similarities."""
        return self.network.logit_scale

    @functools.cached_property
    def loss_parameters(self) -> nn.ParameterDict:
        """What a loss trains beside the networks; CLIPModel has no place for it, so no export holds it."""
        from torch import nn

        return nn.ParameterDict()

    @functools.cached_property
    def _captions(self) -> CaptionReader:
        return CaptionReader(self.tokenizer, self.token_limit)

    @property
    def size_multiple(self) -> int:
        """The picture tower reads one size only, so it is that size."""
        return self.default_size

    @property
    def default_size(self) -> int:
        return int(self.network.config.vision_config.image_size)

    @property
    def token_limit(self) -> int:
        return int(self.tokenizer.model_max_length)

    def identity(self) -> dict[str, str]:
        """Returns what must stay for a checkpoint to be continued: a hash of weights, settings and tokenizer."""
        return {"clip": self._hash, "clip.colours": json.dumps([self.means, self.stds])}

    @functools.cached_property
    def _hash(self) -> str:
        _refuse_trained(self.network)
        return content_hash(self.network, self.network.config.to_dict(), self._words, str(self.token_limit))

    @functools.cached_property
    def _words(self) -> str:
        """The tokenizer without what is set at each call."""
        words = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return json.dumps({key: value for key, value in words.items() if key not in ("truncation", "padding")})

    def image_encoder_hash(self) -> str:
        """Returns the hash of what the picture tower's output depends on."""
        return self._image_hash

    def text_encoder_hash(self) -> str:
        """Returns the hash of what the text tower's output depends on."""
        return self._text_hash

    @functools.cached_property
    def _image_hash(self) -> str:
        _refuse_trained(self.network.vision_model)
        tower, colours = self.network.vision_model, json.dumps([self.means, self.stds])
        return content_hash(tower, tower.config.to_dict(), colours)

    @functools.cached_property
    def _text_hash(self) -> str:
        tower = self.network.text_model
        _refuse_trained(tower)
        return content_hash(tower, tower.config.to_dict(), self._words, str(self.token_limit))

    def put_head(self, part: str, head: HeadKind, *, dim: int, hidden: int | None, seed: int) -> None:
        """Puts a new head, float32, in the place of ``visual_projection`` or ``text_projection``."""
        put_head(self.network, part, HeadShape(head=head, dim=dim, hidden=hidden), seed=seed)

    def to(self, device: torch.device, dtype: torch.dtype, *, float32: Collection[str] = ()) -> None:
        """Moves the networks; those named in ``float32`` keep it, and so does the temperature."""
        import torch

        self.network.to(device)
        for name, network in self.networks.items():
            if name != "temperature":
                network.to(torch.float32 if name in float32 else dtype)

    def train_mode(self, parts: Collection[str]) -> None:
        """Puts the networks named in ``parts`` into training mode and the others into evaluation mode."""
        for name, network in self.networks.items():
            network.train(name in parts)

    def checkpoint_gradients(self) -> None:
        """Makes the towers that train compute activations again in the backward pass: less memory, more time."""
        for tower in (self.network.vision_model, self.network.text_model):
            if any(parameter.requires_grad for parameter in tower.parameters()):
                tower.gradient_checkpointing_enable({"use_reentrant": False})

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Returns the tokens of each prompt, the two special ones included, before any cut."""
        return TokenCounter(self.tokenizer, self.token_limit, self.size_multiple).count(prompts)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Returns [B, D] of unit norm, float32, of pixels [B, 3, H, W] in [-1, 1] or pooled [B, width]."""
        from torch.nn import functional

        pooled = pixels if pixels.dim() == 2 else self.pool_images(pixels)
        return functional.normalize(self.network.visual_projection(pooled).float(), dim=-1)

    def pool_images(self, pixels: Tensor) -> Tensor:
        """Returns the picture tower's output before the projection, [B, width], of pixels [B, 3, H, W] in [-1, 1]."""
        import torch

        means = torch.tensor(self.means, device=pixels.device).view(1, 3, 1, 1)
        stds = torch.tensor(self.stds, device=pixels.device).view(1, 3, 1, 1)
        standard = (((pixels + 1) / 2 - means) / stds).to(self.network.visual_projection.weight.dtype)
        pooled: Tensor = self.network.vision_model(standard).pooler_output
        return pooled

    def embed_prompts(self, prompts: Sequence[str] | Tensor) -> Tensor:
        """Returns [B, D] of unit norm, float32, of prompts or pooled [B, width]; gradients flow."""
        import torch
        from torch.nn import functional

        pooled = prompts if isinstance(prompts, torch.Tensor) else self.pool_prompts(prompts)
        return functional.normalize(self.network.text_projection(pooled).float(), dim=-1)

    def pool_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Returns the text tower's output before the projection, [B, width]; prompts are cut at the token limit."""
        ids = self._captions.padded(prompts, whole=False).to(self.network.text_projection.weight.device)
        pooled: Tensor = self.network.text_model(ids).pooler_output
        return pooled

    def token_ids(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the ids of each prompt as they are read: special ones included, cut at the limit, not padded."""
        return self._captions.ids(prompts)

    def prompt_states(self, prompts: Sequence[str], *, layer: Layer) -> Tensor:
        """Returns the text tower's states [B, token limit, D] after the final norm; gradients flow."""
        ids = self._captions.padded(prompts, whole=True).to(self.network.text_projection.weight.device)
        return text_states(self.network.text_model, ids, layer)

"""What every model family offers to methods, objectives, caches, samples and exports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from limner.diffusion.process import NoiseProcess

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

Conditioning = dict[str, "Tensor"]
"""What a denoiser reads beside x_t and t; every tensor is [B, ...]."""


@dataclass(frozen=True)
class EncoderSource:
    """A tuned text encoder that stands in place of a model's own."""

    name: str
    """As the user gave it: a run, a folder, a file or a Hub id."""
    blend: float
    """In [0, 1]: weights between the model's own and the tuned ones."""
    weights_hash: str
    """SHA-256 of the weights that came of it."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from, for checkpoints, exported files and messages."""

    name: str
    """As the user gave it: a Hub id, a folder or a file."""
    family: str
    revision: str | None = None
    """The Hub commit, where there is one."""
    text_encoder: EncoderSource | None = None
    """What stands in place of the model's own text encoder, if anything does."""


class Trained(Protocol):
    """What every family offers to a run. B batch, C channels, H W pixels, h w latent, L tokens, D features."""

    @property
    def source(self) -> ModelSource: ...
    @property
    def size_multiple(self) -> int:
        """Both sides of a picture must be multiples of this many pixels."""

    @property
    def default_size(self) -> int:
        """The side, in pixels, of the pictures that the model was made for."""

    @property
    def token_limit(self) -> int:
        """Tokens that the text encoder reads, the two special ones included."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network by the name that diffusers or transformers gives it: ``unet``, ``vae``, ``text_encoder``."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should be told about the files and settings, a sentence each."""

    def identity(self) -> dict[str, str]:
        """Returns what must stay for a checkpoint to be continued: hashes of weights and settings, before training."""

    def to(self, device: torch.device, dtype: torch.dtype, *, float32: Collection[str] = ()) -> None:
        """Moves the networks; those named in ``float32`` keep it, and so does an autoencoder, which would overflow."""

    def train_mode(self, parts: Collection[str]) -> None:
        """Puts the networks named in ``parts`` into training mode and the others into evaluation mode."""

    def checkpoint_gradients(self) -> None:
        """Makes what trains compute activations again in the backward pass: less memory, more time."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Returns the tokens of each prompt, special ones included, before any cut."""


class DualEncoder(Trained, Protocol):
    """Pictures and captions in one space."""

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the factor of all similarities."""

    def prepare(self, image: Image.Image) -> Tensor:
        """Returns a picture exactly as the model was made for it, float32 [3, H, W] in [-1, 1]."""

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Returns [B, D] of unit norm, float32; gradients flow.

        ``pixels`` is [B, 3, H, W] in [-1, 1], or what :meth:`pool_images` gave for them.
        """

    def embed_prompts(self, prompts: Sequence[str] | Tensor) -> Tensor:
        """Returns [B, D] of unit norm, float32, of prompts or of what :meth:`pool_prompts` gave; gradients flow."""

    def pool_images(self, pixels: Tensor) -> Tensor:
        """Returns what the picture tower makes of pixels [B, 3, H, W] in [-1, 1] before the projection, [B, width]."""

    def pool_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Returns what the text tower makes of prompts before the projection, [B, width]."""

    def image_encoder_hash(self) -> str:
        """Returns the hash of all that :meth:`pool_images` depends on; call it while the tower is the base's."""

    def text_encoder_hash(self) -> str:
        """Returns the hash of all that :meth:`pool_prompts` depends on; call it while the tower is the base's."""

    def put_head(
        self, part: str, head: Literal["linear", "mlp", "residual"], *, dim: int, hidden: int | None, seed: int
    ) -> None:
        """Puts a new head, float32, in the place of ``visual_projection`` or ``text_projection``."""

    @property
    def loss_parameters(self) -> nn.ParameterDict:
        """What a loss trains beside the networks, such as a bias; checkpoints hold it, exports do not."""

    def token_ids(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the ids of each prompt as they are read: special ones included, cut at the limit, not padded."""

    def prompt_states(self, prompts: Sequence[str], *, layer: Literal["last", "penultimate"]) -> Tensor:
        """Returns the text tower's states [B, token limit, D] after the final norm; gradients flow."""


class DiffusionModel(Trained, Protocol):
    """A text-to-image diffusion model."""

    def full_parts(self, *, text_encoder: bool) -> dict[str, nn.Module]:
        """Returns the networks that full fine-tuning trains, by name; the text encoders only if asked for."""

    @property
    def denoiser(self) -> nn.Module: ...
    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """By the names that diffusers gives them: ``text_encoder``, ``text_encoder_2``."""

    @property
    def process(self) -> NoiseProcess: ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Returns the moments of the posterior, [B, 2C, h, w], of pixels [B, 3, H, W] in [-1, 1]; no randomness."""

    def reconstruct(self, pixels: Tensor, noise: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the moments [B, 2C, h, w] of pixels and the pixels [B, 3, H, W] decoded from a sample of them.

        ``noise`` gives the sample's normal numbers, [B, C, h, w] for the shape (C, h, w). Gradients flow.
        """

    def sample_latents(self, moments: Tensor, eps: Tensor) -> Tensor:
        """Returns scaled latents [B, C, h, w] = scale * (mean + std * eps)."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W], about in [-1, 1]."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Returns the text states; gradients flow where the text encoder trains."""

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the denoiser's output, [B, C, h, w]; t is [B]."""

    def image_encoder_hash(self) -> str:
        """Returns a hash of the autoencoder's weights and settings, for cache keys."""

    def text_encoder_hash(self) -> str:
        """Returns a hash of the text encoders' weights, settings and tokenizers, for cache keys."""

    def add_placeholder(self, token: str, vectors: int, initialise: str) -> dict[str, nn.Parameter]:
        """Makes ``token`` a new word of ``vectors`` vectors that train, and returns them by name, [D] float32 each.

        They begin as those of the word ``initialise``. Raises UserError where ``token`` is no new word, or where
        ``initialise`` has neither one token nor as many as there are vectors.
        """

    def denoiser_hash(self) -> str:
        """Returns a hash of the denoiser's weights and settings, so that a checkpoint knows its base."""

    def pipeline(self, scheduler: str = "") -> Any:
        """Returns a diffusers pipeline around the same networks; ``scheduler`` names one of evaluation.SCHEDULERS."""

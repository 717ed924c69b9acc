"""Networks that see pictures and read no words, as DINO and DINOv2: pictures in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.models.evaluating import evaluating
from limner.models.preprocessing import Preprocessing, from_transformers
from limner.models.safety import check_tree, read_config
from limner.models.weights import find_weights, locate, no_weights, quiet, weight_patterns

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

FAMILIES = ("dinov2", "vit")
"""What transformers calls ``model_type``: those whose first token stands for the whole picture, after the last norm.
The first is DINOv2 (arXiv:2304.07193), the second holds DINO (arXiv:2104.14294), among others."""
_STEM = "model"
_SMALL_FILES = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True, eq=False)
class VisionEncoder:
    """A vision transformer, not training."""

    network: Any
    preprocessing: Preprocessing
    name: str
    """As it was asked for."""

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        self.network.to(device)

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns the features of the pictures, [N, D] float32 on the CPU, as the network gives them."""
        import torch

        means, stds = (torch.tensor(of)[:, None, None] for of in (self.preprocessing.means, self.preprocessing.stds))
        pixels = torch.stack([self.preprocessing.prepare(image) for image in images])
        centred = ((pixels + 1) / 2 - means) / stds
        with evaluating([self.network]):
            states: Tensor = self.network(pixel_values=centred.to(self.network.device)).last_hidden_state
        return states[:, 0].float().cpu()


def load_vision(name: str) -> VisionEncoder:
    """Returns the encoder called ``name``, a Hub id or a folder of transformers, in float32; safetensors only."""
    import torch
    import transformers

    patterns = [*_SMALL_FILES, *(pattern.removeprefix("./") for pattern in weight_patterns(".", _STEM))]
    folder = locate(name, None, hub_patterns=patterns).path
    preprocessing = _checked(folder)
    if find_weights(folder, _STEM) is None:
        raise no_weights(folder, _STEM)
    with quiet():
        network, info = transformers.AutoModel.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    gaps = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))  # the first token is read
    if gaps:
        raise UserError(
            f"does not fit its settings: {len(gaps)} tensors are missing, such as {gaps[0]!r}.",
            where=str(folder),
            fix="Download the model again, whole.",
        )
    return VisionEncoder(network.requires_grad_(False).eval(), preprocessing, name)


def _checked(folder: Path) -> Preprocessing:
    """Returns how a folder's network wants its pictures; raises where it is none of the known."""
    for name in _SMALL_FILES:
        if not (folder / name).is_file():
            raise UserError(f"has no {name}.", where=str(folder), fix="Download the model again, whole.")
    check_tree(folder)
    config = read_config(folder / "config.json")
    if config.get("model_type") not in FAMILIES:
        raise UserError(
            f"is {config.get('model_type')!r}; its features are not known here.",
            where=str(folder / "config.json"),
            fix=f"Name a model of the kinds {', '.join(FAMILIES)}, such as facebook/dinov2-small.",
        )
    file = folder / "preprocessor_config.json"
    settings = _as_clip(read_config(file))
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else settings.get("size")
    side = crop.get("height") if isinstance(crop, dict) else crop
    return from_transformers(settings, side if isinstance(side, int) else 224, where=file)


def _as_clip(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of ViTImageProcessor, which presses a picture into a square and cuts nothing, as CLIP's."""
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    if not kind.startswith(("ViTImageProcessor", "ViTFeatureExtractor")):
        return settings
    size = settings.get("size", 224)
    square = {"height": size, "width": size} if isinstance(size, int) else size
    return {"resample": 2, **settings, "size": square, "do_center_crop": False}

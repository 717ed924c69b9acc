"""Image-to-text models of transformers: a picture in, a caption out, the same caption at every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError
from limner.data.text import one_line
from limner.models.safety import check_tree, read_config
from limner.models.weights import find_weights, locate, no_weights, quiet, weight_patterns
from limner.reading.embedding import options_named

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

DEFAULT_CAPTIONER = "Salesforce/blip-image-captioning-base"
MAX_TOKENS = 50
FAMILIES = ("blip", "blip-2", "git")
"""What transformers calls ``model_type``: those whose captions are read here as a test shows. Others want a
conversation, or other steps around the model, and would write nonsense if they were treated like these."""

_STEM = "model"
_CHECKED = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
_SMALL_FILES = (
    *_CHECKED, "generation_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What a model wrote for one picture."""

    caption: str
    note: str = ""
    """What should be known of it."""


@dataclass(frozen=True, eq=False)
class Captioner:
    """An image-to-text model with all that belongs to it."""

    network: Any
    tokenizer: Any
    processor: Any
    family: str
    name: str
    prompt: str
    beams: int

    def write(self, pictures: Sequence[Image.Image]) -> list[Written]:
        """Returns a caption for each picture, by beam search; the prompt itself is no part of it."""
        import torch

        weight = next(self.network.parameters())
        pixels = self.processor(list(pictures), return_tensors="pt").pixel_values.to(weight.device, weight.dtype)
        given, length = self._prompt_ids()
        ids = None if given is None else torch.tensor([given] * len(pictures), device=weight.device)
        with torch.inference_mode():
            written: Tensor = self.network.generate(
                pixel_values=pixels,
                input_ids=ids,
                max_new_tokens=MAX_TOKENS,
                num_beams=self.beams,
                do_sample=False,
            )
        return [self._read(row[length:].tolist()) for row in written]

    def _read(self, ids: list[int]) -> Written:
        special = set(self.tokenizer.all_special_ids)
        cut = len(ids) >= MAX_TOKENS and ids[-1] not in special
        text = one_line(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Written(text, f"cut off after {MAX_TOKENS} tokens" if cut else "")

    def _prompt_ids(self) -> tuple[list[int] | None, int]:
        """Returns the tokens that the model is given, and how many of those that it returns are not its own."""
        if self.family == "blip-2":
            return self._queries_and_prompt()
        ids = list(self.tokenizer(self.prompt).input_ids)  # [CLS] prompt [SEP]
        if self.family == "blip":
            return ids, len(ids) - 1  # its generate() takes the last token off
        return ids[:-1], len(ids) - 1

    def _queries_and_prompt(self) -> tuple[list[int] | None, int]:
        config = self.network.config
        queries = [config.image_token_id] * config.num_query_tokens
        repeats_input = not self.network.language_model.config.is_encoder_decoder
        if not self.prompt:
            return None, len(queries) + 1 if repeats_input else 0
        ids = queries + list(self.tokenizer(self.prompt).input_ids)
        return ids, len(ids) if repeats_input else 0


def load_captioner(name: str, *, revision: str | None, device: str, prompt: str, beams: int) -> Captioner:
    """Returns the image-to-text model called ``name``: a Hub id or a transformers folder, safetensors only."""
    import transformers
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from limner.training.precision import choose_device, choose_precision

    patterns = [*_SMALL_FILES, *(pattern.removeprefix("./") for pattern in weight_patterns(".", _STEM))]
    with options_named():
        folder = locate(name, revision, hub_patterns=patterns).path
        family = _family(folder)
    precision = choose_precision("auto", choose_device(device))
    with quiet():
        network, info = transformers.AutoModelForImageTextToText.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            dtype=precision.dtype,
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        processors = {"blip": BlipImageProcessorPil, "blip-2": BlipImageProcessorPil, "git": CLIPImageProcessorPil}
        processor = processors[family].from_pretrained(str(folder), local_files_only=True)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"does not fit its settings: {len(missing)} tensors are missing, such as {missing[0]!r}.",
            where=str(folder),
            fix="Name a model that writes captions, whole.",
        )
    if family == "blip-2" and network.config.image_token_index is None:
        raise UserError(
            "has settings of an older release, without image_token_index.",
            where=str(folder / "config.json"),
            fix="Download the model again.",
        )
    network.requires_grad_(False).eval().to(precision.device)
    return Captioner(network, tokenizer, processor, family, name, prompt, beams)


def _family(folder: Path) -> str:
    """Returns the family of the model in a folder; raises UserError where it is none that can be used."""
    fix = f"Name one that does, such as {DEFAULT_CAPTIONER}; its model_type is {', '.join(FAMILIES)}."
    if not (folder / "config.json").is_file():
        raise UserError("is no model that writes captions: it has no config.json.", where=str(folder), fix=fix)
    check_tree(folder)
    configs = {name: read_config(folder / name) for name in _CHECKED if (folder / name).is_file()}
    family = configs["config.json"].get("model_type")
    if family not in FAMILIES:
        raise UserError(f"is a {family!r} model, which writes no captions here.", where=str(folder), fix=fix)
    for needed in ("preprocessor_config.json", "tokenizer_config.json"):
        if needed not in configs:
            raise UserError(f"has no {needed}.", where=str(folder), fix="Download the model again, whole.")
    if find_weights(folder, _STEM) is None:
        error = no_weights(folder, _STEM)
        more = " On the Hub, weights in safetensors may lie in another revision: --revision refs/pr/NUMBER."
        raise UserError(error.what, where=error.where, fix=error.fix + more)
    return str(family)

"""How diffusers loads what a run exports, as code that a model card shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limner.config import RunConfig
from limner.core.naming import public_name
from limner.models.adapter_files import WEIGHTS
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.weights import BUILTIN

ELSEWHERE = "path/to/the/base/model"
"""Stands for a base model that has no public name."""


@dataclass(frozen=True)
class Files:
    """Where the files of a checkpoint lie, for those who load them."""

    weights: str
    """A Hub id, or a folder."""
    folders: Mapping[str, str]
    """By kind of export its folder in there; empty: there itself."""


def on_the_hub(kinds: Sequence[str]) -> dict[str, str]:
    """Returns the folder of each kind of export in a Hub repository: what diffusers reads lies at its root, since
    whole pipelines load from nowhere else."""
    first = next((kind for kind in ("diffusers", "embedding") if kind in kinds), None)
    return {kind: "" if kind == first else kind for kind in kinds}


def hub_id(name: str) -> str | None:
    """Returns the name of a model as the Hub knows it; None for a folder, a file or the built-in model."""
    shown = public_name(name)
    return shown if shown == name and "/" in shown else None


def loading_code(config: RunConfig, files: Files, prompt: str) -> str | None:
    """Returns Python that loads the files and draws ``prompt``; None where only other programs read them."""
    if config.method.kind == "full":
        return _whole_model(config, files, prompt) if "diffusers" in files.folders else None
    found = _on_the_base(config, files)
    if found is None:
        return None
    imports, base = ["from diffusers import StableDiffusionPipeline"], repr(hub_id(config.model.path) or ELSEWHERE)
    if config.model.path == BUILTIN:
        imports, base = [*imports, "from limner.models.weights import builtin_folder"], "builtin_folder()"
    if any("PeftModel" in line for line in found):
        imports.insert(1, "from peft import PeftModel")
    reader = "from_single_file" if config.model.path.lower().endswith(".safetensors") else "from_pretrained"
    revision = "" if config.model.revision is None else f", revision={config.model.revision!r}"
    lines = [f"base = {base}", f"weights = {files.weights!r}"]
    lines += [f"pipeline = StableDiffusionPipeline.{reader}(base{revision})", *found, *_drawing(config, prompt)]
    return "\n".join([*imports, "", *lines])


def _whole_model(config: RunConfig, files: Files, prompt: str) -> str:
    folder = files.folders["diffusers"]
    lines = ["from diffusers import StableDiffusionPipeline", ""]
    weights = f"{files.weights}/{folder}" if folder else files.weights
    lines.append(f"weights = {weights!r}")
    return "\n".join([*lines, "pipeline = StableDiffusionPipeline.from_pretrained(weights)", *_drawing(config, prompt)])


def _on_the_base(config: RunConfig, files: Files) -> list[str] | None:
    """Returns the lines that put the files on ``pipeline``."""
    method, folders = config.method, files.folders
    adapter = method.lora if method.kind == "pivotal" else method
    if "diffusers" in folders:
        at = _inside(folders["diffusers"])
        lines = [f"pipeline.load_lora_weights(weights{at}, weight_name={WEIGHTS!r})"]
    elif "peft" in folders and (adapter.kind == "lora" or adapter.kind == "loha" or adapter.kind == "lokr"):
        at, parts = _inside(folders["peft"]), ["unet", "text_encoder"] if adapter.text_encoder else ["unet"]
        places = [(part, f"{folders['peft']}/{part}") for part in parts]
        lines = [f"PeftModel.from_pretrained(pipeline.{part}, weights, subfolder={place!r})" for part, place in places]
    elif "embedding" in folders and method.kind == "textual_inversion":
        at, lines = _inside(folders["embedding"]), []
    else:
        return None
    if method.kind in ("textual_inversion", "pivotal"):
        lines.append(f"pipeline.load_textual_inversion(weights{at}, weight_name={LEARNED_EMBEDS!r})")
    return lines


def _inside(folder: str) -> str:
    return f", subfolder={folder!r}" if folder else ""


def _drawing(config: RunConfig, prompt: str) -> list[str]:
    samples, side = config.samples, config.images.resolution
    width, height = samples.size or (side, side)
    return [
        f"prompt = {prompt!r}",
        f"drawn = pipeline(prompt, num_inference_steps={samples.steps}, guidance_scale={samples.guidance:g}, "
        f"width={width}, height={height})",
        'drawn.images[0].save("picture.png")',
    ]

"""The model card of a run: what a Hub repository shows of one of its checkpoints, from the record of a comparison."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import limner
from limner.config import RunConfig, exports_of
from limner.core.intervals import Change
from limner.data.several import subjects
from limner.export.metadata import shown_name, without_names
from limner.models.weights import BUILTIN
from limner.report.drawing import BASE
from limner.report.loading import ELSEWHERE, Files, hub_id, loading_code
from limner.report.markdown import plain, table
from limner.report.prompts import GROUPS, SUBJECT
from limner.report.verdict import told_change

CARD, RECORD, PICTURES = "README.md", "report.json", "pictures"
Record = Mapping[str, Any]
"""What report.json holds."""
_METHODS = {
    "lora": "A LoRA",
    "loha": "A LoHa",
    "lokr": "A LoKr",
    "full": "A fine-tuned model",
    "textual_inversion": "A new word",
    "pivotal": "A new word and a LoRA",
}
_OWN_NETWORK = "a network of the author's own"


def shown_step(record: Record) -> int:
    """Returns the step of the checkpoint that a card is about: the recommended one, the last where none is."""
    step: int = record["keep"]["step"] or record["checkpoints"][-1]["step"]
    return step


def local_card(config: RunConfig, record: Record) -> str:
    """Returns the card that lies in the report's folder."""
    kinds = [export.kind for export in exports_of(config, trains_text=False)]
    title = _called(config) if config.private else config.out.resolve().name
    return render_card(config, record, shown_step(record), title, Files("weights", {kind: kind for kind in kinds}))


def render_card(config: RunConfig, record: Record, step: int, title: str, files: Files) -> str:
    """Returns README.md in the Hub's format: front matter in YAML, then Markdown.

    ``record`` holds ``step``; pictures are named by their paths from where report.json lies. With ``config.private`` no
    prompt, name or path of the user's is in it, and no picture that was drawn from such a prompt.
    """
    front = _yaml(front_matter(config, record, step))
    base = shown_name(config.model.path, config.private) or "a model without a public name"
    about = f"{_METHODS[config.method.kind]}, trained from {plain(base)} with Limner {limner.__version__}: step {step}."
    parts = [
        f"# {plain(title)}",
        about,
        _verdict(record, step),
        _numbers(config, record, step),
        _pictures(config, record, step),
        _settings(config),
        _loading(config, record, step, files),
        _limits(config, record, step),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(config: RunConfig, record: Record, step: int) -> dict[str, Any]:
    """Returns what the Hub reads of a card."""
    base = hub_id(config.model.path)
    prompt = instance_prompt(config)
    widget = [
        {"text": one["prompt"], "output": {"url": picture_path(f"step_{step:06d}", one)}}
        for one in shown_pictures(config, record)
        if one["group"] in SUBJECT
    ]
    values = {
        "base_model": base,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": _tags(config),
        "instance_prompt": prompt,
        "widget": widget,
    }
    return {name: value for name, value in values.items() if value}


def _yaml(values: Mapping[str, Any]) -> str:
    """Returns values as YAML with each text on one line: some readers end the front matter at any ``---``."""
    import yaml

    class OneLine(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\n" in value else None)

    OneLine.add_representer(str, text)
    told: str = yaml.dump(values, Dumper=OneLine, allow_unicode=True, sort_keys=False, width=sys.maxsize)
    return told


def instance_prompt(config: RunConfig) -> str | None:
    """Returns what calls what was learned: the trigger word, the one subject's caption, or the new word."""
    captions = [] if config.private else [dataset.instance_caption for _, dataset in subjects(config.dataset)]
    method = config.method
    word = method.token if method.kind == "textual_inversion" or method.kind == "pivotal" else None
    return config.trigger_word or (captions[0] if len(captions) == 1 else word)


def shown_pictures(config: RunConfig, record: Record) -> list[Mapping[str, Any]]:
    """Returns the first picture of each prompt that may be shown, as report.json has them."""
    first = {one["prompt"]: one for one in reversed(record["drawn"])}
    return [
        one
        for one in record["drawn"]
        if first[one["prompt"]] is one and (one["group"] == "unrelated" or not config.private)
    ]


def picture_path(model: str, picture: Mapping[str, Any]) -> str:
    """Returns the path of a model's picture from where report.json lies."""
    return f"{PICTURES}/{model}/{picture['file']}"


def _tags(config: RunConfig) -> list[str]:
    method = config.method.kind
    kinds = [export.kind for export in exports_of(config, trains_text=False)]
    own = {"lora": ["lora"], "pivotal": ["lora", "textual_inversion"], "full": []}.get(method, [method])
    gallery = ["template:sd-lora"] if method in ("lora", "pivotal") and "diffusers" in kinds else []
    dreambooth = ["dreambooth"] if subjects(config.dataset) else []
    return ["text-to-image", "stable-diffusion", "diffusers", *own, *dreambooth, *gallery, "limner"]


def _called(config: RunConfig) -> str:
    base = shown_name(config.model.path, config.private)
    return f"{_METHODS[config.method.kind]} for {base}" if base else _METHODS[config.method.kind]


# ------------------------------------------------------------------------------------------------------------ numbers
def _of(record: Record, step: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in record["checkpoints"] if one["step"] == step)
    return found


def _verdict(record: Record, step: int) -> str:
    verdict, keep = _of(record, step)["verdict"], record["keep"]
    lines = ["## What the training changed", f"**{verdict['name']}**: {verdict['reason']}. {verdict['advice']}"]
    if keep["step"] != step:
        lines.append(f"Of all that was compared, the report recommends another: {keep['reason']}.")
    return "\n\n".join(lines)


def _change(change: Mapping[str, Any]) -> str:
    return told_change(Change(change["value"], change["low"], change["high"], change["changed"]))


def _numbers(config: RunConfig, record: Record, step: int) -> str:
    """Returns the losses, what networks see, and what could not be measured."""
    found = _of(record, step)
    losses = [
        ("loss on pictures that it learned from", found["learned"]),
        ("loss on held-out pictures", found["held_out"]),
    ]
    rows = [
        [name, "not measured", "", "", ""]
        if one is None
        else [name, str(one["pictures"]), f"{one['base']:.4f}", f"{one['tuned']:.4f}", _change(one["change"])]
        for name, one in losses
    ]
    rows.append(_worth(found["worth"]))
    rows += [
        [
            f"{plain(one['metric'])}, {plain(one['prompts'])}, by {plain(_without_folders(one['encoder'], config))}",
            str(one["pictures"]),
            f"{one['base']:.3f}",
            f"{one['tuned']:.3f}",
            _change(one["change"]),
        ]
        for one in found["scores"]
    ]
    head = ["what", "pictures", "base model", f"step {step}", "change, 95 % interval"]
    about = (
        "The denoising loss with the same noise and timesteps for both models, and what networks see in pictures of "
        "the same prompts and noise. The intervals are those of the change, picture by picture."
    )
    return "\n\n".join([about, table(head, rows), *_not_measured(config, record)])


def _worth(worth: Mapping[str, Any] | None) -> list[str]:
    name = "by how much a picture's own caption lowers its loss"
    if worth is None:
        return [name, "not measured: all captions are the same", "", "", ""]
    base, tuned = (f"{value:.4f} ({low:.4f} to {high:.4f})" for value, low, high in (worth["base"], worth["tuned"]))
    shown = "intervals of each" if worth["tuned"][1] > 0 else "not above 0 beyond the noise"
    return [f"{name}, pictures {worth['part']}", str(worth["pictures"]), base, tuned, shown]


def _not_measured(config: RunConfig, record: Record) -> list[str]:
    rows = [
        f"- {plain(_without_folders(one['what'], config))}: {plain(_reason(one['why'], config))}"
        for one in record["left_out"]
    ]
    return ["Not measured:", "\n".join(rows)] if rows else []


def _without_folders(text: str, config: RunConfig) -> str:
    """Returns a text with the report's networks named as they may be told."""
    for name in sorted((config.report.clip, config.report.vision), key=len, reverse=True):
        if name:
            text = text.replace(name, shown_name(name, config.private) or _OWN_NETWORK)
    return text


def _reason(text: str, config: RunConfig) -> str:
    """Returns why something was not measured, unless that names places on the author's machine."""
    known = [name for name in (config.report.clip, config.report.vision) if name and hub_id(name)]
    rest = text
    for name in known:
        rest = rest.replace(name, "")
    return "what it takes is not there" if "/" in rest or "\\" in rest else text


# ---------------------------------------------------------------------------------------------- pictures and the rest
def _pictures(config: RunConfig, record: Record, step: int) -> str:
    rows = []
    for one in shown_pictures(config, record):
        prompt = plain(one["prompt"])
        before, after = (f"![{prompt}]({picture_path(model, one)})" for model in (BASE, f"step_{step:06d}"))
        rows.append([prompt, plain(GROUPS[one["group"]]), before, after])
    if not rows:
        return ""
    about = "The same prompts and the same noise."
    return "\n\n".join(
        ["## Before and after", about, table(["prompt", "which is", "base model", f"step {step}"], rows)]
    )


def _settings(config: RunConfig) -> str:
    samples, train = config.samples, config.train

    def told(part: Any) -> str:
        values = part.model_dump(mode="json", exclude_defaults=True)
        kept = without_names(values) if config.private else values
        return plain(json.dumps({"kind": part.kind, **kept}, ensure_ascii=False))

    rows = [
        ["method", told(config.method)],
        ["objective", told(config.objective)],
        ["optimizer", told(config.optimizer)],
        ["schedule", f"{config.schedule.kind}, {config.schedule.warmup_steps} steps of warm-up"],
        ["pictures", f"{config.images.resolution} pixels, {train.batch_size} a step"],
        ["seed", str(config.seed)],
        [
            "drawn with",
            f"{samples.steps} denoising steps, guidance {samples.guidance:g}, "
            f"{plain(samples.scheduler) or 'the model’s own sampler'}, seeds from {samples.seed}",
        ],
    ]
    return f"## Settings\n\n{table(['what', 'value'], rows)}"


def _loading(config: RunConfig, record: Record, step: int, files: Files) -> str:
    texts = [one["prompt"] for one in shown_pictures(config, record) if one["group"] in SUBJECT]
    prompt = next(iter(texts), None) or instance_prompt(config) or "a photo"
    code = loading_code(config, files, prompt)
    lines = ["## How to load it"]
    if not hub_id(files.weights):
        lines.append(
            f"`limner export RUN --step {step} --out {files.weights}` writes the files of this checkpoint; RUN is the "
            "run's folder."
        )
    if code is not None:
        lines.append(f"```python\n{code}\n```")
    if code is not None and repr(ELSEWHERE) in code:
        name = shown_name(config.model.path, config.private)
        named = f", {plain(name)}," if name else ""
        lines.append(f"The base model{named} has no public address; `{ELSEWHERE}` stands for where you have it.")
    if config.model.path == BUILTIN:
        lines.append("The base model is the small one that Limner ships with: install Limner first.")
    if "kohya" in files.folders:
        place = "/".join(filter(None, [files.folders["kohya"], "kohya.safetensors"]))
        lines.append(
            f"ComfyUI, A1111 and Forge read `{place}`: copy it to `models/loras` of ComfyUI or `models/Lora` of A1111."
        )
    return "\n\n".join(lines)


def _limits(config: RunConfig, record: Record, step: int) -> str:
    found = _of(record, step)
    counted = found["learned"]["pictures"] if found["held_out"] is None else found["held_out"]["pictures"]
    told = [
        f"Measured of one run with one seed; the loss that decides is that of {counted} "
        + ("pictures that it learned from: nothing is known of others." if found["held_out"] is None else "pictures."),
        "What is within the noise may be chance; the intervals take pictures to be independent of each other.",
        "Losses and networks do not say whether a picture is good: nobody's judgement is in this card.",
        "What the base model must not be used for, and what it draws wrongly or unfairly, holds for this too, and so "
        "does its licence.",
    ]
    if config.model.kind == "sd1" and config.model.text_encoder is not None and config.method.kind != "full":
        name = shown_name(config.model.text_encoder.path, config.private) or _OWN_NETWORK
        told.append(
            f"It was trained with the text encoder of {plain(name)} (blend {config.model.text_encoder.blend:g}) in "
            "place of the base model's own. The code above does not put it there, and draws other pictures."
        )
    if config.private:
        told.append("Prompts, pictures of what was learned and names of files are left out: the author keeps them.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in told)

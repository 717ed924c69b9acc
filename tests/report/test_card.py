"""The model card: what goes in comes out, whatever it is, and private means private."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from limner.config import RunConfig
from limner.report.card import front_matter, instance_prompt, local_card, render_card, shown_step
from limner.report.loading import Files, hub_id, loading_code, on_the_hub
from tests.numerics.conftest import run_values

HUB = "CompVis/stable-diffusion-v1-4"
EVIL = 'rex | <img src=x onerror="y"> ![a](b) ``` \\| &amp; *b*'
LINES = "a dog\n---\nlicense: mit\n---\n```\n<b>x</b>\n| a | b |"
SECRET = ("rex", "secret", "house", "/home", "clip-of-mine")


def config(**changes: Any) -> RunConfig:
    model = {"kind": "sd1", "path": HUB, **changes.pop("model", {})}
    settings: dict[str, Any] = {
        "report": {"clip": "", "vision": ""},
        "export": None,
        "samples": {"prompts": [EVIL, LINES], "steps": 2, "size": (32, 32)},
        **changes,
    }
    values = run_values(Path("model"), Path("pictures"), Path("/home/secret/<i>my|run"), **settings)
    return RunConfig.model_validate({**values, "model": model})


def change(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "changed": 9}


def loss(value: float, low: float, high: float) -> dict[str, Any]:
    of = change(value, low, high)
    return {"base": 0.5, "tuned": 0.5 + value, "change": of, "pictures": 9, "within_noise": low <= 0 <= high}


def checkpoint(step: int) -> dict[str, Any]:
    score = {"metric": "CLIP score", "encoder": "/home/secret/clip-of-mine", "prompts": "other prompts"}
    return {
        "step": step,
        "learned": loss(-0.125, -0.25, -0.0625),
        "held_out": loss(0.03125, -0.0625, 0.125),
        "since_best": None,
        "worth": {"part": "held out", "base": [0.1, 0.0, 0.2], "tuned": [0.3, 0.25, 0.375], "pictures": 9},
        "verdict": {"name": "not shown", "reason": f"reason of {step}", "advice": "Train longer."},
        "scores": [{**score, **loss(0.75, 0.5, 1.0)}],
    }


def record(keep: int | None = 20) -> dict[str, Any]:
    prompts = [(EVIL, "recipe"), (LINES, "recipe"), ("a house", "learned from"), ("a cat", "unrelated")]
    return {
        "keep": {"step": keep, "verdict": "not shown", "reason": "because"},
        "checkpoints": [checkpoint(10), checkpoint(20)],
        "left_out": [
            {"what": "likeness by DINO", "why": "report.vision: '/home/secret/dino' is not there"},
            {"what": "diversity", "why": "there is one picture of each prompt"},
        ],
        "drawn": [
            {"prompt": prompt, "group": group, "seed": place, "file": f"{place:03d}.png"}
            for place, (prompt, group) in enumerate(one for one in prompts for _ in range(2))
        ],
    }


def halves(card: str) -> tuple[dict[str, Any], str]:
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def read(body: str) -> tuple[list[str], list[str]]:
    """Returns the texts of the blocks and the addresses of the pictures, as a reader of Markdown sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    assert not [token for token in tokens if token.type == "html_block"]
    inline = [one for token in tokens for one in token.children or ()]
    assert {one.type for one in inline} <= {
        "text", "text_special", "image", "code_inline", "strong_open", "strong_close"
    }  # fmt: skip
    texts = [
        "".join(one.content for one in token.children or () if one.type != "image")
        for token in tokens
        if token.type == "inline"
    ]
    return texts, [str(one.attrs["src"]) for one in inline if one.type == "image"]


def test_hostile_text_breaks_neither_the_front_matter_nor_the_page() -> None:
    settings = config(trigger_word=EVIL)
    card = local_card(settings, record())
    front, body = halves(card)
    assert front == front_matter(settings, record(), 20)
    assert front["instance_prompt"] == EVIL
    assert [one["text"] for one in front["widget"]] == [EVIL, LINES, "a house"]
    hub = ModelCard(card)
    assert (hub.data.base_model, hub.data.license) == (HUB, None)
    assert hub.data.get("widget") == front["widget"]
    texts, pictures = read(body)
    assert texts.count(EVIL) == 1
    assert " ".join(LINES.split()) in texts
    assert texts[0] == "<i>my|run"
    assert pictures[:2] == ["pictures/base/000.png", "pictures/step_000020/000.png"]
    assert len(pictures) == 8
    assert [one["output"]["url"] for one in front["widget"]] == pictures[1:6:2]


def test_the_front_matter_says_what_it_is() -> None:
    front = front_matter(config(), record(), 20)
    assert front["base_model"] == HUB
    assert (front["library_name"], front["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert {"lora", "template:sd-lora", "stable-diffusion", "text-to-image"} <= set(front["tags"])
    assert "instance_prompt" not in front
    full = front_matter(config(method={"kind": "full"}, model={"path": "/home/secret/model"}), record(), 20)
    assert "base_model" not in full
    assert not {"lora", "template:sd-lora"} & set(full["tags"])
    kohya = front_matter(config(export=[{"kind": "kohya"}]), record(), 20)
    assert "template:sd-lora" not in kohya["tags"]


DOG = {"kind": "dreambooth", "path": "secret", "token": "sks", "class_noun": "dog"}


def test_what_calls_it_is_the_trigger_word_or_the_subject_s_caption_or_the_new_word() -> None:
    def dreambooth(**changes: Any) -> RunConfig:
        values = config().model_dump(mode="json")
        return RunConfig.model_validate({**values, "dataset": DOG, **changes})

    assert instance_prompt(dreambooth()) == "a photo of sks dog"
    assert "dreambooth" in front_matter(dreambooth(), record(), 20)["tags"]
    assert instance_prompt(dreambooth(private=True)) is None
    assert instance_prompt(dreambooth(trigger_word="sks")) == "sks"
    word = {"kind": "textual_inversion", "token": "<rex>", "initialise": "dog"}
    assert instance_prompt(config(method=word)) == "<rex>"


def test_the_numbers_are_those_of_the_step_and_noise_is_called_so() -> None:
    body = halves(render_card(config(), record(), 10, "x", Files("me/x", {"diffusers": ""})))[1]
    texts, _ = read(body)
    assert "-0.1250 (-0.2500 to -0.0625)" in texts
    assert "+0.0312 (-0.0625 to +0.1250), within the noise" in texts
    assert "0.3000 (0.2500 to 0.3750)" in texts
    assert "CLIP score, other prompts, by /home/secret/clip-of-mine" in texts  # the recipe does not name that network
    assert any("reason of 10" in text for text in texts)
    assert any("recommends another: because" in text for text in texts)
    assert any("diversity: there is one picture" in text for text in texts)
    assert shown_step(record()) == 20
    assert shown_step(record(None)) == 20


def test_private_leaves_out_prompts_names_paths_and_what_was_drawn_of_them() -> None:
    changes: dict[str, Any] = {
        "model": {"path": "/home/secret/rex.safetensors"},
        "report": {"clip": "/home/secret/clip-of-mine", "vision": "/home/secret/dino"},
        "method": {"kind": "textual_inversion", "token": "<w>", "initialise": "secret"},
        "objective": {"kind": "denoising"},
    }
    told = local_card(config(**changes), record())
    assert all(secret in told for secret in ("rex", "secret", "house", "clip-of-mine"))
    assert "/home" not in told
    card = local_card(config(**changes, private=True), record())
    assert not [secret for secret in SECRET if secret in card.lower()]
    front, body = halves(card)
    assert front["instance_prompt"] == "<w>"
    assert "widget" not in front
    texts, pictures = read(body)
    assert pictures == ["pictures/base/006.png", "pictures/step_000020/006.png"]
    assert "a cat" in texts
    assert "license: mit" not in card


def test_a_hub_id_is_one_and_a_path_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert hub_id(HUB) == HUB
    for name in ("builtin", "models/mine", "./a/b", "/a/b", "x/y.safetensors", "a/b/c"):
        assert hub_id(name) is None


def test_code_is_only_for_what_diffusers_reads() -> None:
    assert loading_code(config(), Files("w", {"kohya": "kohya"}), "x") is None
    lokr = config(method={"kind": "lokr"})
    assert "subfolder='peft/unet'" in str(loading_code(lokr, Files("w", {"peft": "peft"}), "x"))
    single = config(model={"path": "/x/model.safetensors"})
    assert "from_single_file" in str(loading_code(single, Files("w", {"diffusers": ""}), "x"))
    fixed = config(model={"path": HUB, "revision": "abc"})
    assert "revision='abc'" in str(loading_code(fixed, Files("w", {"diffusers": ""}), "x"))
    assert on_the_hub(["kohya", "diffusers"]) == {"kohya": "kohya", "diffusers": ""}
    assert on_the_hub(["peft", "kohya"]) == {"peft": "peft", "kohya": "kohya"}


def test_the_record_of_a_comparison_is_all_that_the_card_reads() -> None:
    assert local_card(config(), json.loads(json.dumps(record()))) == local_card(config(), record())

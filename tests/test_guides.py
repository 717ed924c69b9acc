"""What the guides say is true: their commands run, their keys, links and recipes exist, their code works elsewhere."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limner.builtin.drawings import draw_folder, draw_sitter
from limner.cli import main
from limner.config import RunConfig, load_config
from limner.core.config import Config
from limner.models.sd1 import SD1
from limner.new_clip import PictureTower, random_clip
from tests.known_sets import draw_cifar10, draw_flickr8k
from tests.processes import clean_processes
from tests.tiny import save_tiny, save_tiny_clip

ROOT = Path(__file__).resolve().parent.parent
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "guides").glob("*.md"))}
GUIDES = [name for name in PAGES if name != "README"]
TRAINING = [name for name in GUIDES if name != "captions_and_search"]  # tests/reading/test_guide.py runs that one
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
SD14 = "CompVis/stable-diffusion-v1-4"
CLIP_B32 = "openai/clip-vit-base-patch32"
MEASURED = {"dreambooth": "dreambooth", "learning_rate": "lora", "rank": "lora"}
MEASURED |= {"textual_inversion": "textual_inversion", "full": "full", "text_encoders": "clip_in_pictures"}
"""By table that a study writes: the page on which it stands."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.M | re.S)


def commands(page: str) -> list[list[str]]:
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def is_small(words: list[str]) -> bool:
    return not any(SD14 in word for word in words) and any("builtin" in word for word in words)


# ------------------------------------------------------------------------------------------------- a user's folder
@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes and the folders of pictures that the pages name, drawings in place of photos."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    photos = tmp_path / "photos"
    draw_sitter(photos / "rex", count=4)
    for name, count in (("style", 20), ("masked", 4), ("portraits", 2), ("scenes", 4)):
        draw_folder(photos / name, count=count, seed=len(name))
    for picture in sorted((photos / "masked").glob("??.png")):
        side = Image.open(picture).size
        Image.radial_gradient("L").resize(side).point(lambda value: 255 - value).save(picture.with_suffix(".mask.png"))
    for name in ("portraits", "scenes"):
        for sidecar in (photos / name).glob("*.txt"):
            sidecar.write_text(f"{name}, red, blue, green\n")
    save_tiny_clip(tmp_path / "clip-model")
    draw_cifar10(tmp_path / "cifar-10-batches-py")
    draw_flickr8k(tmp_path / "flickr8k")
    save_clip_of_builtin(tmp_path / "my-clip")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    clean_processes()  # the runs of a sweep start at once
    return tmp_path


def save_clip_of_builtin(folder: Path) -> None:
    """Writes a CLIP around the built-in model's text encoder, moved a little as by tuning."""
    pipeline = SD1(path="builtin").load()
    clip = random_clip(pipeline.text_encoder, PictureTower(), seed=0)
    with torch.no_grad():
        clip.text_model.final_layer_norm.bias.add_(0.01)
    clip.save_pretrained(folder)
    pipeline.tokenizer.save_pretrained(folder)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns what a command prints; fails where it does not end with 0."""
    monkeypatch.setattr(sys, "argv", words)
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == 0, f"{shlex.join(words)}\n{out.getvalue()}"
    return out.getvalue()


def without_extras(words: list[str]) -> list[str]:
    """Returns the changes that replace an optimizer whose package is not installed."""
    from importlib.util import find_spec

    needs_package = any("small_gpu" in word for word in words) and find_spec("bitsandbytes") is None
    return ["optimizer={kind: adamw, lr: 1e-4}"] if needs_package else []


def few_steps(words: list[str]) -> list[str]:
    """Returns the changes that make a training short: two steps, four where the page resumes with more."""
    steps = 4 if "train.steps=6" in words else 2
    changes = [
        f"train={{steps: {steps}, batch_size: 2, device: cpu}}",
        "schedule.warmup_steps=0",
        "samples.steps=2",
        "report.at_end=never",
    ]
    if any(word.startswith("dataset.class_pictures") for word in words) or "dreambooth_lora" in words[2]:
        changes += ["dataset.class_pictures=2", "dataset.class_drawing={steps: 2}"]
    if any(word.startswith("validation.") for word in words) or "validated" in words[2]:
        changes += ["validation.every=1", "validation.draws=1"]
    return changes


def on_tiny_model(words: list[str]) -> list[str]:
    """Returns a command of a page as it runs in seconds: on a random model, in small pictures and few steps."""
    if words[1] == "new-clip":
        return [*words, "--text", "model"]
    if words[1] in ("measure", "blend"):
        return [*(word.replace(CLIP_B32, "clip-model") for word in words), "--device", "cpu"]
    if any("recipes/clip_" in word for word in words):
        return [*words, "model.path=clip-model", "images={resolution: 32, buckets: false}", *few_steps(words)]
    words = [re.sub(rf"^({re.escape(SD14)}|builtin)$", "model", word).replace("=builtin", "=model") for word in words]
    if words[1] in ("generate", "swap", "grid"):
        return [*words, "--steps", "2", "--size", "64x64"]
    if words[1] in ("inspect", "compare", "export"):
        return words
    size = "images={resolution: 64, bucket_step: 32}"
    return [
        *words,
        "model.path=model",
        size,
        *without_extras(words),
        *(few_steps(words) if words[1] in ("train", "sweep") else []),
    ]


# ------------------------------------------------------------------------------------------------------ the commands
def test_every_check_command_runs_on_the_built_in_model(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [words for page in TRAINING for words in commands(page) if words[1] == "check"]
    assert len(checks) > 20
    for words in checks:
        on_builtin = [*words, "model.path=builtin", "images.resolution=128", *without_extras(words)]
        printed = run(on_tiny_model(words) if "recipes/clip_" in words[2] else on_builtin, monkeypatch)
        assert "pictures" in printed
    assert not (user_folder / "runs").exists()


def test_the_small_commands_of_dreambooth_run_one_after_the_other(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all([words for words in commands("dreambooth") if is_small(words)], user_folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", TRAINING)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(commands(page), user_folder, monkeypatch)


def run_all(todo: list[list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs all commands but the checks, which the test above runs, on a tiny model."""
    save_tiny(folder / "model")
    shutil.rmtree(folder / "my-clip")
    save_tiny_clip(folder / "my-clip", seed=1)
    todo = [words for words in todo if words[1] != "check"]
    assert {words[1] for words in todo} >= {"train"}
    for words in todo:
        assert words[0] == "limner"
        run(on_tiny_model(words), monkeypatch)
    prompts = [words.count("--prompt") for words in todo if words[1] == "generate"]
    assert len(list((folder / "drawings").glob("*.png"))) == sum(prompts)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TRAINING if page != "clip"])  # no picture tower ships yet
def test_the_small_commands_of_a_page_run_on_the_built_in_model(
    page: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [words for words in commands(page) if is_small(words)]
    assert {words[1] for words in small} >= {"check", "train"}
    for words in small:
        changes = few_steps(words) if words[1] in ("train", "sweep") else []
        run([*words, *changes, *(["--steps", "2"] if words[1] in ("generate", "swap", "grid") else [])], monkeypatch)


# -------------------------------------------------------------------------------------------------------- the words
def known_keys(cls: type[Config] = RunConfig, prefix: str = "") -> set[str]:
    found = set()
    for name, field in cls.model_fields.items():
        found.add(f"{prefix}{name}")
        for inner in configs_in(field.annotation):
            if inner is not cls:
                found |= known_keys(inner, f"{prefix}{name}.") if prefix.count(".") < 4 else set()
    return found


def configs_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for inner in typing.get_args(annotation) for found in configs_in(inner)]


def test_the_keys_that_are_named_exist() -> None:
    keys = known_keys()
    assert {"validation.patience", "method.lora.rank", "dataset.class_drawing.steps"} <= keys
    files = (".txt", ".md", ".json", ".jsonl", ".csv", ".parquet", ".safetensors", ".py", ".jpg", ".png", ".caption")
    for page, text in PAGES.items():
        words = re.findall(r"`[^`\n]+`", text) + ["`" + word for words in commands(page) for word in words]
        for word in words:
            for key in re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_0-9]+)+)(?=[=` ]|$)", word):
                known = key in keys or key.endswith((*files, ".html", ".bak")) or word.startswith("`python -m ")
                assert known, f"{page}.md names {key}"


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_links_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if link.startswith("https://"):
                continue
            name, _, part = link.partition("#")
            target = (ROOT / "docs" / "guides" / name).resolve() if name else ROOT / "docs" / "guides" / f"{page}.md"
            assert target.exists(), f"{page}.md links {link}"
            if part:
                assert part in anchors(target.read_text(encoding="utf-8")), f"{page}.md links {link}"


def test_every_recipe_is_named_in_the_guides_and_every_named_recipe_exists() -> None:
    everything = "\n".join(PAGES.values())
    named = set(re.findall(r"recipes/(\w+)\.yaml", everything))
    assert named == set(RECIPES)
    index = set(re.findall(r"recipes/(\w+)\.yaml", PAGES["README"]))
    assert index == set(RECIPES)
    assert set(re.findall(r"\((\w+)\.md", PAGES["README"])) == {*GUIDES}


def test_the_project_page_leads_to_the_guides() -> None:
    assert "](docs/guides/)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_each_measured_table_has_its_place() -> None:
    for page, text in PAGES.items():
        names = re.findall(r"^<!-- study (\w+): begin -->\n(?:.*\n)+?<!-- study \1: end -->$", text, flags=re.M)
        order = ("learning_rate", "rank", "text_encoders", *GUIDES)
        assert names == [name for name in order if MEASURED.get(name) == page]
        assert text.count("<!--") == 2 * len(names)


def test_the_warnings_that_are_quoted_are_those_of_the_program() -> None:
    """What stands in the table under "it says" must stand in the source, each piece between ``...`` and values."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "limner").rglob("*.py"))
    plain = re.sub(r'"\s*\n\s*f?"', "", source)
    for page in GUIDES:
        told = re.search(r"^\| it says \|.*?\n\n", PAGES[page], flags=re.M | re.S)
        for row in told.group().strip().splitlines()[2:] if told else []:
            for quoted in re.findall(r"`([^`]+)`", row.split("|")[1]):
                for piece in re.split(r"\.\.\.|'[^']*'|\b\d+\b(?: of \d+)?", quoted):
                    assert piece.strip() in plain, f"{page}.md quotes {piece.strip()!r}"


# --------------------------------------------------------------------------------------------------- used elsewhere
def python_of(page: str, mark: str) -> str:
    """Returns the block of a page that holds ``mark``, for the tiny model on the CPU."""
    (code,) = [block for block in blocks(page, "python") if mark in block]
    code = code.replace(SD14, "model").replace('.to("cuda")', '.to("cpu")')
    return re.sub(r'pipe\(("[^"]+")', r"pipe(\1, num_inference_steps=2, height=64, width=64", code)


ELSEWHERE = {
    "dreambooth": ("sd1_dreambooth_lora", "runs/rex", ["load_lora_weights"]),
    "textual_inversion": ("sd1_textual_inversion", "runs/rex-word", ["oil painting"]),
    "textual_inversion ": ("sd1_pivotal", "runs/rex-pivotal", ["load_lora_weights"]),
    "lora": ("sd1_lora", "runs/style", ["load_lora_weights"]),
    "lora ": ("sd1_lokr", "runs/style-lokr", ["PeftModel"]),
    "full": ("sd1_full", "runs/my-model", ["from_pretrained"]),
}
"""By page (a blank tells two of one page apart): the recipe, its run folder, what marks the blocks that use it."""


@pytest.mark.slow
@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_code_for_other_programs_works(page: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out, marks = ELSEWHERE[page]
    save_tiny(user_folder / "model")
    subject = out.startswith("runs/rex")
    data = ["dataset.path=photos/rex", "dataset.class_noun=dog"] if subject else ["dataset.path=photos/style"]
    run(on_tiny_model(["limner", "train", f"recipes/{recipe}.yaml", *data, f"out={out}"]), monkeypatch)
    for mark in marks:
        with contextlib.redirect_stderr(io.StringIO()):
            exec(compile(python_of(page.strip(), mark), page, "exec"), {})
    assert list(user_folder.glob("*.png"))
    if page == "lora":
        assert_same_picture("runs/style", "runs/style/export/kohya/kohya.safetensors", monkeypatch)


def assert_same_picture(first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws with both adapters, and without one, at one seed."""
    seen = []
    for number, adapter in enumerate(([f"{first}:20"], [f"{second}:20"], [])):
        options = [word for one in adapter for word in ("--adapter", one)]
        prompt = ["--prompt", "a house by the sea", "--seed", "0", "--out", f"drawn{number}"]
        run(on_tiny_model(["limner", "generate", "--model", "builtin", *options, *prompt]), monkeypatch)
        (path,) = Path(f"drawn{number}").glob("*.png")
        seen.append(Image.open(path).convert("RGB").tobytes())
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


@pytest.mark.slow
def test_the_counts_of_the_table_are_those_of_stable_diffusion_1() -> None:
    import torch
    from diffusers import UNet2DConditionModel

    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| ([\d,]+) \|$", PAGES["lora"], flags=re.M)
    assert len(rows) == 5
    for recipe, count in rows:
        name = re.search(r"recipes/(\w+)\.yaml", recipe)
        change = [] if name else re.findall(r"`([^`]+)`", recipe)
        method: Any = load_config(ROOT / "recipes" / f"{name.group(1) if name else 'sd1_lora'}.yaml", change).method
        with torch.device("meta"):
            denoiser = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
            denoiser.requires_grad_(False)
            assert f"{denoiser.num_parameters():,}" in PAGES["full"]
            denoiser.add_adapter(method._peft_config(list(method.targets)))
        assert f"{sum(value.numel() for value in denoiser.parameters() if value.requires_grad):,}" == count

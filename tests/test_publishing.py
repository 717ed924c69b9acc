"""What reaches the Hub: the files, the card and its pictures, listed first, and nothing else of the run."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import errors
from PIL import Image

import limner
from limner.builtin.drawings import draw_folder
from limner.cli import main
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.publishing import publish
from limner.report import compare
from limner.report.card import local_card
from limner.report.loading import ELSEWHERE
from tests.heard import Heard
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny

REPOSITORY = "someone/my-lora"


class Hub:
    """Stands for the Hub's API: keeps what is asked of it."""

    def __init__(self) -> None:
        self.private: bool | None = None
        """None: there is no such repository."""
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def whoami(self) -> dict[str, str]:
        self.asked.append("whoami")
        return {"name": "someone"}

    def repo_info(self, repository: str) -> Any:
        self.asked.append("repo_info")
        if self.private is None:
            response = SimpleNamespace(headers={}, request=None, status_code=404)
            raise errors.RepositoryNotFoundError("not there", response=response)
        return SimpleNamespace(private=self.private)

    def list_repo_files(self, repository: str) -> list[str]:
        return list(self.files)

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        self.asked.append("create_repo")
        assert exist_ok
        if self.private is None:
            self.private = private
        return f"https://huggingface.co/{repository}"

    def create_commit(self, repository: str, operations: list[Any], *, commit_message: str) -> None:
        self.asked.append("create_commit")
        for one in operations:
            with one.as_file() as file:
                self.files[one.path_in_repo] = file.read()

    def lay_out(self, folder: Path) -> Path:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


class Said(Heard):
    """Keeps what it was told, and how much the Hub had been asked by then."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self.said: list[tuple[str, tuple[str, ...]]] = []

    def say(self, text: str) -> None:
        self.said.append((text, tuple(self.hub.asked)))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


WORD = {"token": "<rex>", "initialise": "dog"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 2, "text_encoder": True},
    "lokr": {"kind": "lokr", "rank": 2},
    "full": {"kind": "full"},
    "word": {"kind": "textual_inversion", **WORD},
    "pivotal": {"kind": "pivotal", **WORD, "lora": {"rank": 2}},
    "small": {"kind": "lora", "rank": 2},
}
EXPORTS = {"lora": ("diffusers", "peft", "kohya"), "lokr": ("peft",), "word": ("embedding",)}
"""By run; of the others in the layout of diffusers."""


def config(place: Path, name: str) -> RunConfig:
    word = name in ("word", "pivotal")
    values: dict[str, Any] = {
        "samples": {"prompts": ["a red <rex>" if word else "a red circle"], "steps": 1, "size": (32, 32)},
        "train": {"steps": 2, "save_every": 1, "keep_checkpoints": 9, "batch_size": 2, "ema_decay": None},
        "schedule": {"warmup_steps": 0},
        "optimizer": {"lr": 1e-2},
        "objective": {"caption_dropout": 0.0},
        "report": {"clip": "", "vision": ""},
        "method": METHODS[name],
        "export": [{"kind": kind} for kind in EXPORTS.get(name, ("diffusers",))],
    }
    return run_config(place / "model", place / ("words" if word else "pictures"), place / name, **values)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("secret-place")
    save_tiny(root / "model")
    for name, start in (("pictures", "a secret"), ("words", "a photo of <rex>")):
        for number, caption in enumerate(draw_folder(root / name, count=3)):
            (root / name / f"{number:02d}.txt").write_text(f"{start} {caption}\n", encoding="utf-8")
    return root


def done(place: Path, name: str) -> RunConfig:
    """Trains and compares, once for each name."""
    settings = config(place, name)
    if not settings.out.exists():
        limner.finetune(settings)
        compare(settings.out)
    return settings


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    return str(code)


def execute(code: str, base: Path, weights: tuple[str, str]) -> Any:
    """Runs a card's code with the base model and the place of the weights put in; returns its pipeline."""
    code = code.replace(repr(ELSEWHERE), repr(str(base))).replace(*weights)
    values: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), values)
    return values["pipeline"]


def latents(pipeline: Any, prompt: str) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(0)
    options: dict[str, Any] = {"num_inference_steps": 2, "width": 32, "height": 32, "output_type": "latent"}
    with torch.no_grad():
        found: torch.Tensor = pipeline(prompt, generator=generator, **options).images
    return found


@pytest.mark.parametrize(
    "name", ["lora", "full", "word", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lokr", "pivotal"))]
)
def test_the_code_of_both_cards_draws_what_the_run_learned(
    name: str, place: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    settings = done(place, name)
    monkeypatch.chdir(tmp_path)
    publish(settings.out, REPOSITORY, step=2, out=tmp_path / "weights")
    there = hub.lay_out(tmp_path / "there")
    card = (there / "README.md").read_text()
    pushed = execute(code_of(card), place / "model", (REPOSITORY, str(there)))
    record = json.loads((settings.out / "report" / "report.json").read_text())
    lying = execute(code_of(local_card(settings, record)), place / "model", ("'weights", f"'{tmp_path}/weights"))
    prompt = settings.samples.prompts[0]
    tuned, base = latents(pushed, prompt), StableDiffusionPipeline.from_pretrained(place / "model")
    assert torch.equal(tuned, latents(lying, prompt))
    assert float((tuned - latents(base, prompt)).abs().max()) > 1e-4
    assert (tmp_path / "picture.png").is_file()


def test_nothing_is_uploaded_but_the_files_the_card_and_its_pictures_and_it_is_listed_first(
    place: Path, hub: Hub
) -> None:
    settings = done(place, "lora")
    heard = Said(hub)
    address = publish(settings.out, REPOSITORY, step=2, progress=heard)
    assert address == f"https://huggingface.co/{REPOSITORY}"
    assert hub.private is True
    card = hub.files["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    pictures = {path for path in hub.files if path.startswith("pictures/")}
    assert pictures == set(re.findall(r"\]\((pictures/[^)]+)\)", card))
    assert {one["output"]["url"] for one in front["widget"]} <= pictures
    for path in pictures:
        assert hub.files[path] == (settings.out / "report" / path).read_bytes()
    weights = {"pytorch_lora_weights.safetensors", "limner.json", "kohya/kohya.safetensors", "kohya/limner.json"}
    peft = {
        f"peft/{part}/adapter_{file}"
        for part in ("unet", "text_encoder")
        for file in ("config.json", "model.safetensors")
    }
    assert hub.files.keys() == {"README.md", "peft/limner.json", *pictures, *weights, *peft}
    for name, content in hub.files.items():
        assert str(place).encode() not in content, name
        assert b"secret-place" not in content, name
    (listed,) = [(text, asked) for text, asked in heard.said if text.startswith("uploading")]
    assert "create_repo" not in listed[1]
    assert all(f"  {path}, {len(content):,} bytes" in listed[0] for path, content in hub.files.items())
    assert not list(settings.out.glob(".hub*"))
    assert b"secret-place" in (settings.out / "export" / "diffusers" / "pytorch_lora_weights.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["small", "full"])
def test_of_a_private_run_no_file_has_a_prompt_a_name_or_a_path(
    name: str, place: Path, hub: Hub, tmp_path: Path
) -> None:
    run = shutil.copytree(done(place, name).out, tmp_path / "secret run")
    recipe = RunDir(run).config
    text = re.sub(r"^private: false", "private: true", recipe.read_text(), flags=re.M)
    assert "private: true" in text
    recipe.write_text(text)
    publish(run, REPOSITORY, step=2)
    captions = [file.read_text().strip() for file in (place / "pictures").glob("*.txt")]
    hidden = [text.encode() for text in (str(place), str(tmp_path), "secret", "a red circle", *captions)]
    for path, content in hub.files.items():
        assert not [one for one in hidden if one in content], path
    (before, *_) = sorted(path for path in hub.files if path.startswith("pictures/base/"))
    with Image.open(io.BytesIO(hub.files[before])) as bare, Image.open(run / "report" / before) as told:
        assert not bare.info
        assert told.info
        assert bare.tobytes() == told.tobytes()


def test_the_card_and_the_files_are_of_the_step_that_is_asked_for_or_that_the_report_recommends(
    place: Path, hub: Hub
) -> None:
    settings = done(place, "small")
    record = json.loads((settings.out / "report" / "report.json").read_text())
    for step in (1, None):
        publish(settings.out, REPOSITORY, step=step)
        chosen = step or record["keep"]["step"] or 2
        assert f"pictures/step_{chosen:06d}" in hub.files["README.md"].decode()
        assert json.loads(hub.files["limner.json"])["limner"]["limner.step"] == str(chosen)


def refused(run: Path, *, where: str = REPOSITORY, **asked: Any) -> str:
    with pytest.raises(UserError) as caught:
        publish(run, where, **asked)
    return str(caught.value)


def test_what_cannot_be_uploaded_is_refused_before_anything_is(place: Path, hub: Hub, tmp_path: Path) -> None:
    run = done(place, "small").out
    for name in ("lora", "a/b/c", "a/b c", "a/b--c", "/x"):
        assert "is no name on the Hub" in refused(run, where=name)
    assert "the report tells of no step 7; it tells of 1, 2" in refused(run, step=7)
    shutil.copytree(run, tmp_path / "copy")
    report = RunDir(tmp_path / "copy").report
    (report / "report.json").write_text('{"keep": 1}')
    assert "of an older Limner" in refused(tmp_path / "copy")
    shutil.rmtree(report)
    assert "has no report" in (said := refused(tmp_path / "copy"))
    assert f"limner compare {tmp_path / 'copy'}" in said
    hub.private = False
    assert "everybody may see it" in refused(run)
    assert "create_commit" not in hub.asked


def test_public_is_said_and_files_that_are_there_already_are_told(place: Path, hub: Hub) -> None:
    run, heard = done(place, "small").out, Said(hub)
    hub.private, hub.files = False, {".gitattributes": b"", "README.md": b"", "old.safetensors": b""}
    publish(run, REPOSITORY, step=2, public=True, progress=heard)
    assert any("other files, which stay as they are: old.safetensors" in text for text in heard.warnings)
    assert "(public)" in heard.said[-1][0]
    hub.private = True
    publish(run, REPOSITORY, step=2, public=True, progress=heard)
    assert any("private; it stays so" in text for text in heard.warnings)


def test_the_command_prints_the_address_and_public_alone_is_refused(
    place: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(done(place, "small").out)
    for words, code in ((["--public"], 2), (["--step", "2", "--push-to-hub", REPOSITORY], 0)):
        monkeypatch.setattr(sys, "argv", ["limner", "export", run, *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert (end.value.code or 0) == code
    assert capsys.readouterr().out.strip() == f"https://huggingface.co/{REPOSITORY}"
    assert hub.private is True


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.LocalTokenNotFoundError("no"), "no token for the Hub"),
        (errors.OfflineModeIsEnabled("offline mode is enabled"), "cannot be reached (offline mode is enabled)"),
        (OSError("no route to host"), "cannot be reached (no route to host)"),
    ],
)
def test_without_a_token_or_a_network_it_says_what_to_do(
    error: Exception, said: str, place: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whoami() -> None:
        raise error

    monkeypatch.setattr(hub, "whoami", whoami)
    text = refused(done(place, "small").out)
    assert said in text
    assert "hf auth login" in text


def test_without_a_token_the_hub_s_own_library_is_understood(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    assert "no token for the Hub" in refused(done(place, "small").out)

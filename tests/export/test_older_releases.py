"""Exports are read by the releases that people have: a year-old diffusers, transformers and PEFT draw our picture."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from limner.export.diffusers import Diffusers
from limner.export.kohya import Kohya
from limner.export.peft import Peft
from limner.export.portable import make_portable
from limner.methods.full import Full
from limner.methods.loha import Loha
from limner.methods.lokr import Lokr
from limner.methods.lora import Lora
from limner.methods.trainable import Trainable
from limner.models.sd1 import SD1, SD1Model
from limner.models.weights import BUILTIN_FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TORCH = ["torch==2.13.0"]
OLDER = ["diffusers==0.35.2", "transformers==4.57.6", "peft==0.17.1", "accelerate", "safetensors", "pillow", "numpy"]
METADATA = {"format": "pt", "limner.trigger_word": "sks"}
CONV = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in")
LORAS = {
    "text": Lora(rank=2, alpha=6, text_encoder=True),
    "dora": Lora(rank=3, alpha=1, dora=True),
    "dora_text": Lora(rank=3, alpha=1, dora=True, text_encoder=True),
    "conv": Lora(rank=2, alpha=4, targets=CONV),
    "mlp_text": Lora(rank=2, alpha=4, text_encoder=True, text_encoder_targets=("q_proj", "out_proj", "fc1", "fc2")),
    "partial_text": Lora(rank=2, alpha=4, text_encoder=True, text_encoder_targets=("q_proj", "fc1")),
}
KOHYA = ("text", "conv", "mlp_text")
"""What goes as kohya's file too: no DoRA, and with the text encoder's out_proj where that is adapted at all. diffusers
knows such a file by the name of that layer, and else drops the other attention layers: "partial_text" is no such."""
LYCORIS = {
    "loha": Loha(rank=2, alpha=6, targets=CONV, text_encoder=True),
    "lokr": Lokr(rank=1, alpha=3, targets=CONV, decompose_factor=4, decompose_both=True, use_effective_conv2d=True),
}
FULLS = {"unet": Full(), "text": Full(text_encoder=True)}
Train = Callable[[Lora | Loha | Lokr | Full], tuple[SD1Model, Trainable]]


@pytest.fixture(scope="session")
def older_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with the older releases; made once, in LIMNER_OLD_ENV or pytest's cache."""
    named = os.environ.get("LIMNER_OLD_ENV")
    cache = request.config.cache
    folder = Path(named) if named or cache is None else Path(cache.mkdir("limner-older-releases"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "limner-lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests of several processes share it
        return _older_environment(folder)


def _older_environment(folder: Path) -> Path:
    python, ready = folder / "bin" / "python", folder / "limner-ready"
    wanted = "\n".join(TORCH + OLDER)
    if not (ready.is_file() and ready.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in (TORCH, OLDER):
            done = subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"the older releases cannot be installed: {done.stderr.strip()[-300:]}")
        ready.write_text(wanted)
    return python


@pytest.fixture(scope="module")
def pictures(
    older_python: Path,
    base_folder: Path,
    fresh_base: Callable[[], SD1Model],
    train: Train,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, dict[str, str]]:
    """Two folders of pictures, ours and theirs, and what the older PEFT said."""
    root = tmp_path_factory.mktemp("older")
    ours, theirs, exports = root / "ours", root / "theirs", root / "exports"
    ours.mkdir()
    theirs.mkdir()
    base = shutil.copytree(base_folder, root / "base")
    make_portable(base, {}, None)
    draw(fresh_base(), ours / "base.npy")
    for name, lora in LORAS.items():
        model, trainable = train(lora)
        for kind, export in (("lora", Diffusers()), ("peft", Peft())):
            export.write(model, trainable, exports / f"{kind}_{name}", METADATA, fresh_base=fresh_base)
            draw(model, ours / f"{kind}_{name}.npy")
        if name in KOHYA:
            Kohya().write(model, trainable, exports / f"kohya_{name}", METADATA, fresh_base=fresh_base)
            draw(model, ours / f"kohya_{name}.npy")
    for name, method in LYCORIS.items():
        model, trainable = train(method)
        Peft().write(model, trainable, exports / f"peft_{name}", METADATA, fresh_base=fresh_base)
        draw(model, ours / f"peft_{name}.npy")
    for name, full in FULLS.items():
        model, trainable = train(full)
        Diffusers().write(model, trainable, exports / f"full_{name}", METADATA, fresh_base=fresh_base)
        draw(model, ours / f"full_{name}.npy")
    shutil.copytree(BUILTIN_FOLDER, exports / "full_builtin")
    draw(SD1(path="builtin").load(), ours / "full_builtin.npy")
    reader = Path(__file__).with_name("older_reader.py")
    done = subprocess.run(
        [str(older_python), "-W", "ignore", str(reader), str(base), str(exports), str(theirs)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return ours, theirs, json.loads((theirs / "told.json").read_text())


def draw(model: SD1Model, file: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    pipeline = model.pipeline()
    image = pipeline("a red circle", num_inference_steps=4, generator=generator, height=64, width=64).images[0]
    np.save(file, np.asarray(image))


def levels(first: Path, second: Path) -> int:
    return int(np.abs(np.load(first).astype(int) - np.load(second).astype(int)).max())


def test_the_base_is_drawn_alike(pictures: tuple[Path, Path, dict[str, str]]) -> None:
    ours, theirs, _ = pictures
    assert levels(ours / "base.npy", theirs / "base.npy") <= 1


def test_the_model_that_ships_with_the_package_is_drawn_alike(pictures: tuple[Path, Path, dict[str, str]]) -> None:
    ours, theirs, _ = pictures
    assert levels(ours / "full_builtin.npy", theirs / "full_builtin.npy") <= 1


@pytest.mark.parametrize(
    "name",
    [
        *(f"{kind}_{name}" for kind in ("lora", "peft") for name in LORAS),
        *(f"kohya_{name}" for name in KOHYA),
        *(f"peft_{name}" for name in LYCORIS),
        *(f"full_{name}" for name in FULLS),
    ],
)
def test_older_releases_draw_the_trained_picture(pictures: tuple[Path, Path, dict[str, str]], name: str) -> None:
    ours, theirs, _ = pictures
    assert levels(ours / f"{name}.npy", theirs / f"{name}.npy") <= 1
    assert levels(ours / f"{name}.npy", ours / "base.npy") > 10


def test_a_text_encoder_of_transformers_4_refuses_our_peft_folder_aloud(
    pictures: tuple[Path, Path, dict[str, str]],
) -> None:
    """Its layers have other names there; without the refusal PEFT would go on without the trained weights."""
    assert "not found" in pictures[2]["peft_text"]

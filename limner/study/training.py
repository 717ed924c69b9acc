"""A setting, trained to one of its steps: found on the disk, continued, or begun."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import limner
from limner.builtin.world.sitter import SITTER_CLASS
from limner.config import RunConfig, conflicts
from limner.core.errors import ConfigError, UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir, read_metrics, write_json
from limner.models.embedding_files import LEARNED_EMBEDS
from limner.models.safety import read_safetensors_header
from limner.run import finetune
from limner.study.grid import Conditions, LessonName, Setting
from limner.study.lessons import TOKEN
from limner.training.checkpoint import WEIGHTS

CLASS_PROMPT = f"a {SITTER_CLASS}"
RECORD = "trained.json"
_EXPORTS = {"full": "diffusers", "textual_inversion": "embedding"}


@dataclass(frozen=True)
class Place:
    """Where a study works, and from which model it starts."""

    root: Path
    model: str
    """A name that ``model.path`` understands."""
    identity: Mapping[str, str]
    """The hashes of the model."""
    side: int
    """Pixels of its pictures."""

    @property
    def short_identity(self) -> str:
        return digest(dict(self.identity))[:12]

    def pictures(self, lesson: LessonName, conditions: Conditions) -> Path:
        """Returns the folder of the pictures to learn from."""
        count = conditions.sitter_pictures if lesson == "sitter" else conditions.style_pictures
        return self.root / "pictures" / f"{lesson}-{count}"


@dataclass(frozen=True)
class Trained:
    """What a setting came to at one of its steps."""

    folder: Path
    """Holds the export: ``peft``, ``diffusers`` or ``embedding``."""
    numbers: int
    """How many numbers trained."""
    bytes: int
    """The size of the exported weights."""
    seconds: float
    """The time of the steps, without what comes before the first and after the last."""


def digest(value: Mapping[str, Any]) -> str:
    """Returns a hash of plain values that does not depend on their order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def export_kind(setting: Setting) -> str:
    """Returns the format in which what the setting trained is kept, and its folder's name."""
    return _EXPORTS.get(setting.method["kind"], "peft")


# ------------------------------------------------------------------------------------------------------- the recipe
def run_config(
    setting: Setting, lesson: LessonName, conditions: Conditions, place: Place, *, out: Path, steps: int
) -> RunConfig:
    """Returns the run of a setting up to ``steps``; raises ConfigError where its parts do not fit."""
    objective: dict[str, Any] = {"kind": "denoising"}
    if setting.prior == "preservation":
        objective["preservation"] = {"prompt": CLASS_PROMPT}
    config = RunConfig.model_validate(
        {
            "out": out,
            "model": {"kind": "sd1", "path": place.model},
            "dataset": _dataset(setting, lesson, conditions, place),
            "images": {"resolution": place.side},
            "method": dict(setting.method),
            "objective": objective,
            "optimizer": {"kind": "adamw", "lr": setting.lr},
            "schedule": {"kind": "constant", "warmup_steps": conditions.warmup_steps},
            "train": {
                "steps": steps,
                "batch_size": conditions.batch_size,
                "ema_decay": setting.ema_decay,
                "save_every": 50,
                "keep_checkpoints": 1,
            },
            "cache": {"folder": place.root / "cache"},
            "export": [{"kind": export_kind(setting)}],
            "report": {"at_end": "never"},  # the judge says more of these runs
        }
    )
    problems = conflicts(config)
    if problems:
        raise ConfigError(problems, where=setting.name)
    return config


def _dataset(setting: Setting, lesson: LessonName, conditions: Conditions, place: Place) -> dict[str, Any]:
    pictures = place.pictures(lesson, conditions)
    if lesson == "style":
        if setting.prior != "nothing" or setting.has_word:
            raise ValueError(f"{setting.name}: a style has no class and is no word here")
        return {"kind": "auto", "path": pictures}
    values: dict[str, Any] = {"kind": "dreambooth", "path": pictures, "class_noun": SITTER_CLASS}
    if setting.has_word:
        values |= {"token": setting.method["token"], "instance_prompt": "a {token}"}
    else:
        values |= {"token": TOKEN, "instance_prompt": "a {token} {class_noun}"}
    if setting.prior == "class pictures":
        values |= {
            "class_path": place.root / f"class-pictures-{place.short_identity}",
            "class_pictures": conditions.class_pictures,
            "class_prompt": CLASS_PROMPT,
            "class_drawing": {
                "steps": conditions.drawing_steps,
                "guidance": conditions.guidance,
                "scheduler": "",
                "batch_size": conditions.drawing_batch,
            },
        }
    return values


def training_key(
    setting: Setting, lesson: LessonName, conditions: Conditions, place: Place, precision: str
) -> dict[str, Any]:
    """Returns what decides the weights of a setting beside the number of steps, and no path.

    It is the whole config with its defaults, so that a default that changes is not taken for what was measured.
    """
    anywhere = Place(Path("study"), "model", place.identity, place.side)
    config = run_config(setting, lesson, conditions, anywhere, out=Path("run"), steps=setting.steps[-1])
    values = config.model_dump(mode="json")
    del values["train"]["steps"]
    return {
        "limner": limner.__version__,
        "config": values,
        "model": dict(place.identity),
        "pictures": folder_hash(place.pictures(lesson, conditions)),
        "precision": precision,
    }


def folder_hash(folder: Path) -> str:
    """Returns a hash of the names and the bytes of the files in a folder."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return digest(files)


# --------------------------------------------------------------------------------------------------------- the steps
def train_to(
    setting: Setting,
    steps: int,
    lesson: LessonName,
    conditions: Conditions,
    place: Place,
    *,
    key: Mapping[str, Any],
    progress: Progress,
) -> Trained:
    """Returns what the setting comes to after ``steps``; trains only what is not on the disk.

    A run that stands at fewer steps goes on, which equals one that was never stopped.
    """
    home = place.root / "trained" / digest(key)[:16]
    kept = home / f"step_{steps:06d}"
    if (kept / RECORD).is_file():
        return _read(kept)
    run = _run_at_most(home, steps)
    config = run_config(setting, lesson, conditions, place, out=run.path, steps=steps)
    progress.say(f"training {setting.name!r} to step {steps} in {run.path}")
    result = finetune(config, resume=bool(run.checkpoint_steps()), progress=progress)
    if result.interrupted is not None:
        raise UserError(
            f"was stopped at step {result.step} of {steps}.",
            where=str(run.path),
            fix="The same command goes on from there.",
        )
    _keep(run, kept, steps)
    return _read(kept)


def _run_at_most(home: Path, steps: int) -> RunDir:
    """Returns the run to go on with; one of its own where the setting's run is past ``steps`` already."""
    run = RunDir(home / "run")
    taken = run.checkpoint_steps()
    return RunDir(home / f"run_{steps:06d}") if taken and taken[-1] > steps else run


def _keep(run: RunDir, kept: Path, steps: int) -> None:
    """Copies the export out of the run, which goes on and writes another: whole or not at all."""
    part = kept.with_name(f".{kept.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(run.export, part)
    tensors = read_safetensors_header(run.checkpoint(steps) / WEIGHTS).tensors
    record = {
        "numbers": sum(math.prod(info.shape) for info in tensors.values()),
        "bytes": _exported_bytes(part),
        "seconds": sum(line["seconds"] for line in read_metrics(run.metrics) if line["step"] <= steps),
    }
    write_json(part / RECORD, record)
    part.rename(kept)


def _exported_bytes(folder: Path) -> int:
    """Returns the bytes of the weights; an embedding is written in two layouts, of which one counts."""
    words, files = sorted(folder.rglob(LEARNED_EMBEDS)), sorted(folder.rglob("*.safetensors"))
    counted = words if (folder / "embedding").is_dir() else files
    return sum(path.stat().st_size for path in counted)


def _read(folder: Path) -> Trained:
    try:
        found = json.loads((folder / RECORD).read_bytes())
        return Trained(folder, int(found["numbers"]), int(found["bytes"]), float(found["seconds"]))
    except (ValueError, KeyError, TypeError):
        raise UserError("is damaged.", where=str(folder / RECORD), fix=f"Remove {folder.parent}.") from None

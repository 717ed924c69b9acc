"""Checkpoints: whole or not there, checked when read, tied to the run that wrote them."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import NonFiniteError, UserError
from limner.core.rundir import RunDir, write_json
from limner.training.backward import REMEDY
from limner.training.loop import TrainState

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
STATE, WEIGHTS, EMA, OPTIMIZER = "state.json", "weights.safetensors", "ema.safetensors", "optimizer.safetensors"
Identity = dict[str, Any]
"""What must stay for a checkpoint to be continued, flat: ``config.optimizer.lr``, ``base.denoiser``, ``data``."""


def save_checkpoint(rundir: RunDir, state: TrainState, identity: Identity) -> Path:
    """Writes the checkpoint of the step that ``state`` is at; one that is there already is left as it is.

    Raises NonFiniteError where a weight is not finite, and UserError where the disk is full; the checkpoints before it
    stay whole.
    """
    folder = rundir.checkpoint(state.step)
    if folder.exists():
        return folder
    spoilt = [name for name, parameter in state.params.items() if not bool(parameter.detach().isfinite().all())]
    if spoilt:
        raise NonFiniteError(f"step {state.step}: weights are not finite, the first is {spoilt[0]}.", fix=REMEDY)
    for rest in rundir.checkpoints.glob(".step_*"):  # what a kill left of writing or removing one
        shutil.rmtree(rest)
    part = rundir.checkpoints / f".{folder.name}.part"
    try:
        part.mkdir(parents=True)
        _write(part, state, identity)
        part.rename(folder)
        _sync_folder(rundir.checkpoints)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"the checkpoint of step {state.step} could not be written: {error.strerror or error}.",
            where=str(rundir.checkpoints),
            fix="Make room on the disk and continue with --resume; the checkpoints before it are whole.",
        ) from None
    return folder


def prune_checkpoints(rundir: RunDir, *, keep: int, spare: int | None = None) -> None:
    """Removes all but the newest ``keep`` checkpoints and that of the step ``spare``.

    To be called after a good step, which proves the newest good.
    """
    for step in rundir.checkpoint_steps()[:-keep]:
        if step == spare:
            continue
        doomed = rundir.checkpoints / f".step_{step:06d}.old"
        rundir.checkpoint(step).rename(doomed)  # so that a kill never leaves half of one under its name
        shutil.rmtree(doomed)


def _write(folder: Path, state: TrainState, identity: Identity) -> None:
    weights = {name: parameter.detach() for name, parameter in state.params.items()}
    _save(folder / WEIGHTS, weights)
    if state.ema is not None:
        _save(folder / EMA, state.ema.averages)
    tensors, plain = _flatten(state.optimizer.state_dict())
    _save(folder / OPTIMIZER, tensors)
    files = sorted(path.name for path in folder.iterdir())
    write_json(
        folder / STATE,
        {
            "format": FORMAT,
            "step": state.step,
            "skipped": state.skipped,
            "proved": state.proved,
            "scaler": state.scaler.state_dict() if state.scaler is not None else None,
            "optimizer": plain,
            "identity": identity,
            "files": {name: _sha256(folder / name) for name in files},
        },
    )
    _sync_folder(folder)


def load_checkpoint(folder: Path, state: TrainState, identity: Identity) -> None:
    """Puts a checkpoint into ``state``. Raises UserError that names every difference, and then changes nothing."""
    from safetensors.torch import load_file

    saved = _read_state(folder)
    differences = _differences(saved["identity"], identity)
    if differences:
        raise UserError(
            "was written by another run, or something changed since:\n" + "\n".join(f"  - {d}" for d in differences),
            where=str(folder),
            fix="Undo the changes to continue it, or start a new run with another out=...",
        )
    _verify_files(folder, saved["files"])
    _refuse_other_groups(folder, saved["optimizer"]["param_groups"], state.optimizer.param_groups)
    _load_weights(folder, state)
    tensors = load_file(folder / OPTIMIZER)
    state.optimizer.load_state_dict(_unflatten(tensors, saved["optimizer"], state.optimizer.param_groups))
    if state.scaler is not None:
        state.scaler.load_state_dict(saved["scaler"])
    state.step, state.skipped, state.proved = saved["step"], saved["skipped"], saved["proved"]


def _refuse_other_groups(folder: Path, saved: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    """Raises UserError where parameters are grouped otherwise: an optimizer's state goes by the place in its groups."""
    names = [[group.get("name") for group in groups] for groups in (saved, now)]
    if names[0] != names[1] and None not in names[0]:
        raise UserError(
            f"groups what trains as {names[0]}, this version of Limner as {names[1]}.",
            where=str(folder),
            fix="Continue with the version that wrote it, or start a new run with another out=...",
        )


def saved_identity(folder: Path) -> Identity:
    """Returns what a checkpoint says must stay the same for it to be continued."""
    identity: Identity = _read_state(folder)["identity"]
    return identity


def refuse_other_base(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which ``identity`` differs from that of a checkpoint; raises UserError where the base model
    is another."""
    saved = saved_identity(folder)
    changed = sorted(key for key in saved.keys() | identity.keys() if saved.get(key) != identity.get(key))
    if base := [key for key in changed if key.startswith("base.")]:
        raise UserError(
            f"the base model is not the one that {folder.name} was trained from ({', '.join(base)} differ).",
            where="model.path",
            fix="Bring the old model back.",
        )
    return changed


def tuned_file(folder: Path) -> Path:
    """Returns the file of a checkpoint's weights, that of their averages where it keeps them; checked to be whole."""
    files = _read_state(folder)["files"]
    name = EMA if EMA in files else WEIGHTS
    _verify_files(folder, {name: files[name]})
    return folder / name


def load_weights(folder: Path, state: TrainState) -> None:
    """Puts the weights of another checkpoint of the same run, and their averages, into ``state``: no more training."""
    files = _read_state(folder)["files"]
    _verify_files(folder, {name: files[name] for name in (WEIGHTS, EMA) if name in files})
    _load_weights(folder, state)


def _load_weights(folder: Path, state: TrainState) -> None:
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    for name, parameter in state.params.items():
        parameter.data.copy_(weights[name])
    if state.ema is not None:
        averages = load_file(folder / EMA)
        for name, average in state.ema.averages.items():
            average.copy_(averages[name])


def _read_state(folder: Path) -> dict[str, Any]:
    fix = "Remove this folder to continue from the checkpoint before it."
    try:
        saved = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"has no {STATE}: it is no checkpoint of Limner, or a damaged one.", where=str(folder), fix=fix
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"its {STATE} is damaged: {error}.", where=str(folder), fix=fix) from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UserError(f"is not of format {FORMAT}, the one that this version reads.", where=str(folder), fix=fix)
    kinds = {"step": int, "skipped": int, "proved": bool, "identity": dict, "files": dict, "optimizer": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(saved.get(name), kind)]
    if wrong:
        raise UserError(f"its {STATE} has no {', '.join(wrong)}, or not of the right kind.", where=str(folder), fix=fix)
    return saved


def _verify_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        path = folder / name
        problem = "is missing" if not path.is_file() else "was changed or damaged" if _sha256(path) != expected else ""
        if problem:
            raise UserError(
                f"{name} {problem} since the checkpoint was written.",
                where=str(folder),
                fix="Remove this folder to continue from the checkpoint before it.",
            )


def _differences(saved: Identity, now: Identity) -> list[str]:
    return [
        f"{key}: the checkpoint has {saved.get(key, 'nothing')!r}, this run has {now.get(key, 'nothing')!r}"
        for key in sorted(saved.keys() | now.keys())
        if saved.get(key) != now.get(key)
    ]


# ------------------------------------------------------------------------------- an optimizer's state without pickle
def _flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns an optimizer's tensors by ``index/name``, and the rest as JSON; bitsandbytes nests one level deeper."""
    tensors: dict[str, Tensor] = {}
    plain = _plain(state["state"], "", tensors)
    groups = [dict(group) for group in state["param_groups"]]
    return tensors, {"state": plain, "param_groups": groups}


def _plain(values: Mapping[Any, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    import torch

    plain: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, torch.Tensor):
            tensors[path] = value
        else:
            plain[str(name)] = _plain(value, f"{path}/", tensors) if isinstance(value, dict) else value
    return plain


def _unflatten(tensors: Mapping[str, Tensor], plain: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what ``load_state_dict`` takes; JSON's lists become tuples again where the optimizer has tuples."""
    state: dict[str, Any] = copy.deepcopy(plain["state"])
    for path, value in tensors.items():
        *folders, name = path.split("/")
        target = state
        for folder in folders:
            target = target.setdefault(folder, {})
        target[name] = value
    restored = [
        {key: tuple(value) if isinstance(now.get(key), tuple) else value for key, value in saved.items()}
        for saved, now in zip(plain["param_groups"], groups, strict=True)
    ]
    return {"state": {int(index): entries for index, entries in state.items()}, "param_groups": restored}


# ---------------------------------------------------------------------------------------------------------- files
def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        # a clone, since optimizers keep views and shared scalars, which the format refuses
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

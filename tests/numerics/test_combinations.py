"""Method x precision x split of the batch x recomputed activations: each trains, resumes, and gives one result."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from limner.config import RunConfig
from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune
from tests.numerics.conftest import run_config, run_values
from tests.numerics.test_resume import Interrupt, StopAt, assert_same_run
from tests.tiny import save_tiny_clip

TEXT = {"text_encoder": True}
WORD = {"token": "<it>", "initialise": "circle"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora"},
    "lora with text": {"kind": "lora", **TEXT},
    "dora": {"kind": "lora", "dora": True},
    "lora on convolutions": {"kind": "lora", "targets": ["to_q", "conv1", "conv2"]},
    "loha": {"kind": "loha"},
    "lokr with text": {"kind": "lokr", **TEXT},
    "full": {"kind": "full"},
    "full with text": {"kind": "full", **TEXT},
    "new word": {"kind": "textual_inversion", **WORD},
    "new word and lora": {"kind": "pivotal", **WORD},
}
PRECISIONS = ("fp32", "bf16", "fp16")
SPLITS = {"whole": 3, "split": 1}
ACTIVATIONS = {"kept": False, "recomputed": True}
TOLERANCES = {"fp32": 2e-5, "bf16": 3e-2, "fp16": 5e-3}
"""How far the first loss may be from that of the whole batch with activations kept, as a share."""
OFTEN = {("lora with text", "fp32"), ("full with text", "bf16"), ("new word and lora", "fp32")}
"""What the fast tests look at, with both savings."""
CASES = [
    pytest.param(
        *case,
        marks=[] if case[:2] in OFTEN and case[2:] == ("split", "recomputed") else pytest.mark.slow,
        id=", ".join(case),
    )
    for case in product(METHODS, PRECISIONS, SPLITS, ACTIVATIONS)
]


def combination(method: str, precision: str, split: str, activations: str, out: Path, model: Path, data: Path) -> Any:
    objective = {"caption_dropout": 0.0} if "new word" in method else {}
    saves_memory = (split, activations) != ("whole", "kept")
    return run_config(
        model,
        data,
        out,
        method=METHODS[method],
        captions={"prefix": "<it> "} if "new word" in method else {},
        objective={"kind": "denoising", **objective},
        optimizer={"lr": 1e-2},
        schedule={"kind": "constant", "warmup_steps": 0},
        train={
            "steps": 2,
            "batch_size": 3,
            "micro_batch_size": SPLITS[split],
            "save_every": 1,
            "precision": precision,
            "gradient_checkpointing": ACTIVATIONS[activations],
        },
        export=[] if saves_memory else None,  # what is written depends on method and precision
    )


@pytest.mark.parametrize(("method", "precision", "split", "activations"), CASES)
def test_it_trains_resumes_bit_for_bit_and_the_savings_change_no_number(
    method: str, precision: str, split: str, activations: str, tmp_path: Path, tiny_model: Path, drawings: Path
) -> None:
    case = (method, precision, split, activations)
    whole = combination(*case, tmp_path / "whole", tiny_model, drawings)
    result = finetune(whole)
    assert result.change is not None
    assert result.change > 0
    assert bool(result.exports) == (whole.export is None)
    broken = combination(*case, tmp_path / "broken", tiny_model, drawings)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(2))
    assert RunDir(broken.out).checkpoint_steps()[-1] == 1
    finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))
    if (split, activations) != ("whole", "kept"):
        plain = combination(method, precision, "whole", "kept", tmp_path / "plain", tiny_model, drawings)
        with pytest.raises(Interrupt):
            finetune(plain, progress=StopAt(1))
        mine = read_metrics(RunDir(whole.out).metrics)[0]["loss"]
        theirs = read_metrics(RunDir(plain.out).metrics)[0]["loss"]
        assert mine == pytest.approx(theirs, rel=TOLERANCES[precision])


TOWERS: dict[str, dict[str, Any]] = {
    "towers": {"kind": "towers", "layer_decay": 0.7, "text_lr_scale": 0.5},
    "last layers": {"kind": "towers", "image": 1, "text": "none", "temperature": False},
    "lora": {"kind": "lora", "dropout": 0.1, "towers": {"projections": True, "temperature": True}},
    "dora on the text tower": {"kind": "lora", "dora": True, "towers": {"image": False, "targets": ["q_proj", "fc1"]}},
    "residual heads": {"kind": "heads"},
    "other heads": {"kind": "heads", "image": "mlp", "text": "linear", "dim": 8, "hidden": 12},
}
TOWER_CASES = [
    pytest.param(method, precision, kept, marks=[] if often else pytest.mark.slow, id=f"{method}, {precision}, {kept}")
    for method, precision, kept in product(TOWERS, PRECISIONS, ACTIVATIONS)
    if not ("heads" in method and kept == "recomputed")  # refused: nothing would be computed again
    for often in [precision == "bf16" and (kept == "recomputed" or method == "residual heads")]
]


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


def dual_encoder(method: str, precision: str, activations: str, out: Path, model: Path, data: Path) -> Any:
    values = run_values(
        model,
        data,
        out,
        images={"buckets": False, "crop": "random", "flip": True},
        method=TOWERS[method],
        objective={"kind": "contrastive"},
        optimizer={"lr": 1e-2},
        schedule={"kind": "constant", "warmup_steps": 0},
        train={
            "steps": 3 if precision != "fp16" else 10,  # the scaler skips some before it fits
            "batch_size": 4,
            "micro_batch_size": None,
            "save_every": 1,
            "precision": precision,
            "gradient_checkpointing": ACTIVATIONS[activations],
        },
        export=[] if activations == "recomputed" else None,
    )
    return RunConfig.model_validate({**values, "model": {"kind": "clip", "path": str(model)}})


@pytest.mark.parametrize(("method", "precision", "activations"), TOWER_CASES)
def test_a_dual_encoder_trains_resumes_bit_for_bit_and_saving_memory_changes_no_number(
    method: str, precision: str, activations: str, tmp_path: Path, tiny_clip: Path, drawings: Path
) -> None:
    case = (method, precision, activations)
    whole = dual_encoder(*case, tmp_path / "whole", tiny_clip, drawings)
    result = finetune(whole)
    assert result.change is not None
    assert result.change > 0
    assert bool(result.exports) == (whole.export is None)
    broken = dual_encoder(*case, tmp_path / "broken", tiny_clip, drawings)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(result.step))
    finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))
    if activations == "recomputed":
        plain = dual_encoder(method, precision, "kept", tmp_path / "plain", tiny_clip, drawings)
        with pytest.raises(Interrupt):
            finetune(plain, progress=StopAt(1))
        losses = [read_metrics(RunDir(run.out).metrics)[0]["loss"] for run in (whole, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=TOLERANCES[precision])

"""Method x precision x split of the batch x recomputed activations: each trains, resumes, and gives one result."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune
from tests.numerics.conftest import run_config
from tests.numerics.test_resume import Interrupt, StopAt, assert_same_run

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
    assert result.exports
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

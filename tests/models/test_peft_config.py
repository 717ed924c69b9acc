"""A stranger's adapter_config.json is read as text, and refused where it asks for more than a strength."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from peft import LoraConfig

from limner.core.errors import UserError
from limner.models.peft_config import read_peft_config


def write(folder: Path, **fields: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(fields))
    return path


def test_the_config_that_peft_writes_is_read(tmp_path: Path) -> None:
    config = LoraConfig(
        r=6,
        lora_alpha=9,
        target_modules=["to_q"],
        rank_pattern={"up.to_q": 2},
        alpha_pattern={r"^mid\.to_q": 5},
        use_dora=True,
        lora_dropout=0.1,
    )
    config.save_pretrained(tmp_path)
    strength = read_peft_config(tmp_path / "adapter_config.json")
    assert strength.alpha("down.to_q", 6, where="") == 9
    assert strength.alpha("block.up.to_q", 2, where="") == 9
    assert strength.alpha("mid.to_q", 6, where="") == 5
    assert strength.alpha("other.mid.to_q", 6, where="") == 9
    assert strength.dora


def test_code_that_a_config_names_is_never_looked_at(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        r=4,
        auto_mapping={"parent_library": "os", "base_model_class": "system"},
        base_model_name_or_path="https://evil.example/model",
        megatron_core="evil.module",
    )
    assert read_peft_config(path).rank == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "OFT"}, "kind 'OFT'"),
        ({"use_frobnication": True}, "asks for 'use_frobnication'"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "biases"),
        ({"use_qalora": True}, "use_qalora"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"r": 10**9}, "r is '1000000000'"),
        ({"r": -1}, "r is '-1'"),
        ({"r": "4"}, "r is '4'"),
        ({"r": True}, "r is 'True'"),
        ({"lora_alpha": None}, "lora_alpha is 'None'"),
        ({"rank_pattern": {"to_q": 0}}, "to_q is '0'"),
        ({"rank_pattern": []}, None),
        ({"rank_pattern": [1]}, "rank_pattern is"),
        ({"alpha_pattern": {"(a+)+$": 4}}, "no layer's name"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, fields: dict[str, object], message: str | None) -> None:
    path = write(tmp_path, **fields)
    if message is None:
        assert read_peft_config(path).rank == 8
        return
    with pytest.raises(UserError, match=message):
        read_peft_config(path)


@pytest.mark.parametrize("text", ["", "[]", '{"r": NaN}', "[" * 100_000, '{"r": 1, "r": 2}', "\xff"])
def test_a_damaged_config_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError):
        read_peft_config(path)


def test_a_config_of_many_patterns_takes_no_time(tmp_path: Path) -> None:
    path = write(tmp_path, r=4, alpha_pattern={"a." * 100 + str(number): 1 for number in range(100)})
    start = time.perf_counter()
    read_peft_config(path).alpha("a." * 500 + "b", 4, where="")
    assert time.perf_counter() - start < 2


def test_a_rank_that_the_matrices_do_not_have_is_refused(tmp_path: Path) -> None:
    strength = read_peft_config(write(tmp_path, r=16, lora_alpha=16))
    with pytest.raises(UserError, match="rank 4, the config says 16"):
        strength.alpha("to_q", 4, where="x")

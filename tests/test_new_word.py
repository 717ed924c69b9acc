"""A recipe that teaches a new word: what is refused before it trains, and what a run comes to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import limner
from limner.builtin.drawings import draw_folder
from limner.config import RunConfig, conflicts
from limner.core.errors import ConfigError, UserError
from limner.core.rundir import RunDir
from limner.drawing import draw
from limner.preflight import plan
from tests.heard import Heard
from tests.numerics.conftest import run_config
from tests.tiny import save_tiny

WORD = {"kind": "textual_inversion", "token": "<toy>", "vectors": 2, "initialise": "dog"}
BOTH = {**WORD, "kind": "pivotal", "token_lr_scale": 3, "lora": {"rank": 2}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures; the captions of the last two hold the word."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, count=4)
    for number, caption in enumerate(("a dog", "a cat", "a <toy> on a dog", "a photo of <toy>")):
        (folder / f"{number:02d}.txt").write_text(caption, encoding="utf-8")
    return folder


def recipe(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    values = {"method": WORD, "objective": {"caption_dropout": 0.0}, "schedule": {"warmup_steps": 0}, **changes}
    return run_config(model, pictures, out, **values)


def captions(folder: Path, texts: Sequence[str]) -> Path:
    draw_folder(folder, count=len(texts))
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return folder


def test_the_plan_counts_the_captions_that_hold_the_word_and_its_tokens(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    planned = plan(recipe(model, pictures, tmp_path / "run"))
    assert dict(planned.rows)["new word"] == "<toy>, 2 vectors, begins as 'dog'; 2 of 4 captions hold it"
    tokens = {row.id: row.tokens for row in planned.ledger.rows}
    assert tokens == {"00.png": 4, "01.png": 4, "02.png": 8, "03.png": 7}


REFUSED = {
    "a word in no caption": ({"token": "<other>"}, r"'<other>' stands in none of the 4 captions"),
    "a known word": ({"token": "dog"}, r"method\.token: the tokenizer has 'dog' as a word already \(id \d+\)"),
    "upper case": ({"token": "<Toy>"}, r"reads '<Toy>' as '<toy>'.*Write '<toy>'"),
    "pieces": ({"initialise": "zebra", "vectors": 1}, r"method\.initialise: 'zebra' is cut into \d tokens \('z', "),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_teach_nothing_is_refused_before_weights_are_read(
    model: Path, pictures: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(recipe(model, pictures, tmp_path / "run", method={**WORD, **changes}))


@pytest.mark.parametrize("caption", ["a <Toy>", "dog " * 74 + "<toy>"])
def test_a_caption_that_is_read_with_some_of_the_vectors_is_refused(model: Path, tmp_path: Path, caption: str) -> None:
    data = captions(tmp_path / "data", ["a <toy>", caption])
    with pytest.raises(UserError, match="1 of 2 captions are read with some of the 2 vectors of '<toy>' only"):
        plan(recipe(model, data, tmp_path / "run"))


def test_a_bare_word_inside_a_longer_one_is_told(model: Path, tmp_path: Path) -> None:
    heard = Heard()
    data = captions(tmp_path / "data", ["a toyx", "a toyxy"])
    plan(recipe(model, data, tmp_path / "run", method={**WORD, "token": "toyx"}), progress=heard)
    assert heard.warnings == ["'toyx' stands inside a longer word of 1 captions, such as 'a toyxy'"]


def test_parts_that_do_not_belong_together_are_named(model: Path, pictures: Path, tmp_path: Path) -> None:
    dropout = recipe(model, pictures, tmp_path / "run", objective={"caption_dropout": 0.1})
    assert conflicts(dropout)[0].startswith("objective.caption_dropout: 0.1 leaves captions empty")
    with pytest.raises(ConfigError, match="caption_dropout"):
        plan(dropout)
    assert not conflicts(recipe(model, pictures, tmp_path / "run", method=BOTH, objective={"caption_dropout": 0.1}))
    peft = recipe(model, pictures, tmp_path / "run", export=[{"kind": "peft"}])
    assert conflicts(peft) == ["export: 'peft' cannot hold what method 'textual_inversion' trains of 'sd1'."]
    other = recipe(model, pictures, tmp_path / "run", objective={"kind": "reconstruction"})
    assert conflicts(other)[0].startswith("objective: 'reconstruction' trains")
    pytest.importorskip("prodigyopt")
    lora = {"text_encoder": True, "text_encoder_lr_scale": 0.5}
    prodigy = recipe(
        model, pictures, tmp_path / "run", method={**BOTH, "lora": lora}, optimizer={"kind": "prodigy", "lr": 1.0}
    )
    assert [problem.partition(":")[0] for problem in conflicts(prodigy)] == [
        "method.token_lr_scale",
        "method.lora.text_encoder_lr_scale",
    ]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_run_learns_though_some_captions_do_not_hold_the_word(
    model: Path, pictures: Path, tmp_path: Path, batch_size: int
) -> None:
    train = {"steps": 6, "batch_size": batch_size, "micro_batch_size": 1}
    samples = {"prompts": ["a <toy>"], "steps": 1}
    result = limner.finetune(recipe(model, pictures, tmp_path / "run", train=train, samples=samples, export=None))
    assert result.change is not None
    assert result.change > 0
    assert [export.path.name for export in result.exports] == ["embedding"]
    run = RunDir(result.out)
    state = json.loads((run.checkpoint(6) / "state.json").read_text())
    assert state["proved"]
    weights = load_file(run.checkpoint(6) / "weights.safetensors")
    assert [tuple(value.shape) for value in weights.values()] == [(32,), (32,)]
    averaged = load_file(run.checkpoint(6) / "ema.safetensors")
    exported = load_file(run.export / "embedding" / "learned_embeds.safetensors")["<toy>"]
    assert torch.equal(exported, torch.stack([averaged[name] for name in sorted(averaged)]))
    first, last = (next((run.samples / step).glob("*.png")) for step in ("step_000000", "step_000006"))
    assert first.read_bytes() != last.read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_the_vectors_have_their_own_rate_and_no_weight_decay(
    model: Path, pictures: Path, tmp_path: Path, optimizer: str
) -> None:
    """With a decay of 1 at a rate of 0.5 the vectors would lose most of their length in six steps."""
    config = recipe(
        model,
        pictures,
        tmp_path / "run",
        method={**BOTH, "token_lr_scale": 1e-3},
        optimizer={"kind": optimizer, "lr": 0.5, "weight_decay": 1.0},
        train={"steps": 6, "ema_decay": None},
    )
    limner.finetune(config)
    run = RunDir(tmp_path / "run")
    groups = json.loads((run.checkpoint(6) / "state.json").read_text())["optimizer"]["param_groups"]
    assert [group.get("weight_decay", 1.0) for group in groups] == [1.0, 0.0]
    assert groups[1]["lr"] == pytest.approx(groups[0]["lr"] / 1000)
    start = load_file(run.checkpoint(4) / "weights.safetensors")
    names = [name for name in start if ".vectors." in name]
    assert len(names) == 2
    table = load_file(model / "text_encoder" / "model.safetensors")
    (rows,) = (value for name, value in table.items() if name.endswith("token_embedding.weight"))
    after = load_file(run.checkpoint(6) / "weights.safetensors")
    for name in names:
        nearest = (rows - after[name]).norm(dim=1).min()
        assert nearest < 0.1 * after[name].norm()


def test_a_lora_of_pivotal_tuning_draws_with_its_word(model: Path, pictures: Path, tmp_path: Path) -> None:
    strong: dict[str, Any] = {"optimizer": {"lr": 0.05}, "train": {"steps": 4}, "export": None}
    limner.finetune(recipe(model, pictures, tmp_path / "run", method=BOTH, **strong))
    assert sorted(path.name for path in RunDir(tmp_path / "run").export.iterdir()) == [
        "diffusers",
        "embedding",
        "kohya",
        "peft",
    ]
    heard = Heard()
    asked: dict[str, Any] = {"model": str(model), "seed": 3, "steps": 1, "size": "32x32", "device": "cpu"}
    prompts = ["a <toy>", "a dog"]

    def drawn(name: str, **changes: Any) -> list[bytes]:
        from PIL import Image

        paths = list(draw(prompts=prompts, out=tmp_path / name, progress=heard, **asked, **changes))
        return [Image.open(path).tobytes() for path in paths]

    run = str(tmp_path / "run")
    both, plain = drawn("both", adapters=[run]), drawn("plain")
    assert any("was trained together with the embedding" in text for text in heard.warnings)
    assert "The prompt does not hold '<toy>', so its embedding has no effect." in heard.warnings
    given = drawn("given", adapters=[run], embeddings=[f"{run}/export/embedding"])
    word, renamed = drawn("word", embeddings=[run]), drawn("renamed", embeddings=[f"<else>={run}"])
    assert both == given
    assert both[0] != plain[0] != word[0] != both[0]
    assert word[1] == plain[1] != both[1]
    assert renamed == plain

"""Runs on several sources, with captions that are made anew at each visit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig, conflicts, load_config
from limner.core.errors import ConfigError, UserError
from limner.core.rundir import RunDir, read_metrics
from limner.export.metadata import without_names
from limner.inspect import inspect_path
from limner.preflight import plan
from limner.run import finetune
from tests.numerics.conftest import run_values
from tests.numerics.test_resume import Interrupt, StopAt, assert_same_run
from tests.tiny import save_tiny

TAGS = {"few": "zwx, red, blue, green, on the left", "many": "circle, square, triangle,yellow"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of pictures with tags for captions."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, (name, count) in enumerate((("few", 2), ("many", 4))):
        draw_folder(root / name, count=count, seed=seed)
        for sidecar in (root / name).glob("*.txt"):
            sidecar.write_text(f"{TAGS[name]}\n")
    return root


def config(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    """Returns a run on both folders; ``few`` and ``many`` change a source."""
    sources = [
        {"name": name, "dataset": {"kind": "folder", "path": str(pictures / name)}, **changes.pop(name, {})}
        for name in TAGS
    ]
    values = run_values(model, pictures, out, schedule={"kind": "constant", "warmup_steps": 0}, **changes)
    return RunConfig.model_validate({**values, "dataset": {"kind": "several", "sources": sources}})


TOOLS: dict[str, Any] = {
    "captions": {
        "shuffle_tags": True,
        "keep_first": 1,
        "tag_dropout": 0.3,
        "add_trigger_word": True,
        "suffix": ", end",
    },
    "trigger_word": "zwx",
}


def test_a_run_with_everything_drawn_resumes_bit_for_bit(model: Path, pictures: Path, tmp_path: Path) -> None:
    changes = {**TOOLS, "few": {"repeats": 2, "weight": 0.5}, "train": {"steps": 5}}
    whole = config(model, pictures, tmp_path / "whole", **changes)
    finetune(whole)
    broken = config(model, pictures, tmp_path / "broken", **changes)
    with pytest.raises(Interrupt):
        finetune(broken, progress=StopAt(3))
    for key, other in (
        ("captions.suffix", {"captions": {**TOOLS["captions"], "suffix": "."}}),
        ("trigger_word", {"trigger_word": "a"}),
    ):
        with pytest.raises(UserError, match=rf"config\.{key}: the checkpoint has"):
            finetune(broken.model_validate({**broken.model_dump(), **other}), resume=True)
    finetune(broken, resume=True)
    assert_same_run(RunDir(whole.out), RunDir(broken.out))


def test_the_tools_change_what_is_trained_and_whole_dropout_does_not_see_them(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    def losses(name: str, dropout: float, **changes: Any) -> list[float]:
        chosen = config(
            model, pictures, tmp_path / name, objective={"caption_dropout": dropout}, train={"steps": 2}, **changes
        )
        finetune(chosen)
        return [line["loss"] for line in read_metrics(RunDir(chosen.out).metrics)]

    assert losses("plain", 0) != losses("tools", 0, **TOOLS)
    assert losses("plain, dropped", 1) == losses("tools, dropped", 1, **TOOLS)


def test_the_weight_of_a_source_is_the_factor_of_its_loss(model: Path, pictures: Path, tmp_path: Path) -> None:
    def first_loss(name: str, **changes: Any) -> float:
        chosen = config(model, pictures, tmp_path / name, train={"steps": 1, "batch_size": 6}, **changes)
        finetune(chosen)
        return float(read_metrics(RunDir(chosen.out).metrics)[0]["loss"])

    plain = first_loss("plain")
    assert first_loss("all", few={"weight": 4}, many={"weight": 4}) == pytest.approx(4 * plain, rel=1e-6)
    few = (first_loss("few", few={"weight": 3}) - plain) / 2  # the part of the batch's loss that is theirs
    many = (first_loss("many", many={"weight": 3}) - plain) / 2
    assert few + many == pytest.approx(plain, rel=1e-5)
    assert min(few, many) > 0


def test_the_plan_tells_sources_visits_and_captions(model: Path, pictures: Path, tmp_path: Path) -> None:
    changes = {**TOOLS, "few": {"repeats": 5}, "train": {"steps": None, "epochs": 1, "batch_size": 2}}
    planned = plan(config(model, pictures, tmp_path / "run", **changes))
    rows = dict(planned.rows)
    assert planned.steps == 7  # two pictures five times and four once
    assert rows["source few"] == "2 pictures, 10 visits in an epoch (71% of all)"
    assert rows["source many"] == "4 pictures, 4 visits in an epoch (29% of all)"
    assert rows["trigger word"] == "'zwx' is put before 4 of 6 captions"
    assert rows["a caption reads"].endswith(", and stands in the data as 'zwx, red, blue, green, on the left'")


def test_tokens_are_counted_in_captions_as_they_are_read(model: Path, pictures: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")

    def tokens(text: str) -> int:
        return len(tokenizer(text).input_ids)

    ledger = plan(config(model, pictures, tmp_path / "run", **TOOLS)).ledger
    found = {row.id.partition("/")[0]: row.tokens for row in ledger.rows}
    assert found == {"few": tokens(TAGS["few"] + ", end"), "many": tokens("zwx, " + TAGS["many"] + ", end")}
    long = {"captions": {"suffix": ", a" * 40}}
    assert not any(row.tokens_cut for row in ledger.rows)
    planned = plan(config(model, pictures, tmp_path / "run", **long))
    assert all(row.tokens_cut for row in planned.ledger.rows)
    assert dict(planned.rows)["captions cut"].startswith("6 with more than 77 tokens")


def test_the_trigger_word_is_looked_for_in_captions_as_they_are_read(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="'abc' stands in no caption"):
        plan(config(model, pictures, tmp_path / "run", trigger_word="abc"))
    for captions in ({"prefix": "abc, "}, {"add_trigger_word": True}):
        assert plan(config(model, pictures, tmp_path / "run", trigger_word="abc", captions=captions)).steps == 8


def test_captions_that_are_ever_new_are_not_kept_on_the_disk(model: Path, pictures: Path, tmp_path: Path) -> None:
    def kept(name: str, **changes: Any) -> int:
        chosen = config(
            model,
            pictures,
            tmp_path / name,
            objective={"caption_dropout": 0},
            train={"steps": 6},
            cache={"latents": False, "folder": str(tmp_path / f"cache of {name}")},
            **changes,
        )
        finetune(chosen)
        return len(list((tmp_path / f"cache of {name}").rglob("*.safetensors")))

    assert kept("plain", captions={"suffix": ", end"}) == 2
    assert kept("drawn", **TOOLS) == 0


def test_a_run_among_the_pictures_of_a_source_is_refused(model: Path, pictures: Path) -> None:
    with pytest.raises(UserError, match=r"lies in dataset\.sources\.1\.dataset\.path") as caught:
        plan(config(model, pictures, pictures / "many" / "run"))
    assert caught.value.where == "out"


def test_options_for_captions_that_nothing_reads_are_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    chosen = config(model, pictures, tmp_path / "run", captions={"prefix": "a "})
    values = chosen.model_dump(mode="json")
    autoencoder = RunConfig.model_validate(
        {**values, "method": {"kind": "autoencoder"}, "objective": {"kind": "reconstruction"}}
    )
    assert conflicts(chosen) == []
    assert [problem.partition(":")[0] for problem in conflicts(autoencoder)] == ["captions"]
    with pytest.raises(ConfigError, match="there is no trigger_word to add"):
        plan(config(model, pictures, tmp_path / "run", captions={"add_trigger_word": True}))


def test_a_private_file_names_no_source_and_no_text_of_captions(model: Path, pictures: Path, tmp_path: Path) -> None:
    kept = without_names(config(model, pictures, tmp_path / "run", **TOOLS).model_dump(mode="json"))
    told = json.dumps(kept)
    assert "sources" in told
    assert not [text for text in ("few", "many", ", end", "zwx", str(tmp_path), str(pictures)) if text in told]


def test_a_recipe_of_several_sources_is_told_and_reads_back_from_its_run(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    chosen = config(model, pictures, tmp_path / "run", train={"steps": 1}, **TOOLS)
    finetune(chosen)
    assert load_config(RunDir(chosen.out).config) == chosen
    facts = inspect_path(RunDir(chosen.out).config).facts
    assert facts["sources"] == f"few ({pictures / 'few'}), many ({pictures / 'many'})"
    assert inspect_path(RunDir(chosen.out).path).facts["sources"] == facts["sources"]

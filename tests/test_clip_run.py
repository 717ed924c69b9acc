"""Training a dual encoder from check to export: what trains, what stays, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from limner.config import RunConfig, conflicts
from limner.core.errors import ConfigError, UserError
from limner.core.rng import tensor_stream
from limner.core.rundir import RunDir, read_metrics
from limner.data.batch import Batch
from limner.evaluation.hidden_states import measure_move
from limner.models.clip import Clip
from limner.run import finetune
from limner.training.contrastive import Contrastive
from limner.training.precision import choose_device, choose_precision
from tests.tiny import save_tiny, save_tiny_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from limner.builtin.pictures import draw_pictures

    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder, count=8, seed=3, captions=2, side=32)
    return folder


def config(model: Path, pictures: Path, out: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "out": out,
        "model": {"kind": "clip", "path": str(model)},
        "dataset": {"kind": "table", "path": pictures},
        "images": {"resolution": 32, "buckets": False},
        "method": {"kind": "towers", "text": "none"},
        "objective": {"kind": "contrastive"},
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "train": {"steps": 4, "batch_size": 4, "device": "cpu", "save_every": 2},
        "cache": {"folder": out.parent / "cache"},
    }
    return RunConfig.model_validate(values | changes)


def test_the_loss_and_its_gradient_are_those_of_transformers(model: Path) -> None:
    ours, theirs = Clip(path=str(model)).load(), CLIPModel.from_pretrained(model)
    ours.network.requires_grad_(True)
    pixels = torch.rand(4, 3, 32, 32, generator=tensor_stream(0, 0, "test")) * 2 - 1
    captions = ("a red circle", "a dog", "the blue square", "a painting of a cat")
    batch = Batch((0, 1, 2, 3), ("a", "b", "c", "d"), captions, pixels, None, torch.ones(4))
    loss = Contrastive().losses(ours, batch, precision=choose_precision("fp32", choose_device("cpu"))).mean()
    loss.backward()
    means, stds = (torch.tensor(value).view(1, 3, 1, 1) for value in (ours.means, ours.stds))
    inputs = ours.tokenizer(list(captions), padding=True, return_tensors="pt")
    expected = theirs(pixel_values=((pixels + 1) / 2 - means) / stds, return_loss=True, **inputs).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for (name, one), (_, other) in zip(ours.network.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_the_temperature_stops_at_its_bound(model: Path) -> None:
    ours = Clip(path=str(model)).load()
    batch = Batch((0, 1), ("a", "b"), ("a dog", "a cat"), torch.rand(2, 3, 32, 32), None, torch.ones(2))
    precision = choose_precision("fp32", choose_device("cpu"))
    ours.network.logit_scale.data.fill_(20.0)
    above = Contrastive(max_logit_scale=50).losses(ours, batch, precision=precision)
    ours.network.logit_scale.data.fill_(float(torch.tensor(50.0).log()))
    torch.testing.assert_close(above, Contrastive(max_logit_scale=50).losses(ours, batch, precision=precision))


@pytest.mark.parametrize("text", ["none", "all"])
def test_a_run_trains_what_it_says_and_its_export_is_read_by_transformers(
    model: Path, pictures: Path, tmp_path: Path, text: str
) -> None:
    method = {"kind": "towers", "text": text}
    result = finetune(config(model, pictures, tmp_path / "run", method=method))
    assert result.step == 4
    assert result.change is not None
    assert result.change > 0
    before, after = load_file(model / "model.safetensors"), load_file(result.exports[0].path / "model.safetensors")
    base, tuned = (Clip(path=str(path)).load() for path in (model, result.exports[0].path))
    moved = measure_move(base.network.text_model, tuned.network.text_model, base.tokenizer).moved
    assert result.text_moved == (None if text == "none" else pytest.approx(moved, rel=1e-5))
    assert (moved == 0) == (text == "none")
    still = {name for name in before if torch.equal(before[name], after[name])}
    tower = {name for name in before if name.startswith("text_model.")}
    assert still == (tower if text == "none" else set())
    CLIPModel.from_pretrained(result.exports[0].path)


def test_a_stopped_run_continues_bit_for_bit(model: Path, pictures: Path, tmp_path: Path) -> None:
    whole, parts = config(model, pictures, tmp_path / "whole"), config(model, pictures, tmp_path / "parts")
    finetune(whole)
    first = {"steps": 2, "batch_size": 4, "device": "cpu", "save_every": 2}
    finetune(config(model, pictures, tmp_path / "parts", train=first))
    finetune(parts, resume=True)
    weights = [load_file(RunDir(run.out).checkpoint(4) / "weights.safetensors") for run in (whole, parts)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    losses = [[line["loss"] for line in read_metrics(RunDir(run.out).metrics)] for run in (whole, parts)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": {"kind": "full"}}, "'contrastive' trains model 'clip' by method towers or heads or lora"),
        ({"method": {"kind": "loha"}}, "'contrastive' trains model 'clip' by method towers or heads or lora"),
        ({"method": {"kind": "lora"}}, "say where the adapters go"),
        ({"method": {"kind": "lora", "towers": {}, "targets": ["to_q"]}}, "method.targets: is for a diffusion model"),
        (
            {"method": {"kind": "lora", "towers": {"temperature": True}}, "export": [{"kind": "peft"}]},
            "no place for what method.towers.temperature trains",
        ),
        (
            {"method": {"kind": "heads"}, "train": {"steps": 1, "batch_size": 4, "gradient_checkpointing": True}},
            "saves nothing where no tower trains",
        ),
        (
            {"objective": {"kind": "denoising"}},
            "'denoising' trains model 'sd1' by method lora or loha or lokr or full or ",
        ),
        ({"train": {"steps": 1, "batch_size": 1}}, "no other caption"),
        ({"samples": {"prompts": ["a cat"]}}, "does not draw"),
        ({"export": [{"kind": "diffusers"}]}, "cannot hold what method 'towers' trains of 'clip'"),
    ],
)
def test_what_does_not_belong_together_is_said(
    model: Path, pictures: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    problems = conflicts(config(model, pictures, tmp_path / "run", **changes))
    assert len(problems) == 1
    assert says in problems[0]


def test_a_config_made_in_python_is_checked_as_a_recipe_is(model: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'denoising' trains model 'sd1'"):
        finetune(config(model, pictures, tmp_path / "run", objective={"kind": "denoising"}))


def test_pictures_of_another_size_than_the_tower_reads_are_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    wrong = config(model, pictures, tmp_path / "run", images={"resolution": 64, "buckets": False})
    with pytest.raises(UserError, match="32x32 only"):
        finetune(wrong)


def test_a_pipeline_is_no_clip(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CLIP model"):
        finetune(config(save_tiny(tmp_path / "sd"), pictures, tmp_path / "run"))


@pytest.mark.parametrize("key", ["method.towers", "method.lora.towers"])
def test_a_diffusion_model_has_no_towers(model: Path, pictures: Path, tmp_path: Path, key: str) -> None:
    lora = {"kind": "lora", "towers": {}}
    pivotal = {"kind": "pivotal", "token": "<it>", "initialise": "dog", "lora": lora}
    values = config(model, pictures, tmp_path / "run").model_dump()
    values |= {"model": {"kind": "sd1", "path": "builtin"}, "objective": {"kind": "denoising"}}
    method = pivotal if key == "method.lora.towers" else lora
    problems = conflicts(RunConfig.model_validate({**values, "method": method}))
    assert problems == [f"{key}: model 'sd1' has none; leave it out."]


def test_a_lora_is_exported_to_all_that_can_hold_it(model: Path, pictures: Path, tmp_path: Path) -> None:
    def written(temperature: bool) -> list[str]:
        method = {"kind": "lora", "towers": {"temperature": temperature}}
        run = config(model, pictures, tmp_path / str(temperature), method=method)
        return [export.path.name for export in finetune(run).exports]

    assert written(False) == ["peft", "transformers", "clip_text_encoder"]
    assert written(True) == ["transformers", "clip_text_encoder"]


def test_a_run_that_goes_on_tells_how_far_the_text_encoder_moved_since_its_beginning(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    moved = []
    for name, adapter in (("towers", {"kind": "towers"}), ("lora", {"kind": "lora", "towers": {}})):
        whole = finetune(config(model, pictures, tmp_path / name / "whole", method=adapter))
        first = {"steps": 2, "batch_size": 4, "device": "cpu", "save_every": 2}
        finetune(config(model, pictures, tmp_path / name / "parts", method=adapter, train=first))
        parts = finetune(config(model, pictures, tmp_path / name / "parts", method=adapter), resume=True)
        assert parts.text_moved == whole.text_moved
        moved.append(whole.text_moved)
    assert min(moved) > 0


def test_a_checkpoint_of_other_groups_is_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = config(model, pictures, tmp_path / "run", method={"kind": "towers", "layer_decay": 0.5})
    finetune(run)
    state = RunDir(run.out).checkpoint(4) / "state.json"
    text = state.read_text()
    assert '"visual_projection.top"' in text
    state.write_text(text.replace('"visual_projection.top"', '"visual_projection.bottom"'))
    with pytest.raises(UserError, match=r"groups what trains as .*'visual_projection.bottom'.*, this version"):
        finetune(run, resume=True)

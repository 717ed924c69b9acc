"""What a training of CLIP leaves is read back by the libraries it is for, and is what trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, CLIPModel

from limner.core.errors import UserError
from limner.export.peft import Peft
from limner.export.result import ExportResult
from limner.export.transformers import Transformers
from limner.methods import MethodConfig
from limner.methods.heads import Heads
from limner.methods.lora import Lora
from limner.methods.tower_adapters import TowerAdapters
from limner.methods.towers import Towers
from limner.models.clip import Clip, ClipModel
from limner.models.probe import difference, probe_dual_encoder
from tests.tiny import save_tiny_clip

PEFT_READERS: dict[str, TowerAdapters] = {
    "both towers": TowerAdapters(),
    "one tower": TowerAdapters(text=False, targets=("q_proj", "fc2")),
    "with projections": TowerAdapters(image=False, projections=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


def trained(folder: Path, method: Any) -> tuple[ClipModel, Any]:
    """Returns a model whose trained parameters moved at random, as much as makes a visible change."""
    model = Clip(path=str(folder)).load()
    trainable = method.apply(model, seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in trainable.params.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, trainable


def write(export: Any, folder: Path, method: MethodConfig, out: Path) -> tuple[ClipModel, ExportResult]:
    model, trainable = trained(folder, method)
    fresh: Callable[[], ClipModel] = Clip(path=str(folder)).load
    return model, export.write(model, trainable, out, {"limner.base_model": "some/clip"}, fresh_base=fresh)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "method",
    [
        Lora(rank=2, towers=TowerAdapters(targets=("q_proj", "fc1"), projections=True, temperature=True)),
        Lora(rank=2, dora=True, alpha=5, towers=TowerAdapters()),
        Towers(image=1, text="none"),
        Heads(image="linear", text="linear", dim=24),
    ],
    ids=["lora", "dora", "last layers", "linear heads"],
)
def test_a_plain_clip_folder_is_the_trained_model_to_transformers(
    folder: Path, tmp_path: Path, method: MethodConfig, dtype: Any
) -> None:
    model, result = write(Transformers(dtype=dtype), folder, method, tmp_path / "out")
    network, info = CLIPModel.from_pretrained(result.path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not (result.path / "clip").exists()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    means, stds = (torch.tensor(value).view(1, 3, 1, 1) for value in (model.means, model.stds))
    inputs = model.tokenizer(["a dog", "a red circle"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = network(pixel_values=((pixels + 1) / 2 - means) / stds, **inputs)
        ours = model.embed_images(pixels), model.embed_prompts(["a dog", "a red circle"])
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    torch.testing.assert_close(theirs.image_embeds, ours[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(theirs.text_embeds, ours[1], rtol=tolerance, atol=tolerance)
    assert network.logit_scale.item() == pytest.approx(model.logit_scale.item(), rel=1e-3)
    assert result.max_error < (1e-5 if dtype == "float32" else 1e-4)
    assert not any("lora" in name for name in load_file(result.path / "model.safetensors"))


@pytest.mark.parametrize("towers", PEFT_READERS.values(), ids=PEFT_READERS)
def test_peft_loads_the_adapter_onto_transformers_own_model(
    folder: Path, tmp_path: Path, towers: TowerAdapters
) -> None:
    model, result = write(Peft(), folder, Lora(rank=2, alpha=3, towers=towers), tmp_path / "out")
    base = CLIPModel.from_pretrained(folder)
    loaded = PeftModel.from_pretrained(base, str(result.path))
    inputs = model.tokenizer(["a dog"], padding=True, return_tensors="pt")
    pixels = torch.zeros(1, 3, 32, 32)
    means, stds = (torch.tensor(value).view(1, 3, 1, 1) for value in (model.means, model.stds))
    with torch.no_grad():
        theirs = loaded(pixel_values=((pixels + 1) / 2 - means) / stds, **inputs)
        torch.testing.assert_close(theirs.text_embeds, model.embed_prompts(["a dog"]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(theirs.image_embeds, model.embed_images(pixels), rtol=1e-5, atol=1e-6)
    settings = json.loads((result.path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "some/clip"
    assert settings["lora_alpha"] == 3
    assert result.max_error < 1e-5 < result.effect


def test_peft_has_no_place_for_the_temperature(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no place for the temperature"):
        write(Peft(), folder, Lora(towers=TowerAdapters(temperature=True)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


HEADS = {
    "residual": Heads(),
    "mlp and linear": Heads(image="mlp", text="linear", dim=24, hidden=5),
    "one side": Heads(image="none", text="mlp"),
}


@pytest.mark.parametrize("method", HEADS.values(), ids=HEADS)
def test_a_folder_with_heads_is_read_whole_by_limner_and_not_at_all_by_others(
    folder: Path, tmp_path: Path, method: Heads
) -> None:
    model, result = write(Transformers(), folder, method, tmp_path / "out")
    read = Clip(path=str(result.path)).load()
    assert torch.equal(probe_dual_encoder(read), probe_dual_encoder(model))
    assert Clip(path=str(result.path)).token_counter().size_multiple == 32
    with pytest.raises((OSError, ValueError)):
        CLIPModel.from_pretrained(result.path)
    with pytest.raises((OSError, ValueError)):
        AutoModel.from_pretrained(result.path)
    base, towers = Clip(path=str(folder)).load(), Clip(path=str(result.path / "clip")).load()
    towers.logit_scale.data.copy_(base.logit_scale.data)
    assert torch.equal(probe_dual_encoder(towers), probe_dual_encoder(base))
    assert read.identity() != base.identity()


def test_a_model_with_heads_trains_on_and_keeps_them(folder: Path, tmp_path: Path) -> None:
    _, first = write(Transformers(), folder, HEADS["mlp and linear"], tmp_path / "first")
    before = Clip(path=str(first.path)).load()
    method = Towers(image="none", text=1)
    model, second = write(Transformers(dtype="float16"), first.path, method, tmp_path / "second")
    read = Clip(path=str(second.path)).load()
    assert difference(probe_dual_encoder(read), probe_dual_encoder(model)).relative < 1e-2
    assert difference(probe_dual_encoder(read), probe_dual_encoder(before)).relative > 1e-1


def other_dim(path: Path) -> None:
    """Makes the text side's embeddings shorter, tensors and description alike."""
    from safetensors.torch import save_file

    tensors = load_file(path / "heads.safetensors")
    for name in ("text_projection.out.weight", "text_projection.out.bias"):
        tensors[name] = tensors[name][:12].clone()
    save_file(tensors, path / "heads.safetensors")
    values = json.loads((path / "clip_heads.json").read_text())
    values["heads"]["text_projection"]["dim"] = 12
    (path / "clip_heads.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: (path / "heads.safetensors").unlink(), "has no heads.safetensors"),
        (lambda path: (path / "clip_heads.json").write_text('{"format": 2}'), "is not of format 1"),
        (
            lambda path: (path / "clip_heads.json").write_text(
                (path / "clip_heads.json").read_text().replace("residual", "mystery")
            ),
            "describes no head",
        ),
        (
            lambda path: (path / "clip_heads.json").write_text(
                (path / "clip_heads.json").read_text().replace('"hidden": null', '"hidden": 3')
            ),
            "does not fit clip_heads.json",
        ),
        (
            lambda path: (path / "clip_heads.json").write_text(
                '{"format": 1, "heads": {"visual_projection": null, "text_projection": {"head": "mlp", "dim": 16}}}'
            ),
            "does not fit clip_heads.json",
        ),
        (other_dim, "its embeddings have 12 and 16 numbers"),
    ],
)
def test_a_damaged_folder_of_heads_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], says: str
) -> None:
    _, result = write(Transformers(), folder, Heads(), tmp_path / "out")
    damage(result.path)
    with pytest.raises(UserError, match=says):
        Clip(path=str(result.path)).load()

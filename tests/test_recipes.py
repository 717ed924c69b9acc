"""Every recipe that is shipped trains, here for two steps on a small pipeline, with nothing else changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from limner.builtin.drawings import draw_folder
from limner.builtin.pictures import draw_pictures
from limner.config import learns_to_draw, load_config
from limner.core.rundir import RunDir, read_metrics
from limner.data import DatasetConfig
from limner.run import finetune
from tests.known_sets import draw_cifar10, draw_flickr8k
from tests.tiny import save_tiny, save_tiny_clip

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
BUILTIN_RECIPES = sorted((ROOT / "recipes" / "builtin").glob("*.yaml"))
FROM_SCRATCH = "clip_cifar10_small"
"""Starts from what `limner new-clip` writes, which knows nothing that it could forget."""
MODELS = {"sd1": (save_tiny, 64), "clip": (save_tiny_clip, 32)}
"""By kind of model: what writes a small one, and the side of the pictures that it reads."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per layout that the recipes name."""
    root = tmp_path_factory.mktemp("pictures")
    draw_folder(root / "captioned", count=4)
    draw_folder(root / "subject", count=4)
    for sidecar in (root / "subject").glob("*.txt"):
        sidecar.unlink()
    draw_flickr8k(root / "flickr8k")
    draw_pictures(root / "world", count=4, seed=0, captions=2, side=64)
    for number, name in enumerate(("portraits", "scenes")):
        draw_folder(root / "several" / name, count=2, seed=number)
        for sidecar in (root / "several" / name).glob("*.txt"):
            sidecar.write_text(f"{name}, red, blue, green\n")
    draw_folder(root / "masked", count=4)
    for number in range(4):
        Image.radial_gradient("L").point(lambda value: 255 - value).save(root / "masked" / f"{number:02d}.mask.png")
    return {
        "auto": root / "captioned",
        "dreambooth": root / "subject",
        "flickr8k": root / "flickr8k",
        "cifar10": draw_cifar10(root / "cifar10"),
        "table": root / "world",
        "several": root / "several",
        "folder": root / "masked",
    }


def place(dataset: DatasetConfig, data: Path) -> str:
    """Returns the override that names ``data`` as the place of a data set, or of the folders of several."""
    if dataset.kind != "several":
        return f"dataset.path={data}"
    values = dataset.model_dump(mode="json")["sources"]
    for source in values:
        source["dataset"]["path"] = str(data / source["name"])
    return f"dataset.sources={json.dumps(values)}"


@pytest.mark.parametrize("recipe", [*RECIPES, *BUILTIN_RECIPES], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_recipe_trains(recipe: Path, pictures: dict[str, Path], tmp_path: Path) -> None:
    config = load_config(recipe)
    if config.dataset.kind == "cifar10" and config.model.kind == "sd1":
        data = Path(os.environ.get("LIMNER_DATA", ROOT.parent / "shared" / "data")) / "cifar10" / "cifar-10-batches-py"
        if not data.is_dir():
            pytest.skip(f"needs CIFAR-10: {data} is absent (set LIMNER_DATA)")
    else:
        data = pictures[config.dataset.kind]
    save, side = MODELS[config.model.kind]
    model = save(tmp_path / "model")
    changes = [
        f"out={tmp_path / 'run'}",
        f"model.path={model}",
        place(config.dataset, data),
        f"cache.folder={tmp_path / 'cache'}",
        f"images={{resolution: {side}, bucket_step: 16, buckets: {str(config.images.buckets).lower()}}}",
        "train={steps: 2, batch_size: 2, device: cpu}",
        "schedule.warmup_steps=0",
        "samples.steps=2",
    ]
    if config.dataset.kind == "dreambooth" and config.dataset.class_pictures:
        classes = f"dataset.class_path={tmp_path / 'class'}"
        changes += [classes, "dataset.class_pictures=2", "dataset.class_drawing={steps: 2}"]
    metrics = config.model_dump(mode="json")["metrics"]
    for metric in metrics:
        metric["dataset"]["path"] = str(pictures[metric["dataset"]["kind"]])
    changes += [f"metrics={json.dumps(metrics)}"]
    if config.model.kind == "sd1" and config.model.text_encoder is not None:
        changes.append(f"model.text_encoder.path={save_tiny_clip(tmp_path / 'clip', seed=1)}")
    changed = load_config(recipe, changes)
    kept = {"method", "objective", "optimizer", "dataset", "captions"}
    assert all(getattr(changed, name) == getattr(config, name) for name in kept - {"dataset"})
    result = finetune(changed)
    assert result.step == 2
    assert result.change is not None
    assert result.change > 0
    assert len(read_metrics(RunDir(result.out).metrics)) == 2
    assert len(list((result.out / "samples").rglob("*.png"))) == 2 * len(config.samples.prompts)
    assert result.exports
    assert (result.report is not None) == (config.report.at_end != "never" and learns_to_draw(config))
    assert [one.after.metric for one in result.metrics] == [metric.title for metric in config.metrics]


@pytest.mark.slow
def test_the_recipe_for_small_gpus_trains_with_all_its_savings_at_once(
    pictures: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = ROOT / "recipes" / "sd1_dreambooth_small_gpu.yaml"
    train = load_config(recipe).train
    assert (train.precision, train.gradient_checkpointing) == ("fp16", True)
    assert (train.batch_size, train.micro_batch_size) == (2, 1)
    config = load_config(
        recipe,
        [
            f"out={tmp_path / 'run'}",
            f"model.path={save_tiny(tmp_path / 'model')}",
            f"dataset={{kind: dreambooth, path: {pictures['dreambooth']}, class_noun: dog, class_pictures: 2, "
            f"class_path: {tmp_path / 'class'}, class_drawing: {{steps: 2, batch_size: 1}}}}",
            f"cache.folder={tmp_path / 'cache'}",
            "images={resolution: 64, bucket_step: 16}",
            "train={steps: 4, batch_size: 2, micro_batch_size: 1, gradient_checkpointing: true, precision: fp16, "
            "device: cpu}",
            "samples.steps=2",
        ],
    )
    assert config.optimizer.kind == "adamw8bit"
    result = finetune(config)
    assert result.change is not None
    assert result.change > 0
    assert [line for line in read_metrics(RunDir(result.out).metrics) if "skipped" not in line]


def test_the_recipes_start_from_the_model_that_they_promise() -> None:
    assert len(RECIPES) >= 5
    paths = {"sd1": "CompVis/stable-diffusion-v1-4", "clip": "openai/clip-vit-base-patch32"}
    models = [load_config(recipe).model for recipe in RECIPES if recipe.stem != FROM_SCRATCH]
    assert all(model.path == paths[model.kind] for model in models)
    assert {model.kind for model in models} == paths.keys()


def test_the_clip_recipes_are_told_whether_they_got_better_and_whether_they_forgot() -> None:
    for recipe in RECIPES:
        config = load_config(recipe)
        if config.model.kind == "clip" and recipe.stem != FROM_SCRATCH:
            assert [metric.guard for metric in config.metrics] == [False, True]
            assert config.train.save_every == "epoch"
            assert config.train.epochs is not None
            assert config.train.keep_checkpoints >= config.train.epochs


def test_the_builtin_model_is_made_in_three_steps_from_its_own_world() -> None:
    configs = {recipe.stem: load_config(recipe) for recipe in BUILTIN_RECIPES}
    assert configs.keys() == {"autoencoder", "diffusion", "clip"}
    assert {config.dataset.path for config in configs.values()} == {Path("runs/builtin/pictures")}
    assert {Path(config.model.path).parent for config in configs.values()} == {Path("runs/builtin")}
    assert {config.out for config in configs.values()} == {Path("runs/builtin") / name for name in configs}

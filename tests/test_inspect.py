"""Every kind of file is called by its name, from its header alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from limner.core.errors import UserError
from limner.core.rundir import RunDir
from limner.evaluation.picture import Picture, PictureSettings, save_picture
from limner.export import default_exports
from limner.inspect import Inspection, inspect_path
from limner.methods.full import Full
from limner.methods.lora import Lora
from limner.models.sd1 import SD1
from tests.tiny import clip_text_config, clip_tokenizer, save_tiny, sd15

METADATA = {"format": "pt", "limner.trigger_word": "sks", "limner.base_model": "my-base", "limner.step": "30"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and what a LoRA and a full training export."""
    root = tmp_path_factory.mktemp("inspected")
    fresh = SD1(path=str(save_tiny(root / "base"))).load
    for name, method in (("lora", Lora(rank=4, alpha=8, text_encoder=True)), ("full", Full())):
        model = fresh()
        trainable = method.apply(model, seed=0)
        for export in default_exports("sd1", trainable.kind):
            export.write(model, trainable, root / f"{name}-{export.kind}", METADATA, fresh_base=fresh)
    return root


def weights(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path, metadata=metadata)
    return path


def text(found: Inspection) -> str:
    json.loads(json.dumps(found.as_dict(), allow_nan=False).encode("utf-8"))
    return "\n".join(found.lines())


# ------------------------------------------------------------------------------------------------------------ LoRA
def test_an_exported_lora_tells_what_it_is(folders: Path) -> None:
    found = inspect_path(folders / "lora-diffusers")
    assert found.kind == "a LoRA in the layout of diffusers"
    facts = found.facts
    assert (facts["rank"], facts["alpha"], facts["trigger word"], facts["base"], facts["step"]) == (
        4, 8.0, "sks", "my-base", "30",
    )  # fmt: skip
    assert facts["layers"] == {"text_encoder": 8, "unet": 32}
    assert facts["number formats"] == {"F32": facts["tensors"]}
    assert facts["text states"] == "32 wide"
    assert inspect_path(folders / "lora-diffusers" / "pytorch_lora_weights.safetensors").facts == facts
    assert "  rank: 4\n  alpha: 8.0" in text(found)


def test_a_peft_folder_is_a_lora_for_each_network(folders: Path) -> None:
    found = inspect_path(folders / "lora-peft")
    assert found.kind == "a LoRA in the layout of PEFT, a folder for each network"
    assert (found.facts["unet: rank"], found.facts["text_encoder: alpha"]) == (4, 8.0)
    assert found.facts["trigger word"] == "sks"
    one = inspect_path(folders / "lora-peft" / "text_encoder")
    assert (one.kind, one.facts["layers"]) == ("a LoRA in the layout of PEFT", {"text_encoder": 8})
    assert one.facts["base"] == "my-base"


def test_a_kohya_file_tells_the_alpha_of_each_layer(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_a_attn2_to_k.lora_down.weight": torch.zeros(4, 768),
        "lora_unet_a_attn2_to_k.lora_up.weight": torch.zeros(320, 4),
        "lora_unet_a_attn2_to_k.alpha": torch.tensor(2.0),
        "lora_te_b.lora_down.weight": torch.zeros(8, 768),
        "lora_te_b.lora_up.weight": torch.zeros(768, 8),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"ss_base_model_version": "sd_v1", "ss_steps": "900"})
    found = inspect_path(tmp_path / "x.safetensors")
    assert found.kind == "a LoRA in the layout of kohya"
    assert found.facts["rank"] == {"lora_unet_a_attn2_to_k": 4, "lora_te_b": 8}
    assert found.facts["alpha"] == {"lora_unet_a_attn2_to_k": 2.0, "lora_te_b": 8.0}
    assert (found.facts["base"], found.facts["step"]) == ("sd_v1", "900")
    assert found.facts["text states"] == "768 wide: Stable Diffusion 1.x"
    assert found.facts["parts"] == {"unet": 3, "text_encoder": 2}
    assert found.facts["parameters"] == 4 * 768 + 320 * 4 + 1 + 2 * 8 * 768


def test_an_adapter_that_cannot_be_used_is_named_and_not_guessed(tmp_path: Path) -> None:
    found = inspect_path(weights(tmp_path / "x.safetensors", {"lora_unet_a.boft_.lora_up": (4, 4)}))
    assert found.kind == "an adapter that Limner cannot use"
    assert "BOFT" in found.facts["why"]


# ---------------------------------------------------------------------------------------------------------- models
def test_a_full_model_folder_tells_parts_and_trigger_word(folders: Path) -> None:
    found = inspect_path(folders / "full-diffusers")
    assert found.kind == "a model in the layout of diffusers"
    assert found.facts["components"]["unet"] == "UNet2DConditionModel"
    assert found.facts["unet: parameters"] == sum(p.numel() for p in sd15().unet.parameters())
    assert (found.facts["trigger word"], found.facts["step"]) == ("sks", "30")
    assert found.facts["read back by"].startswith("diffusers")
    unet = inspect_path(folders / "base" / "unet")
    assert unet.kind == "one network, UNet2DConditionModel"
    assert inspect_path(folders / "base" / "text_encoder").kind == "one network, CLIPTextModel"


UNET = "model.diffusion_model.input_blocks.0.0.weight"
SINGLE_FILES = {
    "a Stable Diffusion 1.x model": {
        UNET: (320, 4, 3, 3),
        "cond_stage_model.transformer.text_model.a": (2,),
        "first_stage_model.a": (2,),
    },
    "a Stable Diffusion XL model": {
        UNET: (320, 4, 3, 3),
        "conditioner.embedders.0.transformer.a": (2,),
        "conditioner.embedders.1.model.a": (2,),
    },
    "a FLUX model": {"double_blocks.0.img_attn.qkv.weight": (4, 4)},
    "an autoencoder (VAE) alone": {"encoder.down.0.block.0.conv1.weight": (2, 2), "decoder.up.0.a": (2,)},
    "a textual-inversion embedding": {"emb_params": (3, 768)},
    "no model that Limner knows": {"a": (2, 2, 2), "b": (2,)},
}


@pytest.mark.parametrize(("kind", "shapes"), SINGLE_FILES.items(), ids=SINGLE_FILES.keys())
def test_a_single_file_is_recognised_by_its_keys(tmp_path: Path, kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
    found = inspect_path(weights(tmp_path / "x.safetensors", shapes))
    assert found.kind == kind
    assert found.facts["tensors"] == len(shapes)


@pytest.mark.parametrize(
    ("name", "layout", "word"), [("<cat>", "diffusers", "<cat>"), ("emb_params", "A1111", "my-cat")]
)
def test_an_embedding_tells_its_word_and_its_base(tmp_path: Path, name: str, layout: str, word: str) -> None:
    facts = inspect_path(weights(tmp_path / "My-Cat.safetensors", {name: (2, 768)})).facts
    assert (facts["layout"], facts["word"]) == (layout, word)
    assert facts["base"].startswith("Stable Diffusion 1.x")
    folder = tmp_path / "export"
    folder.mkdir()
    weights(folder / "learned_embeds.safetensors", {name: (2, 768)})
    assert inspect_path(folder).kind == "a textual-inversion embedding"


def test_an_embedding_tells_its_vectors(tmp_path: Path) -> None:
    found = inspect_path(weights(tmp_path / "x.safetensors", {"<cat>": (3, 768), "b": (768,)}))
    assert found.facts["vectors"] == {"<cat>": "3 of width 768", "b": "1 of width 768"}


def test_a_clip_folder_is_named(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=8
    )
    words = clip_text_config(clip_tokenizer())
    CLIPModel(CLIPConfig(text_config=words.to_dict(), vision_config=vision.to_dict())).save_pretrained(tmp_path)
    found = inspect_path(tmp_path)
    assert found.kind == "a CLIP model"
    assert found.facts["parameters"] > 1000


# ------------------------------------------------------------------------------------- runs, pictures, data, recipes
def test_a_run_and_its_checkpoint_are_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    checkpoint = run.checkpoint(20)
    checkpoint.mkdir(parents=True)
    (run.export / "diffusers").mkdir(parents=True)
    run.config.write_text("method:\n  kind: lora\n  rank: 4\ntrigger_word: sks\ntrain:\n  steps: 20\n")
    run.status.write_text(json.dumps({"state": "finished", "step": 20, "steps": 20}))
    run.metrics.write_text('{"step": 19, "loss": 0.5}\n{"step": 20, "loss": 0.25}\n')
    (checkpoint / "state.json").write_text(json.dumps({"format": 1, "step": 20, "files": {"weights.safetensors": ""}}))
    weights(checkpoint / "weights.safetensors", {"unet.a.lora_A.default.weight": (4, 8), "text_encoder.b": (2,)})
    found = inspect_path(run.path)
    assert found.kind == "a run of Limner's"
    facts = found.facts
    assert (facts["state"], facts["step"], facts["steps"], facts["method"], facts["trigger word"]) == (
        "finished", 20, 20, "lora", "sks",
    )  # fmt: skip
    assert (facts["mean of the last losses"], facts["checkpoints"], facts["exports"]) == (0.375, "20", "diffusers")
    of_checkpoint = inspect_path(checkpoint)
    assert of_checkpoint.kind == "a checkpoint of Limner's"
    assert (of_checkpoint.facts["step"], of_checkpoint.facts["parts"]) == (20, {"unet": 1, "text_encoder": 1})


def test_pictures_tell_their_recipe(tmp_path: Path) -> None:
    settings = PictureSettings("a dog", "cat", 7, 20, 7.5, "ddim", "DDIM", 16, 8, "my-model")
    save_picture(Picture(Image.new("RGB", (16, 8)), settings), tmp_path / "a.png")
    Image.new("RGB", (16, 8)).save(tmp_path / "b.png")
    Image.new("RGB", (16, 8)).save(tmp_path / "c.jpg")
    found = inspect_path(tmp_path / "a.png")
    assert found.kind == "a picture made by Limner"
    assert (found.facts["prompt"], found.facts["negative prompt"], found.facts["Seed"]) == ("a dog", "cat", "7")
    assert inspect_path(tmp_path / "b.png").kind == "a picture without a recipe"
    assert inspect_path(tmp_path / "c.jpg").facts == {"size": "16x8"}


def test_folders_of_pictures_and_data_sets_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (16, 8), "red").save(tmp_path / f"{name}.png")
    found = inspect_path(tmp_path)
    assert (found.kind, found.facts["pictures"]) == ("a folder of pictures", 2)
    assert "No data set yet" in found.notes[0]
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("a red picture")
    found = inspect_path(tmp_path)
    assert found.kind.startswith("a data set (")
    assert (found.facts["examples"], found.facts["captions"]) == (2, 2)


def test_recipes_good_and_bad_are_told(tmp_path: Path) -> None:
    recipe = tmp_path / "x.yaml"
    good = "out: runs/x\nmodel: {kind: sd1, path: x}\ndataset: {kind: folder, path: y}\nmethod: {kind: lora}\n"
    recipe.write_text(good + "train: {steps: 20}\n")
    found = inspect_path(recipe)
    assert (found.kind, found.facts["method"], found.facts["steps"]) == ("a recipe", "lora", 20)
    recipe.write_text(good + "train: {stepps: 20}\n")
    found = inspect_path(recipe)
    assert found.kind == "a recipe with mistakes"
    assert any("Did you mean 'steps'" in note for note in found.notes)
    recipe.write_text("a: 1\n")
    assert inspect_path(recipe).kind == "a YAML file that is no recipe of Limner's"


# --------------------------------------------------------------------------------------------------- strangers' files
@pytest.mark.parametrize(
    ("name", "data"), [("x.ckpt", b"PK\x03\x04"), ("x.bin", b"anything"), ("x.safetensors", b"\x80\x04N.aaaa")]
)
def test_a_pickle_is_named_and_not_opened(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    found = inspect_path(tmp_path / name)
    assert found.kind == "a pickled file; it was not opened"
    assert "can run any code" in found.notes[0]


def test_a_folder_with_pickles_says_so(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "x.bin").write_bytes(b"\x80\x04N.")
    assert inspect_path(tmp_path).notes == ("Not opened, since they are pickles: unet/x.bin.",)


def test_texts_that_steer_a_terminal_are_taken_out(tmp_path: Path) -> None:
    evil = {"title": "\x1b[2Jgone\x07", "long": "x" * 10_000}
    found = inspect_path(weights(tmp_path / "x.safetensors", {"a": (2, 2, 2)}, evil))
    shown = text(found)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert len(shown) < 2000
    assert found.facts["metadata"] == evil


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400]}}',
        b'{"__metadata__":{"a":5},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":1,"a":2}',
        b"[" * 50_000,
        b"\xff\xfe",
        b"{}" + b"x" * 10,
    ],
)
def test_a_hostile_header_ends_in_an_error_for_people(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(UserError):
        inspect_path(tmp_path / "x.safetensors")


def test_half_a_character_in_a_header_does_not_stop_the_report(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"title":"\\ud800"},"a":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    found = inspect_path(tmp_path / "x.safetensors")
    assert text(found).encode("utf-8")
    assert json.dumps(found.as_dict(), ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "model_index.json", "state.json", "status.json", "config.json"]
)
@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"5", b"[" * 50_000, b'{"a": NaN}'])
def test_a_damaged_config_ends_in_an_error_for_people(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError):
        inspect_path(tmp_path)


def test_unknown_files_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"hello")
    assert inspect_path(tmp_path / "x.dat").kind == "nothing that Limner knows"
    assert inspect_path(tmp_path).kind == "a folder that Limner knows nothing about"
    with pytest.raises(UserError, match="does not exist"):
        inspect_path(tmp_path / "none")


def test_many_layers_of_different_ranks_are_counted_and_not_listed(tmp_path: Path) -> None:
    tensors = {}
    for number in range(20):
        rank = 4 if number < 15 else 8
        tensors[f"lora_unet_a_{number}.lora_down.weight"] = torch.zeros(rank, 6)
        tensors[f"lora_unet_a_{number}.lora_up.weight"] = torch.zeros(6, rank)
    save_file(tensors, tmp_path / "x.safetensors")
    assert "  rank: 4 (15 times), 8 (5 times)\n" in text(inspect_path(tmp_path / "x.safetensors"))

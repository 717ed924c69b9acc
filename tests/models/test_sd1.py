"""Loading Stable Diffusion in every layout that it comes in, and what a loaded model says of itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from limner.core.errors import UserError
from limner.models import SD1
from limner.models.sd1 import SD1Model
from tests.single_file import save_single_file
from tests.tiny import WORDS, save_tiny, sd15


def state_of(networks: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": value for part, net in networks.items() for name, value in net.state_dict().items()}


def assert_same_weights(model: SD1Model, other: SD1Model) -> None:
    left, right = state_of(model.networks), state_of(other.networks)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --------------------------------------------------------------------------------------------------------- layouts
def test_a_folder_gives_the_weights_that_were_saved(tiny_model: SD1Model) -> None:
    pipeline = sd15()
    saved = state_of({"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder})
    loaded = state_of(tiny_model.networks)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_a_loaded_model_is_float32_and_does_not_train(tiny_model: SD1Model) -> None:
    for network in tiny_model.networks.values():
        assert not network.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in network.parameters())


def test_a_text_encoder_named_with_text_model_is_the_same(copy_tiny: Callable[[], Path], tiny_model: SD1Model) -> None:
    folder = copy_tiny()
    file = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{name}": value for name, value in load_file(file).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, file)
    assert_same_weights(SD1(path=str(folder)).load(), tiny_model)


def test_a_tokenizer_in_the_classic_files_reads_the_same(copy_tiny: Callable[[], Path], tiny_model: SD1Model) -> None:
    folder = copy_tiny() / "tokenizer"
    inner = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(inner["vocab"]))
    merges = [" ".join(pair) for pair in inner["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer.json").unlink()
    model = SD1(path=str(folder.parent)).load()
    prompts = ["a red circle", "A zebra, 12 years old: naïve?", "x" * 300]
    expected = tiny_model.encode_prompts(prompts)["encoder_hidden_states"]
    assert torch.equal(model.encode_prompts(prompts)["encoder_hidden_states"], expected)


def test_an_old_autoencoder_with_other_attention_names_is_the_same(
    copy_tiny: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_tiny()
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, value in load_file(file).items():
        old = name
        for new, before in old_names.items():
            old = old.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        state[old] = value
    assert any("query" in name for name in state)
    save_file(state, file)
    assert_same_weights(SD1(path=str(folder)).load(), tiny_model)


def test_sharded_weights_are_the_same(copy_tiny: Callable[[], Path], tiny_model: SD1Model) -> None:
    folder = copy_tiny()
    for part in ("unet", "text_encoder"):
        shard(folder / part)
    assert_same_weights(SD1(path=str(folder)).load(), tiny_model)


def shard(component: Path) -> Path:
    """Splits a component's weights in two, as the libraries do, and returns the index."""
    (file,) = component.glob("*.safetensors")
    state = load_file(file)
    names, weight_map = sorted(state), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard_name = f"{file.stem}-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, component / shard_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, shard_name))
    file.unlink()
    index = component / f"{file.name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_half_precision_files_are_used_and_told_where_there_are_no_others(
    copy_tiny: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_tiny()
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = {name: value.half() for name, value in load_file(file).items()}
    save_file(half, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert SD1(path=str(folder)).load().notices == ()
    file.unlink()
    model = SD1(path=str(folder)).load()
    (notice,) = model.notices
    assert "unet in half precision" in notice
    assert all(p.dtype == torch.float32 for p in model.unet.parameters())
    assert all(torch.equal(value, half[name].float()) for name, value in model.unet.state_dict().items())


@pytest.mark.parametrize("text_model", [True, False])
def test_a_single_file_gives_the_same_model(
    tiny_folder: Path, tiny_model: SD1Model, tmp_path: Path, text_model: bool
) -> None:
    file = save_single_file(sd15(), tmp_path / "model.safetensors", text_model=text_model)
    model = SD1(path=str(file), config_path=str(tiny_folder)).load()
    assert_same_weights(model, tiny_model)
    assert model.denoiser_hash() == tiny_model.denoiser_hash()
    assert model.folder == tiny_folder


def test_a_file_of_the_real_depth_becomes_the_same_model_as_the_folder(tmp_path: Path) -> None:
    pipeline = sd15()
    pipeline.register_modules(
        unet=UNet2DConditionModel(cross_attention_dim=32, block_out_channels=(32, 64, 96, 96), attention_head_dim=8),
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 96, 96),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        ),
    )
    pipeline.save_pretrained(tmp_path / "folder", safe_serialization=True)
    file = save_single_file(pipeline, tmp_path / "model.safetensors")
    from_folder = SD1(path=str(tmp_path / "folder")).load()
    from_file = SD1(path=str(file), config_path=str(tmp_path / "folder")).load()
    assert len(from_file.unet.state_dict()) == 686, "as in Stable Diffusion 1.5"
    assert len(from_file.vae.state_dict()) == 248, "as in Stable Diffusion 1.5"
    assert_same_weights(from_file, from_folder)
    assert from_file.size_multiple == 64


def test_a_single_file_that_lacks_a_tensor_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    file = save_single_file(sd15(), tmp_path / "model.safetensors")
    state = load_file(file)
    for lost in ("model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_out.bias"):
        save_file({name: value for name, value in state.items() if name != lost}, file)
        with pytest.raises(UserError, match="lacks"):
            SD1(path=str(file), config_path=str(tiny_folder)).load()
    state["model.diffusion_model.more.weight"] = torch.ones(1)
    save_file(state, file)
    with pytest.raises(UserError, match="tensors for unet"):
        SD1(path=str(file), config_path=str(tiny_folder)).load()


def test_a_single_file_needs_settings(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = save_single_file(sd15(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"Set model\.config_path"):
        SD1(path=str(file)).load()
    with pytest.raises(UserError, match="no folder"):
        SD1(path=str(file), config_path=str(tmp_path / "nowhere")).load()


def test_stable_diffusion_2_folders_load_and_predict_v(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "sd2", sd2=True, prediction_type="v_prediction")
    model = SD1(path=str(folder)).load()
    assert model.source.family == "sd2"
    assert model.process.prediction_type == "v_prediction"
    prediction = model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), model.encode_prompts(["a dog"]))
    assert prediction.shape == (1, 4, 8, 8)


# ------------------------------------------------------------------------------------------------ gaps and refusals
def test_weights_with_a_gap_are_refused(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        whole = load_file(file)
        lost = sorted(whole)[0]
        save_file({name: value for name, value in whole.items() if name != lost}, file)
        with pytest.raises(UserError, match="lacks in the right shape 1 tensors") as caught:
            SD1(path=str(folder)).load()
        assert lost in caught.value.what
        save_file({**whole, "surplus.weight": torch.ones(1)}, file)
        with pytest.raises(UserError, match=r"beside what its settings ask for, 1 tensors, such as 'surplus.weight'"):
            SD1(path=str(folder)).load()
        save_file({**whole, lost: torch.ones(3, 7)}, file)
        with pytest.raises(UserError, match=r"right shape|does not fit its settings"):
            SD1(path=str(folder)).load()
        save_file(whole, file)


def test_a_tokenizer_with_more_words_than_the_text_encoder_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    other = save_tiny(tmp_path / "other", words=(*WORDS, "hippopotamus"))
    shutil.rmtree(other / "text_encoder")
    shutil.copytree(tiny_folder / "text_encoder", other / "text_encoder")
    with pytest.raises(UserError, match=r"words, and the text encoder knows"):
        SD1(path=str(other)).load()


def test_options_that_would_do_nothing_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="has no meaning") as caught:
        SD1(path=str(tiny_folder), revision="main").load()
    assert caught.value.where == "model.revision"
    for call in (
        SD1(path=str(tiny_folder), config_path="x").load,
        SD1(path=str(tiny_folder), config_path="x").token_counter,
    ):
        with pytest.raises(UserError, match="has no meaning") as caught:
            call()
        assert caught.value.where == "model.config_path"


def test_a_prediction_type_that_contradicts_the_scheduler_is_used_and_told(tiny_folder: Path) -> None:
    same = SD1(path=str(tiny_folder), prediction_type="epsilon").load()
    assert same.notices == ()
    model = SD1(path=str(tiny_folder), prediction_type="v_prediction").load()
    (notice,) = model.notices
    assert "predicts epsilon; used as v_prediction" in notice
    assert model.process.prediction_type == "v_prediction"
    assert model.pipeline().scheduler.config.prediction_type == "v_prediction"
    assert model.pipeline("euler").scheduler.config.prediction_type == "v_prediction"


# ---------------------------------------------------------------------------------------------- what a model says
def test_sizes_come_from_the_networks(tiny_folder: Path, tiny_model: SD1Model) -> None:
    assert (tiny_model.size_multiple, tiny_model.default_size, tiny_model.token_limit) == (4, 64, 77)
    counter = SD1(path=str(tiny_folder)).token_counter()
    assert (counter.size_multiple, counter.limit) == (4, 77)


def test_old_folders_with_the_wrong_sample_size_get_the_right_one(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_diffusers_version": "0.6.0"}))
    model = SD1(path=str(folder)).load()
    assert model.default_size == 64 * 2
    with pytest.warns(FutureWarning, match="sample_size"):
        assert model.pipeline().unet.config.sample_size == 64, "diffusers mends it the same way"


def test_tokens_are_counted_before_any_cut_without_reading_weights(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    counter = SD1(path=str(folder)).token_counter()
    assert counter.count(["", "a", "a red circle", "a " * 100]) == [2, 3, 5, 102]
    assert counter.count([]) == []


def test_model_and_counter_count_the_same(tiny_folder: Path, tiny_model: SD1Model) -> None:
    prompts = ["a naïve café", "a " * 200, "<|endoftext|>"]
    assert tiny_model.count_tokens(prompts) == SD1(path=str(tiny_folder)).token_counter().count(prompts)


def test_a_placeholder_of_several_vectors_counts_as_several_tokens(copy_tiny: Callable[[], Path]) -> None:
    model = SD1(path=str(copy_tiny())).load()
    before = model.count_tokens(["a dog"])
    model.tokenizer.add_tokens(["<toy>", "<toy>_1", "<toy>_2"])
    assert model.count_tokens(["a dog", "a <toy> dog"]) == [before[0], before[0] + 3]
    assert model.count_tokens(["a <toy> <toy>_1 <toy>_2 dog"]) == [before[0] + 3]


def test_a_hash_depends_on_weights_and_settings_and_nothing_else(
    copy_tiny: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_tiny()
    same = SD1(path=str(folder)).load()
    same.encode_prompts(["this sets truncation and padding in the tokenizer"])
    same.pipeline("euler")
    assert same.denoiser_hash() == tiny_model.denoiser_hash()
    assert same.text_encoder_hash() == tiny_model.text_encoder_hash()
    assert same.image_encoder_hash() == tiny_model.image_encoder_hash()
    assert len({same.denoiser_hash(), same.text_encoder_hash(), same.image_encoder_hash()}) == 3

    other = SD1(path=str(folder)).load()
    with torch.no_grad():
        for network in other.networks.values():
            next(network.parameters()).view(-1)[0] += 1e-6
    assert other.denoiser_hash() != same.denoiser_hash()
    assert other.text_encoder_hash() != same.text_encoder_hash()
    assert other.image_encoder_hash() != same.image_encoder_hash()


def test_the_text_hash_depends_on_the_vocabulary_and_the_image_hash_on_the_scale(
    copy_tiny: Callable[[], Path], tiny_model: SD1Model
) -> None:
    folder = copy_tiny()
    file = folder / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"].pop()
    file.write_text(json.dumps(tokenizer))
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.2}))
    model = SD1(path=str(folder)).load()
    assert model.text_encoder_hash() != tiny_model.text_encoder_hash()
    assert model.image_encoder_hash() != tiny_model.image_encoder_hash()
    assert model.denoiser_hash() == tiny_model.denoiser_hash()


def test_a_hash_survives_half_precision_weights_and_stays_that_of_the_base(copy_tiny: Callable[[], Path]) -> None:
    model = SD1(path=str(copy_tiny())).load()
    base = model.denoiser_hash()
    model.to(torch.device("cpu"), torch.bfloat16)
    assert model.denoiser_hash() == base
    assert model.text_encoder_hash()  # of bfloat16 tensors, which numpy has no type for
    late = SD1(path=str(model.folder)).load()
    late.unet.requires_grad_(True)
    with pytest.raises(RuntimeError, match="before it is trained"):
        late.denoiser_hash()


def test_to_keeps_the_autoencoder_in_float32(copy_tiny: Callable[[], Path]) -> None:
    model = SD1(path=str(copy_tiny())).load()
    model.to(torch.device("cpu"), torch.bfloat16)
    dtypes = {part: {p.dtype for p in network.parameters()} for part, network in model.networks.items()}
    assert dtypes == {"unet": {torch.bfloat16}, "text_encoder": {torch.bfloat16}, "vae": {torch.float32}}
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moments = model.encode_images(pixels)
        decoded = model.decode_latents(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16))
    assert moments.dtype == decoded.dtype == torch.float32
    assert torch.equal(moments, model.encode_images(pixels)), "autocast must not reach the autoencoder"
    latents = model.sample_latents(moments, torch.zeros(1, 4, 8, 8))
    prediction = model.predict(latents, torch.tensor([7]), model.encode_prompts(["a dog"]))
    assert prediction.dtype == torch.float32
    drawn = model.pipeline("ddim")("a dog", num_inference_steps=2, height=16, width=16, output_type="latent").images
    assert bool(model.decode_latents(drawn).isfinite().all())


def test_train_mode_and_checkpointing_reach_the_networks(copy_tiny: Callable[[], Path]) -> None:
    model = SD1(path=str(copy_tiny())).load()
    model.train_mode(["unet"])
    assert {part: network.training for part, network in model.networks.items()} == {
        "unet": True,
        "vae": False,
        "text_encoder": False,
    }
    model.checkpoint_gradients()
    assert model.unet.is_gradient_checkpointing
    assert not model.encode_prompts(["a dog"])["encoder_hidden_states"].requires_grad
    model.text_encoder.requires_grad_(True)
    model.checkpoint_gradients()
    assert model.text_encoder.is_activation_checkpointing


def test_checkpointed_gradients_are_the_same(copy_tiny: Callable[[], Path]) -> None:
    def gradient(checkpointed: bool) -> torch.Tensor:
        model = SD1(path=str(folder)).load()
        model.text_encoder.requires_grad_(True)
        model.train_mode(["text_encoder"])
        if checkpointed:
            model.checkpoint_gradients()
        x_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        model.predict(x_t, torch.tensor([500]), model.encode_prompts(["a dog"])).square().sum().backward()
        grad = model.text_encoder.get_input_embeddings().weight.grad
        assert grad is not None
        return grad

    folder = copy_tiny()
    plain = gradient(False)
    assert plain.abs().max() > 0
    assert torch.allclose(plain, gradient(True), rtol=1e-4, atol=1e-7)

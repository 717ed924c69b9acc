"""Hostile and damaged files: each is refused with a sentence, and none of them runs code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from limner.core.errors import UserError
from limner.models import SD1
from limner.models.safety import MAX_JSON_BYTES, TensorInfo, check_tree, parse_json, read_json, read_safetensors_header


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a hostile file makes; no test may find it afterwards."""
    return tmp_path / "code-was-run"


def load_all_ways(path: Path) -> None:
    """Asks for everything that reads a model's files; the first refusal is raised."""
    SD1(path=str(path)).token_counter()
    SD1(path=str(path)).load()


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# ---------------------------------------------------------------------------------------------------------- pickles
def test_the_payload_would_work(marker: Path) -> None:
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_under_another_name_is_refused_and_not_run(tmp_path: Path, marker: Path, protocol: int) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    with pytest.raises(UserError, match="is a pickle with another name"):
        SD1(path=str(file), config_path=str(tmp_path)).load()
    torch.save(Payload(marker), file)
    with pytest.raises(UserError, match="is a pickle with another name"):
        read_safetensors_header(file)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth", ".pkl", ".CKPT"])
def test_a_pickled_checkpoint_is_refused_by_its_name(
    tmp_path: Path, tiny_folder: Path, marker: Path, suffix: str
) -> None:
    file = tmp_path / f"model{suffix}"
    torch.save(Payload(marker), file)
    with pytest.raises(UserError, match="reading one can run any code") as caught:
        SD1(path=str(file), config_path=str(tiny_folder)).load()
    assert "Convert it to safetensors" in caught.value.fix
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"],
)
def test_a_folder_with_only_pickled_weights_is_refused(copy_tiny: Callable[[], Path], marker: Path, name: str) -> None:
    folder = copy_tiny()
    file = folder / name
    (safe,) = file.parent.glob("*.safetensors")
    torch.save(Payload(marker), file)
    SD1(path=str(folder)).load()  # beside safetensors it is never read
    safe.unlink()
    with pytest.raises(UserError, match=f"only the pickle {file.name}"):
        SD1(path=str(folder)).load()
    assert not marker.exists()


# ----------------------------------------------------------------------------------------------------- Python code
@pytest.mark.parametrize("place", ["pipeline.py", "unet/evil.py", "tokenizer/deep/er/tokenization.py"])
def test_code_inside_a_model_folder_is_refused(copy_tiny: Callable[[], Path], marker: Path, place: str) -> None:
    folder = copy_tiny()
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    edit(folder / "model_index.json", unet=["evil", "Evil"], _class_name=["pipeline", "Evil"])
    with pytest.raises(UserError, match="is code inside a model folder"):
        load_all_ways(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("part", "pair"),
    [
        ("unet", ["evil", "UNet2DConditionModel"]),
        ("unet", ["diffusers", "UNet2DModel"]),
        ("vae", ["builtins", "eval"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        ("safety_checker", ["evil", "StableDiffusionSafetyChecker"]),
        ("feature_extractor", ["os", "system"]),
        ("text_encoder_2", ["transformers", "CLIPTextModel"]),
        ("surprise", ["os", "system"]),
        ("unet", ["diffusers", "UNet2DConditionModel", "more"]),
        ("unet", {"diffusers": "UNet2DConditionModel"}),
        ("unet", [None, None]),
    ],
)
def test_a_class_that_is_not_on_the_list_is_refused(copy_tiny: Callable[[], Path], part: str, pair: Any) -> None:
    folder = copy_tiny()
    edit(folder / "model_index.json", **{part: pair})
    with pytest.raises(UserError, match="which Limner does not load"):
        load_all_ways(folder)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}),
        ("vae/config.json", {"_class_name": "AsymmetricAutoencoderKL"}),
        ("text_encoder/config.json", {"model_type": "llama"}),
        ("text_encoder/config.json", {"architectures": ["EvilModel"]}),
        ("scheduler/scheduler_config.json", {"_class_name": "EvilScheduler"}),
    ],
)
def test_a_network_that_names_another_class_itself_is_refused(
    copy_tiny: Callable[[], Path], file: str, changes: dict[str, Any]
) -> None:
    folder = copy_tiny()
    edit(folder / file, **changes)
    with pytest.raises(UserError):
        load_all_ways(folder)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize(
    "key",
    [
        "auto_map", "trust_remote_code", "custom_pipeline", "_attn_implementation", "_attn_implementation_internal",
        "_experts_implementation", "attn_implementation", "quantization_config", "_custom_anything",
    ],
)  # fmt: skip
def test_keys_that_fetch_or_run_code_are_refused(copy_tiny: Callable[[], Path], file: str, key: str) -> None:
    folder = copy_tiny()
    edit(folder / file, **{key: "evil/repository"})
    with pytest.raises(UserError, match="fetch or run code") as caught:
        SD1(path=str(folder)).token_counter()
    assert key in caught.value.what


def test_such_keys_are_found_however_deep(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    edit(folder / "text_encoder" / "config.json", text_config={"list": [{"auto_map": {"AutoModel": "x.Y"}}]})
    with pytest.raises(UserError, match="'auto_map'"):
        load_all_ways(folder)


def test_an_adapter_hidden_in_a_component_is_refused(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/repository"}')
    with pytest.raises(UserError, match="is a PEFT adapter inside a model"):
        load_all_ways(folder)


def test_words_that_look_like_such_keys_are_fine_in_a_vocabulary(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny() / "tokenizer"
    inner = json.loads((folder / "tokenizer.json").read_text())["model"]
    assert "_" in inner["vocab"]
    (folder / "vocab.json").write_text(json.dumps(inner["vocab"]))
    SD1(path=str(folder.parent)).token_counter()


# ----------------------------------------------------------------------------------------------- paths out of a folder
def test_links_that_lead_out_of_the_folder_are_refused(copy_tiny: Callable[[], Path], tmp_path: Path) -> None:
    folder = copy_tiny()
    for name in ("unet/config.json", "tokenizer/merges.txt", "vae"):
        target = tmp_path / "elsewhere" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        link = folder / name
        if link.exists():
            shutil.move(link, target)
        link.symlink_to(target)
        with pytest.raises(UserError, match="link that leads out"):
            load_all_ways(folder)
        link.unlink()


def test_the_links_of_the_hubs_cache_are_followed(tiny_folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--someone--tiny" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in tiny_folder.rglob("*") if path.is_file()):
        shutil.copy(file, blobs / str(number))
        link = snapshot / file.relative_to(tiny_folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(os.path.relpath(blobs / str(number), link.parent)))
    check_tree(snapshot)
    assert SD1(path=str(snapshot)).load().folder == snapshot
    (snapshot / "extra.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="link that leads out"):
        check_tree(snapshot)


@pytest.mark.parametrize("name", ["../stolen.safetensors", "/etc/passwd", "deep/er.safetensors", "..", "", "a\\b", 7])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_weight_map_that_leads_out_of_its_folder_is_refused(
    copy_tiny: Callable[[], Path], part: str, name: Any
) -> None:
    folder = copy_tiny()
    (file,) = (folder / part).glob("*.safetensors")
    shutil.copy(file, folder / "stolen.safetensors")
    index = folder / part / f"{file.name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": name}}))
    with pytest.raises(UserError, match=r"outside its own folder|no weight_map"):
        SD1(path=str(folder)).load()


def test_a_weight_map_must_agree_with_its_files(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    (file,) = (folder / "unet").glob("*.safetensors")
    index = folder / "unet" / f"{file.name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": file.name}}))
    with pytest.raises(UserError, match="disagree about"):
        SD1(path=str(folder)).load()


# ------------------------------------------------------------------------------------------------------------- JSON
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": NaN}', "nan"),
        ('{"a": -Infinity}', "not a finite number"),
        ('{"a": 1e999}', "not a finite number"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 10_000 + "}", "not valid JSON"),
        ('{"a": 1', "not valid JSON"),
        ('"\\ud800', "not valid JSON"),
    ],
)
def test_json_with_surprises_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"(?i){reason}"):
        parse_json(text.encode(), where="file")
    with pytest.raises(UserError, match="not valid JSON"):
        parse_json(b"\xff\xfe{}", where="file")


def test_a_config_is_read_to_a_limit_and_must_hold_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(UserError, match="is missing"):
        read_json(file)
    file.write_text("[1]")
    with pytest.raises(UserError, match="holds a list"):
        read_json(file)
    file.write_text(json.dumps({"a": "x" * MAX_JSON_BYTES}))
    with pytest.raises(UserError, match="more than"):
        read_json(file)


# ---------------------------------------------------------------------------------------------- safetensors headers
def container(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def test_a_header_says_what_the_library_says(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    tensors = {
        "a.weight": torch.zeros(2, 3), "half": torch.zeros(4, dtype=torch.float16), "scalar": torch.tensor(1.0),
        "brain": torch.zeros(1, 2, dtype=torch.bfloat16), "counts": torch.zeros(3, dtype=torch.int64),
        "empty": torch.zeros(0, 5),
    }  # fmt: skip
    save_file(tensors, file, metadata={"format": "pt", "title": "naïve"})
    metadata, infos = read_safetensors_header(file)
    assert metadata == {"format": "pt", "title": "naïve"}
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(infos)
        for name, info in infos.items():
            assert info == TensorInfo(opened.get_slice(name).get_dtype(), tuple(opened.get_slice(name).get_shape()))


FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a safetensors file"),
        (b"\x00" * 4, "not a safetensors file"),
        (b"\xff" * 200, "not a safetensors file"),
        (b"GGUF" + b"\x00" * 100, "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (container({"a": FLOAT}, b"\x00" * 8)[:20], "ends inside its header"),
        (container({"a": FLOAT}, b"\x00" * 7), "need 8 bytes and 7 are there"),
        (container({"a": FLOAT}, b"\x00" * 9), "need 8 bytes and 9 are there"),
        (container({"a": FLOAT, "b": FLOAT}, b"\x00" * 8), "do not follow one another"),
        (container({"a": {**FLOAT, "data_offsets": [8, 16]}}, b"\x00" * 16), "do not follow one another"),
        (container({"a": {**FLOAT, "shape": [3]}}, b"\x00" * 8), "does not fit its offsets"),
        (container({"a": {**FLOAT, "shape": [-2]}}, b"\x00" * 8), "are not counts"),
        (container({"a": {**FLOAT, "shape": [True, 2]}}, b"\x00" * 8), "are not counts"),
        (container({"a": {**FLOAT, "data_offsets": [0]}}, b"\x00" * 8), "are not counts"),
        (container({"a": {**FLOAT, "dtype": "PY"}}, b"\x00" * 8), "unknown type"),
        (container({"a": {**FLOAT, "dtype": ["F32"]}}, b"\x00" * 8), "unknown type"),
        (container({"a": [1]}, b"\x00" * 8), "is not dtype, shape"),
        (container({"__metadata__": {"a": 1}}), "metadata is not text"),
        (container([1]), "holds no tensors"),
        (container(b'{"a": 1, "a": 2}'), "stands twice"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_safetensors_header(file)


def test_a_header_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with file.open("wb") as opened:
        opened.write((200_000_000).to_bytes(8, "little") + b"{")
        opened.truncate(300_000_000)  # sparse: no such bytes are on the disk
    with pytest.raises(UserError, match="not a safetensors file"):
        read_safetensors_header(file)


def test_another_suffix_is_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.safetensors file"):
        read_safetensors_header(tmp_path / "absent.gguf")
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors_header(tmp_path / "absent.safetensors")


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.builds(container, st.recursive(
            st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["F32", "dtype", "shape"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=4),
            max_leaves=12), st.binary(max_size=20)),
    )
)  # fmt: skip
def test_any_bytes_give_a_header_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    file.write_bytes(content)
    try:
        read_safetensors_header(file)
    except UserError:
        return
    with safe_open(file, framework="pt"):  # what we accept the library accepts too
        pass


# -------------------------------------------------------------------------------------- other models, damaged models
@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "Stable Diffusion XL"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "an inpainting model"),
        ("model_index.json", {"_class_name": "StableDiffusionUpscalePipeline"}, "an upscaler"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "FLUX"),
        ("model_index.json", {"_class_name": "NewPipeline"}, "a NewPipeline"),
        ("model_index.json", {"_class_name": ["pipeline", "Evil"]}, "Evil"),
        ("unet/config.json", {"in_channels": 9}, "an inpainting model"),
        ("unet/config.json", {"in_channels": 8}, "InstructPix2Pix"),
        ("unet/config.json", {"in_channels": 5}, "a depth-conditioned model"),
        ("unet/config.json", {"in_channels": 6}, "a model of another kind"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "as Stable Diffusion XL does"),
        ("unet/config.json", {"num_class_embeds": 1000}, "a noise level beside the prompt"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "distilled LCM"),
        ("unet/config.json", {"cross_attention_dim": 64}, "reads text states of width 64"),
        ("unet/config.json", {"block_out_channels": None}, "no block_out_channels"),
    ],
)
def test_a_model_of_another_kind_is_named(
    copy_tiny: Callable[[], Path], file: str, changes: dict[str, Any], reason: str
) -> None:
    folder = copy_tiny()
    edit(folder / file, **changes)
    with pytest.raises(UserError, match=reason):
        load_all_ways(folder)


def test_a_folder_without_a_part_is_refused(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({key: index[key] for key in index if key != "vae"}))
    with pytest.raises(UserError, match="names no vae"):
        load_all_ways(folder)


def test_a_folder_without_a_vocabulary_is_refused(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no vocabulary"):
        load_all_ways(folder)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match="has no vocabulary"):
        load_all_ways(folder)


def test_settings_of_another_shape_than_the_weights_are_refused(copy_tiny: Callable[[], Path]) -> None:
    folder = copy_tiny()
    edit(folder / "unet" / "config.json", block_out_channels=[64, 64])
    with pytest.raises(UserError, match="does not fit its settings"):
        SD1(path=str(folder)).load()
    edit(folder / "unet" / "config.json", block_out_channels=[32, 64], norm_num_groups="x")
    with pytest.raises(UserError, match="does not fit its settings"):
        SD1(path=str(folder)).load()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pytorch_lora_weights.safetensors", "holds a LoRA"),
        ("adapter_config.json", "holds a LoRA"),
        ("config.json", "one network"),
        ("model.safetensors", "has no model_index.json"),
        ("photo.jpg", "so it is no model"),
    ],
)
def test_a_folder_that_is_no_model_is_told_apart(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=reason):
        SD1(path=str(tmp_path)).load()


def test_a_safety_checker_is_remembered_and_never_loaded(copy_tiny: Callable[[], Path], marker: Path) -> None:
    folder = copy_tiny()
    edit(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    (folder / "safety_checker").mkdir()
    torch.save(Payload(marker), folder / "safety_checker" / "pytorch_model.bin")
    model = SD1(path=str(folder)).load()
    assert model.left_out == ("safety_checker", "feature_extractor")
    assert model.pipeline().safety_checker is None
    assert not marker.exists()

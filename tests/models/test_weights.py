"""Finding a model by its name, also on a Hub of our own, and recognising what a single file holds."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.core.errors import UserError
from limner.models import SD1
from limner.models.safety import TensorInfo, read_safetensors_header
from limner.models.sd1_networks import check_file
from limner.models.weights import content_hash, describe, recognise
from tests.single_file import single_file_state
from tests.tiny import sd15

COMMIT = "c0ffee" + "0" * 34


# -------------------------------------------------------------------------------------------------- a Hub of our own
@dataclass
class Hub:
    """A web server that answers as the Hub does, for one model; ``asked`` are the files that were downloaded."""

    folder: Path
    gated: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Returns status, headers and body for a path."""
        parts = urllib.parse.urlparse(path).path.strip("/").split("/")
        if parts[:4] == ["api", "models", "someone", "tiny"]:
            return self._about(parts[4:])
        if parts[:2] == ["someone", "tiny"] and parts[2] == "resolve":
            file = self.folder / "/".join(parts[4:])
            if not file.is_file():
                return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
            return (
                200,
                {"ETag": f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"', "X-Repo-Commit": COMMIT},
                file.read_bytes(),
            )
        return 404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}'

    def _about(self, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b'{"error": "Access to this model is restricted"}'
        if rest and rest[0] == "tree":
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            tree = [
                {"type": "file", "path": file.relative_to(self.folder).as_posix(), "size": file.stat().st_size,
                 "oid": hashlib.sha1(file.read_bytes()).hexdigest()}
                for file in files
            ]  # fmt: skip
            return 200, {}, json.dumps(tree).encode()
        if rest and rest[0] == "revision" and rest[1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b'{"error": "Invalid rev id"}'
        return 200, {}, json.dumps({"id": "someone/tiny", "sha": COMMIT, "siblings": []}).encode()


@pytest.fixture
def hub(copy_tiny: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that has the tiny model, also as a pickle, and an empty cache."""
    hub = Hub(copy_tiny())
    for pickle in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"):
        (hub.folder / pickle).write_bytes(b"no one should ask for this")
    (hub.folder / "pipeline.py").write_text("raise SystemExit")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(body=True)

        def do_HEAD(self) -> None:
            self._send(body=False)

        def _send(self, *, body: bool) -> None:
            status, headers, content = hub.answer(self.path)
            if "/resolve/" in self.path and body:
                hub.asked.append(self.path.split(f"/resolve/{COMMIT}/")[-1])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the requests off the terminal."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_model_is_downloaded_checked_and_named_by_its_commit(hub: Hub, tiny_folder: Path) -> None:
    model = SD1(path="someone/tiny").load()
    assert model.source.name == "someone/tiny"
    assert model.source.revision == COMMIT
    assert model.denoiser_hash() == SD1(path=str(tiny_folder)).load().denoiser_hash()
    assert sorted(hub.asked) == sorted(p.relative_to(tiny_folder).as_posix() for p in tiny_folder.rglob("*.*"))


def test_tokens_of_a_hub_model_are_counted_without_its_weights(hub: Hub) -> None:
    counter = SD1(path="someone/tiny", revision="main").token_counter()
    assert counter.count(["a red circle"]) == [5]
    assert hub.asked
    assert not any(name.endswith(".safetensors") for name in hub.asked)


def test_a_downloaded_model_needs_the_hub_no_more(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    SD1(path="someone/tiny").load()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert SD1(path="someone/tiny").load().source.revision == COMMIT


def test_half_precision_files_are_left_on_the_hub_where_there_are_others(hub: Hub) -> None:
    file = hub.folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
    SD1(path="someone/tiny").load()
    assert not any("fp16" in name for name in hub.asked)


def test_a_hub_model_with_only_half_precision_files_is_used_and_told(hub: Hub) -> None:
    file = hub.folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
    file.unlink()
    model = SD1(path="someone/tiny").load()
    assert "unet in half precision" in model.notices[0]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in hub.asked


def test_a_hub_model_with_only_pickles_is_refused(hub: Hub) -> None:
    (hub.folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="offers no safetensors for unet") as caught:
        SD1(path="someone/tiny").load()
    assert "Convert it" in caught.value.fix
    assert not any(name.endswith((".bin", ".py")) for name in hub.asked)


def test_a_hostile_hub_model_is_checked_before_a_library_reads_it(hub: Hub) -> None:
    file = hub.folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_attn_implementation_internal": "evil/kernel"}))
    with pytest.raises(UserError, match="fetch or run code"):
        SD1(path="someone/tiny").load()


def test_what_the_hub_refuses_is_said_in_words(hub: Hub) -> None:
    with pytest.raises(UserError, match="neither a folder here nor a model on the Hub"):
        SD1(path="someone/tinny").load()
    with pytest.raises(UserError, match="at revision 'nope' does not exist"):
        SD1(path="someone/tiny", revision="nope").load()
    hub.gated = True
    with pytest.raises(UserError, match="must be asked for"):
        SD1(path="someone/tiny").load()


def test_without_the_hub_both_readings_of_a_name_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="is not a folder here, and the Hub could not be reached"):
        SD1(path="someone/tiny").load()


@pytest.mark.parametrize(
    "name", ["./modle", "/nowhere/model", "model.safetensors", "photos", "a/b/c", "some one/x", "~/absent-model"]
)
def test_a_name_that_can_only_be_local_never_asks_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="is not there") as caught:
        SD1(path=name).load()
    assert caught.value.where == "model.path"


def test_a_misspelled_path_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "realistic-v2.safetensors").touch()
    with pytest.raises(UserError, match=r"Did you mean '.*/realistic-v2\.safetensors'\?"):
        SD1(path=str(tmp_path / "realistic-v1.safetensors")).load()


# ------------------------------------------------------------------------------------------------------- recognising
def infos(state: dict[str, Tensor]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F32", tuple(value.shape)) for name, value in state.items()}


def named(*names: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F32", shape) for name in names}


UNET = "model.diffusion_model.input_blocks.0.0.weight"
WHOLE = named(
    "cond_stage_model.transformer.text_model.final_layer_norm.weight", "first_stage_model.encoder.conv_in.weight"
)


def test_whole_models_and_their_parts_are_told_apart() -> None:
    pipeline = sd15()
    state = single_file_state(pipeline)
    assert recognise(infos(state)) == "sd1"
    assert recognise(infos(single_file_state(pipeline, text_model=False))) == "sd1"
    parts = {"model.diffusion_model.": "denoiser", "first_stage_model.": "autoencoder", "cond_stage_model.": "clip"}
    for prefix, kind in parts.items():
        part = {name: value for name, value in state.items() if name.startswith(prefix)}
        assert recognise(infos(part)) == kind
    without = {name: value for name, value in state.items() if not name.startswith("first_stage_model.")}
    assert recognise(infos(without)) == "sd1 without autoencoder"
    assert recognise(infos(pipeline.unet.state_dict())) == "denoiser"
    assert recognise(infos(pipeline.vae.state_dict())) == "autoencoder"
    assert recognise(infos(pipeline.text_encoder.state_dict())) == "clip"


def test_a_lora_is_recognised_in_every_spelling() -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    unet: UNet2DConditionModel = sd15().unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    assert recognise(infos(get_peft_model_state_dict(unet))) == "lora"
    for name in (
        "unet.down_blocks.0.attentions.0.to_q.lora_A.weight",
        "base_model.model.mid_block.to_q.lora_B.weight",
        "unet.mid_block.to_q.lora.down.weight",
        "unet.mid_block.attn1.processor.to_q_lora.up.weight",
        "text_encoder.text_model.q_proj.lora_linear_layer.up.weight",
        "lora_unet_mid_block_attentions_0_to_q.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_unet_mid_block.hada_w1_a",
        "mid_block.lokr_w1",
    ):
        assert recognise(named(name)) == "lora", name


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({**WHOLE, **named(UNET, shape=(320, 4, 3, 3))}, "sd1"),
        ({**WHOLE, **named(UNET, shape=(320, 9, 3, 3))}, "sd inpainting"),
        ({**WHOLE, **named(UNET, shape=(320, 8, 3, 3))}, "sd edit"),
        ({**WHOLE, **named(UNET, shape=(320, 5, 3, 3))}, "sd depth"),
        ({**WHOLE, **named(UNET, shape=(320, 7, 3, 3))}, "sd upscaler"),
        (named(UNET, "cond_stage_model.model.positional_embedding", "first_stage_model.x"), "sd2"),
        (named(UNET, "conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x"), "sdxl"),
        (named(UNET, "conditioner.embedders.0.model.x"), "sdxl refiner"),
        (named("model.diffusion_model.joint_blocks.0.x"), "sd3"),
        (named("double_blocks.0.img_attn.norm.key_norm.scale"), "flux"),
        (named("model.diffusion_model.double_blocks.0.x"), "flux"),
        (named("transformer_blocks.0.attn.to_q.weight"), "transformer"),
        (named("control_model.time_embed.0.weight"), "controlnet"),
        (named("emb_params", shape=(2, 768)), "textual inversion"),
        (named("<my-toy>", shape=(768,)), "textual inversion"),
        (named("clip_l", "clip_g", shape=(2, 768)), "textual inversion"),
        (named("text_model.embeddings.token_embedding.weight"), "clip"),
        (named("visual.conv1.weight"), "clip"),
        (named("layer.weight", shape=(1, 2, 3)), "unknown"),
        ({}, "unknown"),
    ],
)
def test_other_files_are_told_apart_and_refused_by_name(
    tmp_path: Path, tensors: dict[str, TensorInfo], kind: str
) -> None:
    assert recognise(tensors) == kind
    if kind == "sd1":
        return
    file = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(info.shape) for name, info in tensors.items()}, file)
    assert recognise(read_safetensors_header(file).tensors) == kind
    with pytest.raises(UserError) as caught:
        check_file(file)
    assert describe(kind) in caught.value.what
    assert caught.value.fix


def test_a_lora_as_a_model_says_where_it_belongs(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file({"lora_unet_mid.lora_down.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(UserError, match=r"is a LoRA.*use the LoRA with --adapter"):
        SD1(path=str(file)).load()


# ------------------------------------------------------------------------------------------------------------ hashing
def test_the_hash_sees_names_types_shapes_bytes_and_settings() -> None:
    def network(weight: Tensor, name: str = "weight") -> torch.nn.Module:
        module = torch.nn.Module()
        module.register_buffer(name, weight)
        return module

    one = torch.arange(4.0)
    base = content_hash(network(one), {"a": 1, "_name_or_path": "x", "sample_size": 32})
    assert base == content_hash(network(one.clone()), {"_name_or_path": "y", "a": 1})
    others = [
        content_hash(network(one, "other"), {"a": 1}),
        content_hash(network(one.to(torch.bfloat16)), {"a": 1}),
        content_hash(network(one.view(2, 2)), {"a": 1}),
        content_hash(network(one + torch.tensor([0, 0, 0, 1e-6])), {"a": 1}),
        content_hash(network(one.view(torch.int32)), {"a": 1}),
        content_hash(network(one), {"a": 2}),
        content_hash(network(one), {"a": 1}, "vocabulary"),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert content_hash(network(torch.arange(8.0)[::2] / 2), {"a": 1}) == base, "the layout in memory does not matter"

"""A text encoder in open_clip's and OpenAI's files: the states of the same model in transformers', or a refusal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.core.errors import UserError
from limner.export.open_clip import OpenClip
from limner.export.transformers import Transformers
from limner.methods.towers import Towers
from limner.models import SD1
from limner.models.clip import Clip, ClipModel
from limner.models.open_clip_text import open_text
from limner.models.sd1 import SD1Model
from limner.models.text_encoder import TextEncoder
from tests.reference_clip import ReferenceClip
from tests.tiny import WORDS, clip_tokenizer, save_tiny, save_tiny_clip

PROMPTS = ["a red circle on a blue background", "a dog"]
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tuned CLIP, exported as open_clip and as transformers. Do not change it."""
    root = tmp_path_factory.mktemp("exports")
    base = save_tiny_clip(root / "base")
    fresh: Callable[[], ClipModel] = Clip(path=str(base)).load
    model = fresh()
    trainable = Towers().apply(model, seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in trainable.params.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    for export, name in ((OpenClip(), "open_clip"), (Transformers(), "transformers")):
        export.write(model, trainable, root / name, {"format": "pt"}, fresh_base=fresh)
    return root


@pytest.fixture
def folder(exports: Path, tmp_path: Path) -> Path:
    """A copy of the export for open_clip."""
    return Path(shutil.copytree(exports / "open_clip", tmp_path / "open_clip"))


def swapped(model: SD1Model, path: Path, blend: float = 1.0) -> SD1Model:
    return model.with_text_encoder(TextEncoder(path=str(path), blend=blend))


def states(model: SD1Model) -> Tensor:
    with torch.no_grad():
        return model.encode_prompts(PROMPTS)["encoder_hidden_states"]


def refusal(model: SD1Model, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        swapped(model, path)
    return f"{caught.value.where}: {caught.value.what}"


def settings(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / CONFIG).read_text())
    change(values["model_cfg"])
    (folder / CONFIG).write_text(json.dumps(values))


# ------------------------------------------------------------------------------------------------------ the same states
@pytest.mark.parametrize("blend", [1.0, 0.25])
def test_both_exports_of_a_run_give_exactly_the_same_states(exports: Path, tiny_model: SD1Model, blend: float) -> None:
    one, other = (swapped(tiny_model, exports / name, blend) for name in ("open_clip", "transformers"))
    assert torch.equal(states(one), states(other))
    assert not torch.allclose(states(one), states(tiny_model))
    assert one.notices == other.notices == ()
    assert one.text_encoder_hash() == other.text_encoder_hash()


def test_every_file_under_open_clips_names_gives_these_states(
    exports: Path, tiny_model: SD1Model, tmp_path: Path
) -> None:
    expected = states(swapped(tiny_model, exports / "transformers"))
    whole = load_file(exports / "open_clip" / WEIGHTS)
    several = {f"module.{name}": value for name, value in whole.items()}
    text = {name: value for name, value in whole.items() if not name.startswith(("visual.", "logit_scale"))}
    del text["text_projection"]
    for name in ("bare", "saved", "several", "text"):
        (tmp_path / name).mkdir()
    save_file(whole, tmp_path / "bare" / "model.safetensors")
    torch.save(whole, tmp_path / "saved" / "model.pt")
    torch.save({"epoch": 3, "state_dict": several, "state_dict_ema": whole}, tmp_path / "several" / "epoch_3.pt")
    save_file(text, tmp_path / "text" / "model.safetensors")
    for file in tmp_path.glob("*/*"):
        found = swapped(tiny_model, file)
        assert torch.equal(states(found), expected), file
        assert "does not tell its number of attention heads, activation, vocabulary" in found.notices[-1]
        assert ("averaged weights" in found.notices[0]) == (file.name == "epoch_3.pt")
    told = swapped(tiny_model, exports / "open_clip" / WEIGHTS)
    assert torch.equal(states(told), expected)
    assert told.notices == (), "its settings and words lie beside it"


@pytest.mark.parametrize("quick", [True, False])
def test_the_states_are_those_of_an_independent_model_with_its_activation(tmp_path: Path, quick: bool) -> None:
    pipeline = save_tiny(tmp_path / "pipeline")
    values = json.loads((pipeline / "text_encoder" / "config.json").read_text())
    values["hidden_act"] = "quick_gelu" if quick else "gelu"
    (pipeline / "text_encoder" / "config.json").write_text(json.dumps(values))
    model = SD1(path=str(pipeline)).load()
    judge = ReferenceClip(words=len(model.tokenizer), widths=(64, 32), heads=(1, 4), hidden=(64, 37), quick=quick)
    text = {"width": 32, "heads": 4, "layers": 2, "vocab_size": len(model.tokenizer), "mlp_ratio": 37 / 32}
    vision = {"width": 64, "layers": 2, "patch_size": 8, "image_size": 16, "mlp_ratio": 1}
    folder = tmp_path / "open_clip"
    folder.mkdir()
    model.tokenizer.save_pretrained(folder)
    save_file(judge.state_dict(), folder / WEIGHTS)
    cfg = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": cfg}))

    ids = model.tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        x = judge.token_embedding(ids) + judge.positional_embedding
        expected = judge.ln_final(judge.transformer(x, torch.full((77, 77), float("-inf")).triu(1)))
    torch.testing.assert_close(states(swapped(model, folder)), expected, rtol=0, atol=5e-6)

    settings(folder, lambda cfg: cfg.update(quick_gelu=not quick))
    names = ("'gelu'", "'quick_gelu'") if quick else ("'quick_gelu'", "'gelu'")
    assert f"its activation is {names[0]}, the model's {names[1]}" in refusal(model, folder)


def test_openais_marks_say_the_activation(exports: Path, tmp_path: Path) -> None:
    marks = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    save_file(load_file(exports / "open_clip" / WEIGHTS) | marks, tmp_path / "marked.safetensors")
    facts = open_text(tmp_path / "marked.safetensors", weights=True)
    assert facts.settings["hidden_act"] == "quick_gelu"
    assert "num_attention_heads" not in facts.settings


# --------------------------------------------------------------------------------------------------------- the misfits
def test_other_sizes_are_refused_by_both_numbers(exports: Path, tiny_model: SD1Model, tmp_path: Path) -> None:
    shallow = {
        n: v for n, v in load_file(exports / "open_clip" / WEIGHTS).items() if "transformer.resblocks.1" not in n
    }
    save_file(shallow, tmp_path / "shallow.safetensors")
    assert "its number of layers is 1, the model's 2" in refusal(tiny_model, tmp_path / "shallow.safetensors")
    wide = ReferenceClip(words=len(tiny_model.tokenizer), tokens=40, widths=(64, 48), heads=(1, 1), hidden=(64, 50))
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    told = refusal(tiny_model, tmp_path / "wide.pt")
    assert "its hidden size is 48, the model's 32" in told
    assert "its width between the layers is 50, the model's 37" in told
    assert "its number of positions is 40, the model's 77" in told


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("layers", 3, "num_hidden_layers is 3, and the weights have 2"),
        ("width", 64, "hidden_size is 64, and the weights have 32"),
        ("mlp_ratio", 2.0, "intermediate_size is 64, and the weights have 37"),
        ("heads", 2, "its number of attention heads is 2, the model's 4"),
        ("width", "wide", "impossible sizes"),
        ("pool_type", "last", "text_cfg.pool_type"),
        ("hf_model_name", "roberta", "text_cfg.hf_model_name"),
    ],
)
def test_settings_of_another_model_are_refused(
    folder: Path, tiny_model: SD1Model, key: str, value: object, says: str
) -> None:
    settings(folder, lambda cfg: cfg["text_cfg"].update({key: value}))
    assert says in refusal(tiny_model, folder)


def test_the_words_must_be_the_pipelines(folder: Path, tiny_model: SD1Model) -> None:
    swap = {"dog": "cat", "cat": "dog"}
    clip_tokenizer([swap.get(word, word) for word in WORDS]).save_pretrained(folder)
    assert "its vocabulary has 'ca' as" in refusal(tiny_model, folder)
    for file in (*folder.glob("*token*"), *folder.glob("vocab*"), *folder.glob("merges*")):
        file.unlink()
    assert "asks for another tokenizer" in refusal(tiny_model, folder)
    settings(folder, lambda cfg: cfg["text_cfg"].pop("hf_tokenizer_name"))
    assert "its vocabulary is OpenAI's, and the model's is another" in refusal(tiny_model, folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lost", "lacks 1 tensors, such as 'ln_final.bias'"),
        ("surplus", "has 1 tensors that a CLIP model of its sizes has not"),
        ("shape", "has 'ln_final.bias' of shape [5], not [32]"),
        ("nan", "is not finite (NaN)"),
        ("whole", "in whole numbers"),
        ("custom", "a text tower of open_clip's custom kind"),
    ],
)
def test_nothing_is_loaded_in_part(folder: Path, tiny_model: SD1Model, change: str, says: str) -> None:
    state, name, before = load_file(folder / WEIGHTS), "ln_final.bias", states(tiny_model)
    if change == "lost":
        del state[name]
    elif change == "custom":
        state = {n if n.startswith(("visual.", "logit")) else f"text.{n}": value for n, value in state.items()}
    else:
        new = {
            "surplus": ("ln_more.bias", torch.ones(3)),
            "shape": (name, torch.ones(5)),
            "nan": (name, torch.full((32,), float("nan"))),
            "whole": (name, torch.ones(32, dtype=torch.long)),
        }
        state[new[change][0]] = new[change][1]
    save_file(state, folder / WEIGHTS)
    assert says in refusal(tiny_model, folder)
    assert torch.equal(states(tiny_model), before)


class Harm:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_run(exports: Path, tiny_model: SD1Model, tmp_path: Path) -> None:
    state = load_file(exports / "open_clip" / WEIGHTS)
    torch.save({"state_dict": state, "optimizer": Harm(tmp_path / "harm")}, tmp_path / "epoch_1.pt")
    assert "mkdir" in refusal(tiny_model, tmp_path / "epoch_1.pt")
    assert not (tmp_path / "harm").exists()
    torch.save({"text_model.embeddings.token_embedding.weight": torch.ones(2, 2)}, tmp_path / "model.bin")
    assert "under transformers' names" in refusal(tiny_model, tmp_path / "model.bin")


def test_the_check_before_a_run_compares_too(folder: Path, tiny_folder: Path) -> None:
    choice = SD1(path=str(tiny_folder), text_encoder=TextEncoder(path=str(folder)))
    choice.token_counter()
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    choice.token_counter()  # of a Hub model the small files are there alone
    with pytest.raises(UserError, match="has no open_clip_model"):
        choice.load()
    settings(folder, lambda cfg: cfg.pop("quick_gelu"))
    for there in (False, True):
        if there:
            (folder / WEIGHTS).write_bytes(weights)
        with pytest.raises(UserError, match="its activation is 'gelu', the model's 'quick_gelu'"):
            choice.token_counter()

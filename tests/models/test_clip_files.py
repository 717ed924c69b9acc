"""CLIP in open_clip's and OpenAI's files: the same embeddings as an independent model of those names gives."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from limner.core.errors import UserError
from limner.models.clip import Clip, ClipModel
from limner.models.clip_vocabulary import MERGES_FILE
from limner.models.open_clip import from_transformers, to_transformers
from limner.models.preprocessing import OPENAI_MEANS, OPENAI_STDS
from tests.reference_clip import ReferenceClip, rows
from tests.tiny import clip_tokenizer, save_tiny_clip

CAPTIONS = ("a red circle", "dog", "", "the blue square on a painting of an unspellable thing")


def reference(tokenizer: CLIPTokenizer, **changes: Any) -> ReferenceClip:
    model = ReferenceClip(words=len(tokenizer), **changes)
    model.eval()
    return model


def config(words: int, **changes: Any) -> dict[str, Any]:
    """Returns what open_clip writes of the reference model with heads that are 32 wide."""
    vision = {"image_size": 16, "layers": 2, "width": 128, "patch_size": 8, "head_width": 32}
    text = {"context_length": 77, "vocab_size": words, "width": 64, "heads": 2, "layers": 2}
    return {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text} | changes, "preprocess_cfg": {}}


def put_tokenizer(folder: Path) -> CLIPTokenizer:
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer


def scripted(model: nn.Module, path: Path, *, openai: bool = True) -> Path:
    """Writes a TorchScript archive as OpenAI's are: traced, with three numbers among its tensors."""
    numbers = {"input_resolution": 16, "context_length": 77, "vocab_size": 345}
    for name, number in numbers.items() if openai else ():
        model.register_buffer(name, torch.tensor(number))
    example = torch.zeros(1, 3, 16, 16, dtype=next(model.parameters()).dtype), torch.ones(1, 77, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, example, check_trace=False).save(str(path))
    return path


def largest_difference(ours: ClipModel, judge: ReferenceClip) -> float:
    """Returns how far the embeddings of pictures and captions, and the temperature, lie from the judge's."""
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_MEANS, OPENAI_STDS))
    judge = judge.float()
    with torch.no_grad():
        images, texts = judge(((pixels + 1) / 2 - means) / stds, rows(ours.tokenizer, CAPTIONS, 77))
        pairs: list[tuple[Tensor, Tensor]] = [
            (ours.embed_images(pixels), functional.normalize(images, dim=-1)),
            (ours.embed_prompts(CAPTIONS), functional.normalize(texts, dim=-1)),
            (ours.logit_scale, judge.logit_scale),
        ]
        return max(float((one - other).abs().max()) for one, other in pairs)


# ------------------------------------------------------------------------------------------------ what can be loaded
@pytest.mark.parametrize("quick", [True, False])
def test_a_folder_of_open_clip_gives_the_embeddings_of_its_model(tmp_path: Path, quick: bool) -> None:
    tokenizer = put_tokenizer(tmp_path)
    judge = reference(tokenizer, heads=(4, 2), quick=quick)
    save_file(judge.state_dict(), tmp_path / "open_clip_model.safetensors")
    settings = config(len(tokenizer), **({"quick_gelu": True} if quick else {}))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    ours = Clip(path=str(tmp_path)).load()
    assert largest_difference(ours, judge) < 2e-6
    assert ours.notices == ()
    assert largest_difference(ours, reference(tokenizer, heads=(4, 2), quick=not quick)) > 1e-4


def test_a_checkpoint_of_several_gpus_is_read_without_its_optimizer(tmp_path: Path) -> None:
    tokenizer = put_tokenizer(tmp_path)
    judge = reference(tokenizer, quick=False)
    optimizer = torch.optim.AdamW(judge.parameters())
    judge(torch.zeros(1, 3, 16, 16), torch.ones(1, 77, dtype=torch.long))[0].sum().backward()
    optimizer.step()
    state = {f"module.{name}": value for name, value in judge.state_dict().items()}
    file = tmp_path / "epoch_3.pt"
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer.state_dict()}, file)
    assert largest_difference(Clip(path=str(file), activation="gelu").load(), judge) < 2e-6


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_bare_state_dict_asks_for_the_activation(tmp_path: Path, suffix: str) -> None:
    judge = reference(put_tokenizer(tmp_path))
    file = tmp_path / f"model.{suffix}"
    save_file(judge.state_dict(), file) if suffix == "safetensors" else torch.save(judge.state_dict(), file)
    with pytest.raises(UserError, match="does not say whether its towers compute GELU or QuickGELU"):
        Clip(path=str(file)).load()
    assert largest_difference(Clip(path=str(file), activation="quick_gelu").load(), judge) < 2e-6
    assert largest_difference(Clip(path=str(file), activation="gelu").load(), judge) > 1e-4


@pytest.mark.parametrize("form", ["archive", "state dict"])
def test_openais_original_file_in_half_precision_has_quick_gelu(tmp_path: Path, form: str) -> None:
    judge = reference(put_tokenizer(tmp_path)).half()
    path = scripted(judge, tmp_path / "ViT-B-32.pt")
    if form == "state dict":
        torch.save(judge.state_dict(), path)
    ours = Clip(path=str(path)).load()
    assert ours.network.config.vision_config.hidden_act == ours.network.config.text_config.hidden_act == "quick_gelu"
    assert largest_difference(ours, judge) < 2e-6
    assert any("half precision" in notice for notice in ours.notices)
    with pytest.raises(UserError, match="'gelu' is not what"):
        Clip(path=str(path), activation="gelu").load()


@pytest.mark.parametrize("quick", [True, False])
def test_any_archive_says_its_activation_by_the_name_of_its_class(tmp_path: Path, quick: bool) -> None:
    judge = reference(put_tokenizer(tmp_path), quick=quick)
    path = scripted(judge, tmp_path / "traced.pt", openai=False)
    assert largest_difference(Clip(path=str(path)).load(), judge) < 2e-6


def test_the_vocabulary_of_openai_beside_the_file_is_enough(tmp_path: Path, data_root: Path) -> None:
    vocabulary = data_root / "clip_vocab" / MERGES_FILE
    if not vocabulary.is_file():
        pytest.skip(f"needs CLIP's vocabulary: {vocabulary} is absent (set LIMNER_DATA)")
    shutil.copy(vocabulary, tmp_path)
    judge = ReferenceClip(words=49_408, widths=(64, 64), heads=(1, 1), hidden=(64, 64)).eval()
    torch.save(judge.state_dict(), tmp_path / "model.pt")
    ours = Clip(path=str(tmp_path / "model.pt"), activation="quick_gelu").load()
    assert ours.tokenizer("a dog").input_ids == [49406, 320, 1929, 49407]
    assert largest_difference(ours, judge) < 2e-6


# -------------------------------------------------------------------------------------------------- which token counts
def test_the_pooled_state_is_that_of_the_token_that_ends_the_caption(tmp_path: Path) -> None:
    judge = reference(put_tokenizer(tmp_path))
    torch.save(judge.state_dict(), tmp_path / "model.pt")
    ours = Clip(path=str(tmp_path / "model.pt"), activation="quick_gelu").load()
    ids = rows(ours.tokenizer, CAPTIONS, 77)
    with torch.no_grad():
        out = ours.network.text_model(ids)
    ends = [len(ours.tokenizer(caption).input_ids) - 1 for caption in CAPTIONS]
    assert len(set(ends)) == len(ends)
    for row, end in enumerate(ends):
        assert int(ids[row, end]) == ours.tokenizer.eos_token_id
        assert torch.equal(out.pooler_output[row], out.last_hidden_state[row, end])


@pytest.mark.parametrize(("end", "fine"), [(2, True), (7, False), (49407, False)])
def test_settings_that_name_another_end_than_the_tokenizers_are_refused(tmp_path: Path, end: int, fine: bool) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    expected = Clip(path=str(folder)).load().embed_prompts(CAPTIONS)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["eos_token_id"] = end
    (folder / "config.json").write_text(json.dumps(settings))
    if fine:
        assert torch.equal(Clip(path=str(folder)).load().embed_prompts(CAPTIONS), expected)
    else:
        with pytest.raises(UserError, match=f"says that token {end} ends a caption"):
            Clip(path=str(folder)).load()


# ---------------------------------------------------------------------------------------------------- the two layouts
def test_the_layouts_are_each_others_opposite_bit_for_bit(tmp_path: Path) -> None:
    state = reference(clip_tokenizer()).state_dict()
    back = from_transformers(to_transformers(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    theirs = Clip(path=str(save_tiny_clip(tmp_path / "clip"))).load().network.state_dict()
    again = to_transformers(from_transformers(theirs))
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_sizes_and_words_are_told_without_reading_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(reference(put_tokenizer(tmp_path)).state_dict(), tmp_path / "model.pt")
    monkeypatch.setattr("limner.models.torch_file._numbers", lambda *_: pytest.fail("read a tensor"))
    counter = Clip(path=str(tmp_path / "model.pt"), activation="gelu").token_counter()
    assert (counter.limit, counter.size_multiple, counter.count(["a dog"])) == (77, 16, [4])


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("added", "says"),
    [
        ({"visual.trunk.cls_token": 4}, "timm"),
        ({"visual.layer1.0.conv1.weight": 4}, "ResNet"),
        ({"text_decoder.x": 4}, "CoCa"),
        ({"text.transformer.embeddings.word_embeddings.weight": 4}, "text tower of transformers'"),
        ({"text.token_embedding.weight": 4}, "custom kind"),
        ({"logit_bias": ()}, "SigLIP"),
        ({"visual.transformer.resblocks.0.ls_1.gamma": 4}, "'visual.transformer.resblocks.0.ls_1.gamma'"),
        ({"visual.ln_pre.weight": 4}, r"'visual.ln_pre.weight' of shape \[4\], not \[128\]"),
        ({"visual.ln_pre.weight": None}, "lacks 1 tensors, such as 'visual.ln_pre.weight'"),
        ({"visual.conv1.weight": None}, "no whole CLIP model"),
        ({"visual.conv1.weight": 4}, "CLIP's names with other shapes"),
    ],
)
def test_other_kinds_of_model_are_refused_by_name(tmp_path: Path, added: dict[str, Any], says: str) -> None:
    state = reference(put_tokenizer(tmp_path)).state_dict()
    for name, shape in added.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=says):
        Clip(path=str(tmp_path / "model.pt"), activation="gelu").load()


@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        ("model_cfg", "multimodal_cfg", {}, "model_cfg.multimodal_cfg"),
        ("model_cfg", "embed_dim", 32, "says embed_dim: 32, and the weights have 24"),
        ("vision_cfg", "timm_model_name", "vit", "vision_cfg.timm_model_name: 'vit'"),
        ("vision_cfg", "pool_type", "avg", "vision_cfg.pool_type: 'avg'"),
        ("vision_cfg", "image_size", 32, "says vision_cfg.image_size: 32, and the weights have 16"),
        ("vision_cfg", "head_width", 0, "impossible sizes"),
        ("text_cfg", "no_causal_mask", True, "text_cfg.no_causal_mask: True"),
        ("text_cfg", "new_idea", 1, "text_cfg.new_idea: 1"),
        ("text_cfg", "context_length", 64, "says text_cfg.context_length: 64"),
    ],
)
def test_settings_of_other_models_are_refused_by_key(
    tmp_path: Path, part: str, key: str, value: Any, says: str
) -> None:
    tokenizer = put_tokenizer(tmp_path)
    save_file(reference(tokenizer, heads=(4, 2)).state_dict(), tmp_path / "open_clip_model.safetensors")
    settings = config(len(tokenizer))
    target = settings["model_cfg"] if part == "model_cfg" else settings["model_cfg"][part]
    target[key] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=says):
        Clip(path=str(tmp_path)).load()


def test_a_tokenizer_of_other_words_is_refused(tmp_path: Path) -> None:
    put_tokenizer(tmp_path)
    torch.save(ReferenceClip(words=400).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="knows 400 words"):
        Clip(path=str(tmp_path / "model.pt"), activation="gelu").load()


def test_a_tokenizer_can_be_named_and_a_missing_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "words"
    tokenizer = put_tokenizer(other)
    file = tmp_path / "model.pt"
    torch.save(reference(tokenizer).state_dict(), file)
    named = Clip(path=str(file), activation="gelu", tokenizer=str(other)).load()
    assert named.tokenizer.get_vocab() == tokenizer.get_vocab()
    (tmp_path / MERGES_FILE).write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(UserError, match="is not OpenAI's list of merges"):
        Clip(path=str(file), activation="gelu").load()
    with pytest.raises(UserError, match=r"model\.tokenizer: the tokenizer is not to be had: .*'./nowhere'"):
        Clip(path=str(file), activation="gelu", tokenizer="./nowhere").load()


def test_a_folder_of_transformers_says_these_things_itself(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    for given in ({"activation": "gelu"}, {"tokenizer": str(folder)}):
        with pytest.raises(UserError, match=f"model.{next(iter(given))}: has no meaning"):
            Clip.model_validate({"path": str(folder), **given}).load()

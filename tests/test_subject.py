"""What is said of DreamBooth's words and pictures before training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import CLIPTokenizer

from limner.builtin.drawings import draw_folder
from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.models.clip_vocabulary import read_merges
from limner.models.words import look_up
from limner.preflight import plan
from tests.tiny import clip_tokenizer, save_tiny

CLASSES = {
    "backpack": "backpack", "backpack_dog": "backpack", "bear_plushie": "stuffed animal", "candle": "candle",
    "cat": "cat", "dog": "dog", "dog6": "dog", "duck_toy": "toy", "fancy_boot": "boot", "red_cartoon": "cartoon",
    "teapot": "teapot", "vase": "vase",
}  # fmt: skip


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def clip(data_root: Path) -> CLIPTokenizer:
    """CLIP's own tokenizer, from OpenAI's list of merges."""
    path = data_root / "clip_vocab" / "bpe_simple_vocab_16e6.txt.gz"
    if not path.is_file():
        pytest.skip(f"needs CLIP's vocabulary: {path} is absent (set LIMNER_DATA)")
    return read_merges(path, limit=77)


def put(folder: Path, count: int) -> Path:
    draw_folder(folder, count=count)
    for sidecar in folder.glob("*.txt"):
        sidecar.unlink()
    return folder


def config(model: Path, path: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "out": str(path.parent / "run"),
        "model": {"kind": "sd1", "path": str(model)},
        "dataset": {"kind": "dreambooth", "path": str(path), "class_noun": "dog"} | changes.pop("dataset", {}),
        "images": {"resolution": 32, "bucket_step": 8} | changes.pop("images", {}),
        "method": {"kind": "lora"},
        "train": {"steps": 1, "device": "cpu"},
        "cache": {"folder": str(path.parent / "cache")},
        "report": {"at_end": "never"},
    }
    return RunConfig.model_validate({**values, **changes})


def heard(config: RunConfig) -> tuple[str, str]:
    """Returns what the check says, and what it warns of."""
    listener = Listener()
    plan(config, progress=listener)
    return "\n".join(listener.said), "\n".join(listener.warned)


# ----------------------------------------------------------------------------------------------------------- words
@pytest.mark.parametrize(("word", "number"), [("the", 518), ("dog", 1929), ("rook", 35918), ("Luna", 14425)])
def test_a_common_word_of_clip_is_known_by_its_number(clip: CLIPTokenizer, word: str, number: int) -> None:
    found = look_up(word, clip)
    assert found.pieces == ((word.lower(), number),)
    assert f"number {number} of 49408" in found.why_common


def test_a_rare_word_of_clip_and_one_in_pieces_are_not_common(clip: CLIPTokenizer) -> None:
    whole, cut = look_up("sks", clip), look_up("zwx", clip)
    assert whole.pieces == (("sks", 48136),)
    assert cut.pieces == (("z", 89), ("wx", clip.get_vocab()["wx</w>"]))
    assert cut.told().startswith("z 89, wx ")
    assert whole.why_common == cut.why_common == ""


def test_in_a_small_vocabulary_every_whole_word_is_one_that_its_model_learned() -> None:
    tokenizer = clip_tokenizer(("dog", "photo"))
    assert "of the" in look_up("dog", tokenizer).why_common
    assert [piece for piece, _ in look_up("sks", tokenizer).pieces] == ["s", "k", "s"]
    assert look_up("sks", tokenizer).why_common == ""
    tokenizer.add_tokens("<rex>")
    assert look_up("<rex>", tokenizer).why_common == ""


def test_the_check_tells_what_becomes_of_the_token(model: Path, tmp_path: Path) -> None:
    photos = put(tmp_path / "photos", 3)
    said, warned = heard(config(model, photos))
    assert "dataset.token 'sks' is 3 pieces for the tokenizer: s 82, k 74, s 338" in said
    assert warned == ""
    said, warned = heard(config(model, photos, dataset={"token": "cat"}))
    assert "dataset.token 'cat' is a common word" in warned


def test_the_preservation_prompt_should_name_the_class_and_not_the_subject(model: Path, tmp_path: Path) -> None:
    photos = put(tmp_path / "photos", 3)

    def preserving(prompt: str) -> RunConfig:
        return config(model, photos, objective={"kind": "denoising", "preservation": {"prompt": prompt}})

    assert heard(preserving("a photo of a dog"))[1] == ""
    assert "lacks the class noun 'dog'" in heard(preserving("a photo of a cat"))[1]
    with pytest.raises(UserError, match=r"'a photo of SKS, a dog' has dataset\.token 'sks'"):
        plan(preserving("a photo of SKS, a dog"))
    assert "has 203 tokens; 77 are read" in heard(preserving("dog " * 201))[1]


# -------------------------------------------------------------------------------------------------------- pictures
@pytest.mark.parametrize(("count", "expected"), [(1, "there is 1 picture"), (3, ""), (31, "there are 31 pictures")])
def test_too_few_and_many_pictures_are_told(model: Path, tmp_path: Path, count: int, expected: str) -> None:
    said, warned = heard(config(model, put(tmp_path / "photos", count)))
    assert expected in said + warned
    assert ("there are" in said, "there is 1" in warned) == (count == 31, count == 1)


def test_what_file_managers_write_gets_a_row_and_no_word(model: Path, tmp_path: Path) -> None:
    photos = put(tmp_path / "photos", 3)
    names = ("Thumbs.db", ".DS_Store", "desktop.ini")
    for name in names:
        (photos / name).write_bytes(b"x")
    said, warned = heard(config(model, photos))
    assert not any(name in said + warned for name in names)
    left = {row.id: row.reason for row in plan(config(model, photos)).ledger.rows if not row.used}
    assert left == {f"instance/{name}": "written by a file manager" for name in names}


def test_a_subject_that_may_be_cut_is_told_with_its_share(model: Path, tmp_path: Path) -> None:
    photos = put(tmp_path / "photos", 2)
    Image.linear_gradient("L").convert("RGB").resize((60, 40)).save(photos / "wide.png")
    assert heard(config(model, photos))[1] == ""
    square = {"bucket_step": 8, "buckets": False}
    _, warned = heard(config(model, photos, images=square))
    assert "1 picture of the subject not seen whole" in warned
    assert "instance/wide.png 33% of the area" in warned
    _, warned = heard(config(model, photos, images=square | {"crop": "random"}))
    assert "instance/wide.png 67% of the area" in warned  # 0 to 32 and 16 to 48 have 16 in common, of 48
    with pytest.raises(UserError, match=r"images\.max_cut: 0\.1 is less than .*instance/wide\.png 33%"):
        plan(config(model, photos, images=square | {"max_cut": 0.1}))
    plan(config(model, photos, images=square | {"max_cut": 0.34}))


def test_black_class_pictures_and_copies_of_one_are_refused(model: Path, tmp_path: Path) -> None:
    photos, others = put(tmp_path / "photos", 2), put(tmp_path / "class", 2)
    dataset = {"class_path": str(others)}
    plan(config(model, photos, dataset=dataset))
    Image.new("RGB", (64, 64)).save(others / "black.png")
    with pytest.raises(UserError, match=r"of one colour, as those .*: class/black\.png #000000"):
        plan(config(model, photos, dataset=dataset))
    for path in (others / "black.png", others / "01.png"):
        path.write_bytes((others / "00.png").read_bytes())
    with pytest.raises(UserError, match="all 3 class pictures are the same"):
        plan(config(model, photos, dataset=dataset))


@pytest.mark.parametrize("name", CLASSES)
def test_the_check_takes_every_real_subject(model: Path, data_root: Path, tmp_path: Path, name: str) -> None:
    folder = data_root / "dreambooth" / name
    if not folder.is_dir():
        pytest.skip(f"needs the DreamBooth data set: {folder} is absent (set LIMNER_DATA)")
    told = (data_root / "dreambooth" / "prompts_and_classes.txt").read_text()
    assert f"{name},{CLASSES[name]}\n" in told
    dataset = {"class_noun": CLASSES[name], "class_path": str(tmp_path / "class"), "class_pictures": 200}
    base = config(model, tmp_path / "none", dataset=dataset | {"path": str(folder)}).model_dump(mode="json")
    images = {"resolution": 512, "bucket_step": 64, "max_cut": 0.15}
    checked = RunConfig.model_validate({**base, "images": images, "train": {"steps_per_picture": 100}})
    listener = Listener()
    planned = plan(checked, progress=listener)
    pictures = len(list(folder.glob("*.jpg")))
    assert Counter(picture.example.role for picture in planned.ledger.prepared) == {"instance": pictures}
    assert planned.steps == 100 * pictures
    assert "200 class pictures of 200 will be drawn" in " ".join(listener.said)
    assert listener.warned == []

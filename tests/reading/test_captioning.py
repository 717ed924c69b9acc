"""limner caption: nothing is overwritten, every picture has a line, what is written can be trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Silent
from limner.data.folder import Folder
from limner.data.table import Table
from limner.preflight import plan
from limner.reading.captioner import load_captioner
from limner.reading.captioning import LEDGER, CaptionResult, caption
from tests.reading.conftest import COLOURS, caption_of, save_tiny_captioner, tokenizer
from tests.tiny import save_tiny


def outcomes(result: CaptionResult) -> dict[str, str]:
    return {line.id: line.outcome for line in result.lines}


def ledger(folder: Path) -> dict[str, dict[str, str]]:
    lines = (folder / LEDGER).read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


# ----------------------------------------------------------------------------------------------- what a model writes
def test_captions_are_those_of_transformers(blip: Path, pictures: Path) -> None:
    network, words = BlipForConditionalGeneration.from_pretrained(blip).eval(), tokenizer()
    processor = BlipImageProcessorPil.from_pretrained(blip)
    result = caption(pictures, model=str(blip))
    for line in result.lines:
        with Image.open(pictures / line.id) as picture:
            pixels = processor(picture, return_tensors="pt").pixel_values
        ids = network.generate(pixels, num_beams=3, do_sample=False, max_new_tokens=50)[0]
        assert line.caption == words.decode(ids, skip_special_tokens=True)
        assert line.caption == (pictures / line.id).with_suffix(".txt").read_text().strip()
    assert len({line.caption for line in result.lines}) > 1


@pytest.mark.parametrize("family", ["blip", "git", "blip-2"])
def test_a_prompt_leads_the_model_and_is_no_part_of_the_caption(family: str, tmp_path: Path) -> None:
    folder = save_tiny_captioner(tmp_path / "model", family)
    picture = Image.linear_gradient("L").resize((40, 40)).convert("RGB")
    plain = load_captioner(str(folder), revision=None, device="cpu", prompt="", beams=1)
    led = load_captioner(str(folder), revision=None, device="cpu", prompt="a photo of the", beams=1)
    given, length = led._prompt_ids()
    assert given is not None
    pixels = led.processor(picture, return_tensors="pt").pixel_values
    out = led.network.generate(pixel_values=pixels, input_ids=torch.tensor([given]), max_new_tokens=50, num_beams=1)
    assert led.tokenizer.decode(out[0][:length], skip_special_tokens=True).endswith("a photo of the")
    assert led.write([picture])[0].caption == led.tokenizer.decode(out[0][length:], skip_special_tokens=True)
    assert led.write([picture]) == led.write([picture])
    (alone,), (first, second) = plain.write([picture]), plain.write([picture, picture.rotate(90)])
    assert alone == first
    assert alone.caption
    assert second.caption


def test_a_prompt_with_a_captioner_is_longer_than_none(blip: Path) -> None:
    one = load_captioner(str(blip), revision=None, device="cpu", prompt="", beams=1)
    assert one._prompt_ids()[1] == 1


# -------------------------------------------------------------------------------------------------- what is kept
def test_captions_that_are_there_stay_and_are_counted(blip: Path, pictures: Path) -> None:
    (pictures / "red.txt").write_text("mine")
    (pictures / "blue.caption").write_text("mine too")
    (pictures / "green.txt").write_text("  \n")
    result = caption(pictures, model=str(blip))
    assert outcomes(result) == {
        "red.png": "skipped", "blue.png": "skipped", "green.png": "captioned", "yellow.png": "captioned"
    }  # fmt: skip
    assert (pictures / "red.txt").read_text() == "mine"
    assert (pictures / "blue.caption").read_text() == "mine too"
    assert not (pictures / "blue.txt").exists()
    assert (pictures / "green.txt").read_text().strip()
    assert "red.txt" in ledger(pictures)["red.png"]["reason"]
    again = caption(pictures, model="nowhere at all")  # nothing to do: no model is read
    assert set(outcomes(again).values()) == {"skipped"}


def test_replace_keeps_a_copy_of_each(blip: Path, pictures: Path) -> None:
    (pictures / "red.txt").write_text("mine")
    caption(pictures, model=str(blip), replace=True)
    written = (pictures / "red.txt").read_text()
    assert written != "mine"
    assert (pictures / "red.txt.bak").read_text() == "mine"
    caption(pictures, model=str(blip), replace=True, prefix="new ")
    assert (pictures / "red.txt.bak").read_text() == "mine"
    assert (pictures / "red.txt.bak2").read_text() == written
    assert (pictures / "red.txt").read_text() == f"new {written}"


def test_a_job_that_was_stopped_goes_on(blip: Path, pictures: Path) -> None:
    class Stopped(Silent):
        def stage(self, name: str, done: int, total: int) -> None:
            if name == "captions":
                raise KeyboardInterrupt

    for number in range(8):
        (pictures / f"more{number}.png").write_bytes((pictures / "red.png").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        caption(pictures, model=str(blip), progress=Stopped())
    assert len(list(pictures.glob("*.txt"))) == 8
    assert sum(row["outcome"] == "captioned" for row in ledger(pictures).values()) == 8
    assert sum(row["outcome"] == "not reached" for row in ledger(pictures).values()) == 4
    result = caption(pictures, model=str(blip))
    assert (result.count("captioned"), result.count("skipped")) == (4, 8)


def test_damaged_pictures_have_a_line_and_stop_nothing(blip: Path, pictures: Path) -> None:
    (pictures / "red.png").write_bytes(b"<html>")
    result = caption(pictures, model=str(blip))
    assert result.count("captioned") == 3
    assert "HTML" in ledger(pictures)["red.png"]["reason"]
    assert not (pictures / "red.txt").exists()


def test_a_caption_file_that_two_pictures_would_share_is_refused(blip: Path, pictures: Path) -> None:
    Image.new("RGB", (9, 9)).save(pictures / "red.jpg")
    with pytest.raises(UserError, match="caption file of its own"):
        caption(pictures, model=str(blip))


def test_captions_in_another_place_are_not_hidden(blip: Path, pictures: Path) -> None:
    (pictures / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "mine"}\n')
    with pytest.raises(UserError, match="--write table"):
        caption(pictures, model=str(blip))
    (pictures / "metadata.jsonl").unlink()
    (pictures / "red.txt").write_text("mine")
    with pytest.raises(UserError, match="--write sidecars"):
        caption(pictures, model=str(blip), write="table")


def test_a_folder_that_cannot_be_written_to_is_said_before_a_model_is_read(pictures: Path) -> None:
    (pictures / ".limner").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written to"):
        caption(pictures, model="nowhere at all")


# ------------------------------------------------------------------------------------------------- what is read later
@pytest.mark.parametrize("write", ["sidecars", "table"])
def test_what_is_written_is_what_a_run_trains_on(
    write: str, blip: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = caption(pictures, model=str(blip), write=write, trigger="zwx", prefix="style, ", max_words=2)
    dataset = Folder(path=pictures) if write == "sidecars" else Table(path=pictures)
    read = {example.id: example.captions for example in dataset.read().examples}
    assert read == {line.id: (line.caption,) for line in result.lines}
    assert all(line.caption.startswith("style, zwx ") for line in result.lines)
    assert all(len(line.caption.split()) <= 4 for line in result.lines)
    config = RunConfig.model_validate(
        {
            "out": tmp_path / "run",
            "model": {"kind": "sd1", "path": str(save_tiny(tmp_path / "sd1"))},
            "dataset": {"kind": dataset.kind, "path": pictures},
            "images": {"resolution": 64, "bucket_step": 32},
            "method": {"kind": "lora"},
            "train": {"steps": 2, "device": "cpu"},
            "trigger_word": "zwx",
        }
    )
    assert len(plan(config).ledger.prepared) == 4


def test_a_table_keeps_its_rows_and_columns(blip: Path, pictures: Path) -> None:
    rows = [
        {"file_name": "red.png", "caption": "mine", "by": "me"},
        {"file_name": "blue.png", "caption": "", "by": "x"},
    ]
    table = pictures / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    result = caption(pictures, model=str(blip), write="table")
    after = [json.loads(line) for line in table.read_text().splitlines()]
    assert after[0] == rows[0]
    assert (after[1]["file_name"], after[1]["by"]) == ("blue.png", "x")
    assert {row["file_name"]: row["caption"] for row in after[1:]} == {
        line.id: line.caption for line in result.lines if line.outcome == "captioned"
    }
    assert not list(pictures.glob("*.bak"))
    caption(pictures, model=str(blip), write="table", replace=True)
    assert json.loads((pictures / "metadata.jsonl.bak").read_text().splitlines()[0]) == rows[0]


# -------------------------------------------------------------------------------------------------------- ranking
def test_clip_chooses_the_caption_that_fits(clip: Path, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions"
    file.write_text("\n".join(caption_of(colour) for colour in COLOURS) + "\n\n")
    result = caption(pictures, model=str(clip), rank=file)
    assert {line.id: line.caption for line in result.lines} == {
        f"{colour}.png": caption_of(colour) for colour in COLOURS
    }


def test_tags_are_put_into_the_template_and_the_best_above_the_threshold_are_written(
    clip: Path, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tags"
    file.write_text("\n".join(COLOURS))
    tagged = caption(pictures, model=str(clip), rank=file, templates=["a {tag} square"], best=2)
    captions = {line.id: line.caption.split(", ") for line in tagged.lines}
    assert {id: tags[0] for id, tags in captions.items()} == {f"{colour}.png": colour for colour in COLOURS}
    assert all(len(tags) == 2 for tags in captions.values())
    scores = {line.id: [float(part) for part in line.note.removeprefix("score ").split(", ")] for line in tagged.lines}
    above = scores["red.png"][0] - 0.5
    chosen = caption(
        pictures, model=str(clip), rank=file, templates=["a {tag} square"], best=4, above=above, replace=True
    )
    kept = {line.id: line for line in chosen.lines}
    assert kept["red.png"].caption == "red"
    none = caption(pictures, model=str(clip), rank=file, templates=["a {tag} square"], above=101, replace=True)
    assert set(outcomes(none).values()) == {"empty"}
    assert "only" in none.lines[0].reason
    assert (pictures / "red.txt").read_text() == "red\n"  # nothing better was found: the caption stays


def test_options_that_would_do_nothing_are_refused(clip: Path, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "tags"
    file.write_text("red\nblue")
    with pytest.raises(UserError, match="--prompt"):
        caption(pictures, rank=file, prompt="a photo of")
    with pytest.raises(UserError, match="--above"):
        caption(pictures, above=0)
    with pytest.raises(UserError, match=r"\{tag\}"):
        caption(pictures, model=str(clip), rank=file, templates=["a photo"])
    file.write_text("red\n\nred\n")
    with pytest.raises(UserError, match="nothing to choose"):
        caption(pictures, model=str(clip), rank=file)
    with pytest.raises(UserError, match="prefix"):
        caption(pictures, prefix="run into")


def test_models_that_write_no_captions_are_refused(clip: Path, blip: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'clip' model"):
        caption(pictures, model=str(clip))
    with pytest.raises(UserError, match=r"no config\.json"):
        caption(pictures, model=str(pictures))
    import shutil

    pickled = shutil.copytree(blip, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        caption(pictures, model=str(pickled))
    coded = shutil.copytree(blip, tmp_path / "coded")
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UserError, match="auto_map"):
        caption(pictures, model=str(coded))
    assert not list(pictures.glob("*.txt"))

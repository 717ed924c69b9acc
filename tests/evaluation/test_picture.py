"""What a picture tells about itself, to A1111's readers and to ours."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from limner.core.errors import UserError
from limner.evaluation.picture import (
    Picture,
    PictureSettings,
    UsedAdapter,
    UsedEmbedding,
    a1111_text,
    parse_a1111,
    read_picture,
    save_numbered,
    save_picture,
)

SETTINGS = PictureSettings(
    prompt="a red dog, on grass",
    negative="blurry, low quality",
    seed=42,
    steps=20,
    guidance=7.5,
    scheduler="euler_a",
    sampler="Euler a",
    width=64,
    height=96,
    model="CompVis/stable-diffusion-v1-4",
    adapters=(UsedAdapter("sks", 0.8, "0123456789ab"), UsedAdapter("style", 1.0, "ba9876543210")),
    version="0.1.0",
)
PROMPTS = {
    "two lines": "a dog\non grass",
    "umlauts": "ein Hündchen im Gänseblümchenfeld",
    "other scripts": "一只红色的狗, собака 🐕",
    "quotes and colons": 'a "dog": (red:1.2), <tag>, back\\slash',
    "very long": "a red dog, " * 5000,
    "looks like values": "Steps: 3 dogs, Seed: none",
    "empty": "",
}


def picture(settings: PictureSettings = SETTINGS) -> Picture:
    return Picture(Image.new("RGB", (settings.width, settings.height), "red"), settings)


def chunks(path: Path) -> dict[str, bytes]:
    """The chunks of a PNG by keyword, read without Pillow."""
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind in (b"tEXt", b"iTXt"):
            found[body.split(b"\0")[0].decode()] = kind + b"|" + body
        at += 12 + length
    return found


def test_the_text_is_written_as_a1111_writes_it() -> None:
    assert a1111_text(SETTINGS) == (
        "a red dog, on grass <lora:sks:0.8> <lora:style:1>\n"
        "Negative prompt: blurry, low quality\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 64x96, Model: CompVis/stable-diffusion-v1-4, "
        'Lora hashes: "sks: 0123456789ab, style: ba9876543210", Version: Limner 0.1.0'
    )


def test_a_value_with_comma_or_colon_is_quoted_and_others_are_not() -> None:
    quoted = a1111_text(dataclasses.replace(SETTINGS, model='a, "b": c'))
    assert 'Model: "a, \\"b\\": c",' in quoted
    assert "Model: plain name," in a1111_text(dataclasses.replace(SETTINGS, model="plain name"))


def test_embeddings_are_told_and_come_back_and_older_pictures_have_none(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, embeddings=(UsedEmbedding("<toy>", "0123456789ab"),))
    assert 'TI hashes: "<toy>: 0123456789ab", Version' in a1111_text(settings)
    path = save_picture(picture(settings), tmp_path / "x.png")
    assert read_picture(path).settings == settings
    values = dataclasses.asdict(SETTINGS)
    del values["embeddings"]
    info = PngInfo()
    info.add_text("limner", json.dumps(values))
    Image.new("RGB", (64, 96)).save(tmp_path / "old.png", pnginfo=info)
    assert read_picture(tmp_path / "old.png").settings == SETTINGS


def test_without_a_negative_prompt_there_is_no_such_line() -> None:
    assert "Negative" not in a1111_text(dataclasses.replace(SETTINGS, negative=""))


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_settings_come_back_exactly_from_the_file(tmp_path: Path, prompt: str) -> None:
    settings = dataclasses.replace(SETTINGS, prompt=prompt, negative=prompt[:200])
    assert read_picture(save_picture(picture(settings), tmp_path / "x.png")).settings == settings


@pytest.mark.parametrize("prompt", [p for name, p in PROMPTS.items() if name != "empty"])
def test_the_a1111_text_alone_gives_prompt_and_values_back(prompt: str) -> None:
    settings = dataclasses.replace(SETTINGS, prompt=prompt, adapters=(), model="a: b, c")
    read_prompt, negative, values = parse_a1111(a1111_text(settings))
    assert (read_prompt, negative) == (prompt.strip(), settings.negative)
    assert values["Seed"] == "42"
    assert values["Model"] == "a: b, c"
    assert values["Size"] == "64x96"


def test_latin1_text_is_a_plain_chunk_and_other_text_an_international_one(tmp_path: Path) -> None:
    latin = save_picture(picture(dataclasses.replace(SETTINGS, prompt="Hündchen")), tmp_path / "a.png")
    other = save_picture(picture(dataclasses.replace(SETTINGS, prompt="собака")), tmp_path / "b.png")
    assert chunks(latin)["parameters"].startswith(b"tEXt|")
    assert chunks(other)["parameters"].startswith(b"iTXt|")
    assert "собака".encode() in chunks(other)["parameters"]


def test_a_picture_of_a1111_is_read(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nNegative prompt: dog\nSteps: 5, Sampler: DDIM, Seed: 7, Size: 8x8, Model: x")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    found = read_picture(tmp_path / "x.png")
    assert (found.prompt, found.negative, found.settings) == ("a cat", "dog", None)
    assert found.parameters == {"Steps": "5", "Sampler": "DDIM", "Seed": "7", "Size": "8x8", "Model": "x"}


def test_a_picture_without_text_has_no_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "x.png")
    found = read_picture(tmp_path / "x.png")
    assert (found.width, found.height, found.settings, found.prompt, found.parameters) == (8, 4, None, None, {})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({**dataclasses.asdict(SETTINGS), "seed": "many"}),
        json.dumps({**dataclasses.asdict(SETTINGS), "steps": True}),
        json.dumps({**dataclasses.asdict(SETTINGS), "adapters": [5]}),
        "[" * 100_000,
    ],
)
def test_a_hostile_text_is_an_error_and_not_a_recipe(tmp_path: Path, text: str) -> None:
    info = PngInfo()
    info.add_text("limner", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(UserError, match="damaged"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_png_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UserError, match="cannot be read as PNG"):
        read_picture(tmp_path / "x.png")


def test_numbered_names_go_on_and_nothing_is_overwritten(tmp_path: Path) -> None:
    first = save_numbered(picture(), tmp_path / "out")
    (tmp_path / "out" / "0007_mine.txt").write_text("mine")
    second = save_numbered(picture(), tmp_path / "out")
    third = save_numbered(picture(dataclasses.replace(SETTINGS, prompt="../../etc/passwd: ein Hündchen? 狗")), tmp_path)
    assert first.name == "0001_seed42_a-red-dog-on-grass.png"
    assert second.name == "0008_seed42_a-red-dog-on-grass.png"
    assert third.name == "0001_seed42_etc-passwd-ein-hündchen-狗.png"
    assert third.parent == tmp_path
    assert (tmp_path / "out" / "0007_mine.txt").read_text() == "mine"


@pytest.mark.parametrize("prompt", ["", "!!!", "狗" * 500])
def test_every_prompt_gives_a_usable_name(tmp_path: Path, prompt: str) -> None:
    saved = save_numbered(picture(dataclasses.replace(SETTINGS, prompt=prompt)), tmp_path)
    assert saved.is_file()
    assert len(saved.name.encode()) < 120

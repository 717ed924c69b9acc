"""Masks go to the right pictures and cover the right part of them, or the check stops and says why."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from limner.core.errors import UserError
from limner.data.buckets import ImageConfig, Placement, place, placements
from limner.data.captions_file import CaptionsFile
from limner.data.dreambooth import DreamBooth
from limner.data.example import BytesImage, Example, Reading
from limner.data.flickr import Flickr8k
from limner.data.folder import Folder
from limner.data.image import to_pixels
from limner.data.ledger import Ledger, survey
from limner.data.masks import Masks, area_average, with_masks
from limner.data.table import Table

SMALL = ImageConfig(resolution=64, bucket_step=16)
FILES = Masks(source="files")
ALPHA = Masks(source="alpha")


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def picture(size: tuple[int, int] = (96, 64), seed: int = 0) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    """Returns a mask that is ``value`` in the box (left, top, right, bottom), else black."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=value)
    return mask


def folder(path: Path, **masks: Image.Image | bytes | None) -> Path:
    """Writes a captioned picture of 96 x 64 for each name and its mask beside it; a pair of lines is its caption."""
    path.mkdir(exist_ok=True)
    for seed, (name, mask) in enumerate(masks.items()):
        picture(seed=seed).save(path / f"{name}.png")
        (path / f"{name}.txt").write_text("a thing")
        if mask is not None:
            (path / f"{name}.mask.png").write_bytes(mask if isinstance(mask, bytes) else encoded(mask))
    return path


def check(path: Path, masks: Masks | None = FILES, images: ImageConfig = SMALL) -> Ledger:
    reading = with_masks(Folder(path=path).read(), masks)
    return survey(reading, images, count_tokens=None, token_limit=77, cache=None, masks=masks)


def weights(mask: Image.Image, placement: Placement, size: tuple[int, int], masks: Masks = FILES) -> torch.Tensor:
    return masks.weigh(masks.latent_mask(encoded(mask), placement, size, SMALL))


WHOLE = box_mask((96, 64), (0, 0, 96, 64))
MIDDLE = box_mask((96, 64), (32, 16, 64, 48))


# -------------------------------------------------------------------------------------------------------- pixels
def overlap(a: float, b: float, pixel: int) -> float:
    return max(0.0, min(b, pixel + 1) - max(a, pixel))


@pytest.mark.parametrize(
    "placement",
    [
        Placement((40, 24), (0, 0, 40, 24), False),
        Placement((64, 38), (5, 3, 48, 32), False),
        Placement((17, 10), (3, 0, 12, 8), True),
        Placement((400, 240), (160, 80, 32, 32), False),  # every latent is a part of a pixel
    ],
)
def test_a_latent_gets_the_mean_over_its_own_area_by_a_plain_sum_over_pixels(placement: Placement) -> None:
    values = np.random.default_rng(1).integers(0, 256, (24, 40), dtype=np.uint8)
    left, top, width, height = placement.crop
    x, y = 40 / placement.resize[0], 24 / placement.resize[1]
    found = area_average(Image.fromarray(values), placement, (4, 6))
    for row, column in itertools.product(range(4), range(6)):
        ends_y = [(top + height * (row + end) / 4) * y for end in (0, 1)]
        ends_x = [(left + width * (column + end) / 6) * x for end in (0, 1)]
        total = sum(
            float(values[j, i]) * overlap(*ends_y, j) * overlap(*ends_x, i)
            for j, i in itertools.product(range(24), range(40))
        )
        area = (ends_y[1] - ends_y[0]) * (ends_x[1] - ends_x[0])
        assert found[row, 5 - column if placement.flip else column] == pytest.approx(total / area / 255, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_is_placed_as_the_picture_is(seed: int) -> None:
    rng = random.Random(seed)
    size, bucket = (rng.randrange(100, 400), rng.randrange(100, 400)), (96, 64)
    shape = picture(size, seed).convert("L")
    placement = place(size, bucket, crop="random", flip=True, rng=rng)
    pixels = to_pixels(shape.convert("RGB"), placement)[:1] / 2 + 0.5
    seen = torch.nn.functional.avg_pool2d(pixels, 8)[0]
    found = torch.from_numpy(area_average(shape, placement, (8, 12)))
    assert float((found - seen).abs().max()) < 0.03
    turned = Placement(placement.resize, placement.crop, not placement.flip)
    assert float((torch.from_numpy(area_average(shape, turned, (8, 12))) - seen).abs().max()) > 0.1


def test_white_weighs_exactly_one_and_black_exactly_the_outside() -> None:
    for size, bucket in (((97, 61), (96, 64)), ((1000, 333), (64, 64)), ((20, 31), (48, 80))):
        for outside in (0.0, 0.1, 0.7):
            masks = Masks(source="files", outside=outside)
            placement = place(size, bucket, crop="random", flip=True, rng=random.Random(1))
            for value, expected in ((255, 1.0), (0, outside)):
                found = weights(Image.new("L", size, value), placement, (bucket[1] // 8, bucket[0] // 8), masks)
                assert torch.equal(found, torch.full((1, bucket[1] // 8, bucket[0] // 8), expected))


def test_grey_lies_between_outside_and_one() -> None:
    placement = Placement((64, 64), (0, 0, 64, 64), False)
    found = weights(Image.new("L", (64, 64), 51), placement, (8, 8), Masks(source="files", outside=0.5))
    torch.testing.assert_close(found, torch.full((1, 8, 8), 0.6))


def test_transparent_parts_of_a_mask_are_outside_whatever_their_colour() -> None:
    mask = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 32, 64))
    found = weights(mask, Placement((64, 64), (0, 0, 64, 64), False), (8, 8), Masks(source="files", outside=0))
    assert torch.equal(found[0, :, :4], torch.ones(8, 4))
    assert torch.equal(found[0, :, 4:], torch.zeros(8, 4))


def test_every_placement_is_one_of_those_that_the_check_looks_at() -> None:
    for size, bucket in (((300, 100), (64, 64)), ((64, 64), (64, 64)), ((100, 333), (48, 80))):
        for crop in ("center", "random"):
            drawn = {
                place(size, bucket, crop=crop, flip=False, rng=random.Random(seed))  # type: ignore[arg-type]
                for seed in range(600)
            }
            assert drawn == set(placements(size, bucket, crop=crop))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- finding
def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(MIDDLE if "mask" in name.lower() else picture()))
    return root


def found(reading: Reading) -> dict[str, bytes]:
    return {example.id: example.mask.read() for example in reading.examples if example.mask is not None}


def layout(kind: str, root: Path) -> tuple[Any, str]:
    """Returns a data set of one picture ``a`` with a mask, and the picture's id."""
    if kind == "dreambooth":
        return DreamBooth(path=put(root, "a.png", "a.mask.png"), class_noun="dog"), "instance/a.png"
    if kind == "flickr8k":
        put(root / "Images", "a.png", "a-masklabel.png")
        (root / "captions.txt").write_text('image,caption\na.png,"a dog ."\n')
        return Flickr8k(path=root), "a.png"
    if kind == "table":
        put(root, "in/a.png", "in/a.mask.png")
        (root / "metadata.csv").write_text("file_name,text\nin/a.png,a dog\n")
        return Table(path=root), "in/a.png"
    put(root, "a.png", "a.MASK.PNG")
    (root / ("captions.txt" if kind == "captions_file" else "a.txt")).write_text("a dog\n")
    return (CaptionsFile(path=root) if kind == "captions_file" else Folder(path=root)), "a.png"


@pytest.mark.parametrize("kind", ["folder", "captions_file", "dreambooth", "flickr8k", "table"])
def test_each_layout_of_files_has_masks_beside_its_pictures_and_never_trains_on_them(tmp_path: Path, kind: str) -> None:
    dataset, id = layout(kind, tmp_path / "data")
    with_files = with_masks(dataset.read(), FILES)
    assert found(with_files) == {id: encoded(MIDDLE)}
    assert [example.id for example in with_files.examples] == [id]
    assert not [row for row in with_files.left_out if "mask" in row.id.lower()]
    without = with_masks(dataset.read(), None)
    assert [example.id for example in without.examples] == [id]
    assert [row.reason for row in without.left_out if "mask" in row.id.lower()] == ["a mask by its name"]


@pytest.mark.parametrize(("masks", "why"), [(None, "masks is not set"), (ALPHA, r"masks\.source is alpha")])
def test_masks_that_nothing_uses_are_said(tmp_path: Path, masks: Masks | None, why: str) -> None:
    folder(tmp_path, a=MIDDLE, b=WHOLE)
    (note,) = with_masks(Folder(path=tmp_path).read(), masks).notes
    assert note.startswith("2 files left out that look like masks (a.mask.png, b.mask.png): " + why.replace("\\", ""))
    assert with_masks(Folder(path=folder(tmp_path / "none", a=None)).read(), masks).notes == ()


def test_two_masks_for_a_picture_and_two_pictures_for_a_mask_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "one", a=MIDDLE)
    (tmp_path / "one" / "a-masklabel.png").write_bytes(encoded(MIDDLE))
    with pytest.raises(UserError, match=r"'a\.png' has two masks: a-masklabel\.png and a\.mask\.png"):
        check(tmp_path / "one")
    two = put(tmp_path / "two", "a.png", "a.jpg", "a.mask.png")
    with pytest.raises(UserError, match=r"'a\.mask\.png' stands beside two pictures of that name, a\.jpg and a\.png"):
        with_masks(Folder(path=two, caption="a thing").read(), FILES)


def test_masks_without_a_picture_and_masks_that_are_no_png_are_said(tmp_path: Path) -> None:
    folder(tmp_path, a=MIDDLE)
    (tmp_path / "gone.mask.png").write_bytes(encoded(MIDDLE))
    (tmp_path / "a.mask.jpg").write_bytes(b"")
    reading = with_masks(Folder(path=tmp_path).read(), FILES)
    assert {row.id: row.reason for row in reading.left_out} == {
        "a.mask.jpg": "a mask by its name, but not a PNG file",
        "gone.mask.png": "a mask without a picture of the same name that is used",
    }
    assert reading.notes == ("2 masks not used (a.mask.jpg: a mask by its name, but not a PNG file).",)


def test_a_mask_that_is_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", a=None)
    (tmp_path / "elsewhere.png").write_bytes(encoded(MIDDLE))
    (data / "a.mask.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UserError, match=r"1 of 1 picture without a mask: a\.png"):
        check(data)


def test_a_folder_of_nothing_but_masks_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no images.*masks by their names: a\.mask\.png"):
        Folder(path=put(tmp_path, "a.mask.png")).read()


def test_pictures_inside_other_files_cannot_have_masks_beside_them() -> None:
    reading = Reading("pictures in parquet files", (Example("x#0", BytesImage(encoded(picture())), ("a",)),))
    with pytest.raises(UserError, match=r"masks\.source: 'files' needs a file for each picture.*parquet"):
        with_masks(reading, FILES)


# ------------------------------------------------------------------------------------------------------ checking
def other_size() -> bytes:
    return encoded(MIDDLE.resize((48, 32)))


BAD: dict[str, tuple[bytes, str]] = {
    "damaged": (encoded(MIDDLE)[:-30], "a.png: its mask is damaged"),
    "no picture": (b"nothing", "a.png: its mask is no picture that can be read"),
    "another size": (other_size(), "a.png: its mask has another size: it is 48 x 32, the picture 96 x 64"),
    "coloured": (encoded(picture()), "a.png: its mask is coloured"),
    "black": (encoded(Image.new("L", (96, 64))), "a.png: its mask has nothing inside"),
    "nearly black": (encoded(Image.new("L", (96, 64), 100)), "a.png: its mask has nothing inside"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_a_mask_that_cannot_be_used_is_an_error_that_names_its_picture(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(folder(tmp_path, a=data, b=MIDDLE), Masks(source="files", missing="whole"))
    assert said in str(caught.value)
    assert "1 of 2 pictures" in str(caught.value)


def test_a_mask_is_compared_with_the_upright_picture(tmp_path: Path) -> None:
    folder(tmp_path, a=MIDDLE)
    lying = Image.Exif()
    lying[274] = 6
    picture().save(tmp_path / "a.png", exif=lying)
    with pytest.raises(UserError, match="it is 96 x 64, the picture 64 x 96 when upright"):
        check(tmp_path)
    (tmp_path / "a.mask.png").write_bytes(encoded(MIDDLE, exif=lying))
    assert check(tmp_path).prepared[0].size == (64, 96)


def test_a_crop_that_sees_nothing_of_the_mask_is_an_error_before_training(tmp_path: Path) -> None:
    squares = {"resolution": 64, "buckets": False}
    folder(tmp_path, a=box_mask((96, 64), (0, 0, 12, 64)))  # left of the middle square, which begins at 16
    with pytest.raises(UserError, match=r"a\.png: its mask has nothing inside: nothing of the part that is seen"):
        check(tmp_path, images=ImageConfig(**squares))
    with pytest.raises(UserError, match=r"3 of 5 that images\.crop: random may draw"):  # they begin at 0, 8, 16, 24, 32
        check(tmp_path, images=ImageConfig(crop="random", **squares))
    folder(tmp_path, a=MIDDLE)
    assert check(tmp_path, images=ImageConfig(crop="random", **squares)).prepared[0].mask is not None


def test_a_picture_without_a_mask_stops_or_counts_whole_but_some_mask_there_must_be(tmp_path: Path) -> None:
    folder(tmp_path, a=MIDDLE, b=None, c=WHOLE)
    with pytest.raises(UserError, match=r"masks\.missing: 1 of 3 pictures without a mask: b\.png\. Looked for"):
        check(tmp_path)
    whole = Masks(source="files", missing="whole")
    assert [one.mask is None for one in check(tmp_path, whole).prepared] == [False, True, False]
    with pytest.raises(UserError, match=r"masks\.source: 1 of 1 picture without a mask"):
        check(folder(tmp_path / "none", a=None), whole)


def test_alpha_is_a_mask_and_pictures_without_it_have_none(tmp_path: Path) -> None:
    folder(tmp_path, a=None, b=None)
    cut_out = picture()
    cut_out.putalpha(MIDDLE)
    cut_out.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"1 of 2 pictures without a mask: b\.png\. They have no alpha channel"):
        check(tmp_path, ALPHA)
    first, second = check(tmp_path, Masks(source="alpha", missing="whole")).prepared
    assert (first.mask is not None, second.mask) == (True, None)
    assert first.mask is not None
    assert first.mask.inside == pytest.approx(32 * 32 / (96 * 64))
    placement = Placement((96, 64), (0, 0, 96, 64), False)
    assert torch.equal(
        ALPHA.latent_mask(first.mask.source.read(), placement, (8, 12), SMALL),
        FILES.latent_mask(encoded(MIDDLE), placement, (8, 12), SMALL),
    )


def test_the_ledger_tells_how_much_is_inside(tmp_path: Path) -> None:
    ledger = check(
        folder(tmp_path, a=MIDDLE, b=WHOLE, c=box_mask((96, 64), (40, 24, 48, 40)), d=None),
        Masks(source="files", missing="whole"),
    )
    assert [row.inside for row in ledger.rows if row.used] == [0.1667, 1.0, 0.0208, None]
    said = dict(ledger.summary())["masks"]
    assert said == "3: 16.7% of the picture is inside (median), 2.1% of c.png; 1 without a mask count whole"
    assert "masks" not in dict(check(tmp_path, None).summary())


def plain_manifest(ledger: Ledger, extra: Sequence[list[str]]) -> str:
    """The manifest as it was before there were masks, with ``extra`` at the end of each line."""
    lines = [
        json.dumps([one.example.id, one.sha256, list(one.example.captions), 1.0, 1, "instance", *more]) + "\n"
        for one, more in zip(ledger.prepared, extra, strict=True)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_manifest_holds_the_bytes_of_masks_and_is_what_it_was_without(tmp_path: Path) -> None:
    folder(tmp_path, a=MIDDLE, b=None)
    whole = Masks(source="files", missing="whole")
    ledger = check(tmp_path, whole)
    assert ledger.manifest == plain_manifest(ledger, [[hashlib.sha256(encoded(MIDDLE)).hexdigest()], []])
    without = check(tmp_path, None)
    assert without.manifest == plain_manifest(without, [[], []])
    (tmp_path / "a.mask.png").write_bytes(encoded(MIDDLE, compress_level=0))
    assert check(tmp_path, whole).manifest != ledger.manifest
    assert check(tmp_path, None).manifest == without.manifest

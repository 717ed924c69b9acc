"""Copies are found, different pictures are not taken for copies, and fifty thousand pictures take seconds."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from limner.data.duplicates import NEAR_DISTANCE, Signature, near_groups, signature


def scene(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    """Returns a smooth picture with some ten patches, different for every seed."""
    patches = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, part: float) -> Image.Image:
    x, y = round(image.width * part), round(image.height * part)
    return image.crop((x // 2, y // 2, image.width - (x - x // 2), image.height - (y - y // 2)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "poor quality": lambda image: jpeg(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "squeezed": lambda image: image.resize((100, 100), Image.Resampling.LANCZOS),
    "brighter": lambda image: image.point(lambda level: min(255, round(level * 1.1))),
    "a sliver cut off": lambda image: cropped(image, 0.02),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_among_other_pictures(kind: str) -> None:
    pictures = [scene(seed) for seed in range(20)]
    groups = near_groups([signature(image) for image in (*pictures, *map(COPIES[kind], pictures))])
    assert groups == [*range(20), *range(20)]


def test_different_pictures_have_no_group() -> None:
    assert near_groups([signature(scene(seed)) for seed in range(100)]) == [None] * 100


def test_the_hash_says_where_a_picture_gets_brighter_to_the_right() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 3, dtype=np.uint8), (64, 1))).convert("RGB")
    assert signature(ramp).dhash == 2**64 - 1
    assert signature(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).dhash == 0
    half = ramp.copy()
    half.paste((0, 0, 0), (0, 40, half.width, 64))
    assert signature(half).dhash >> 32 == 0xFFFFFFFF
    assert signature(half).dhash & 0xFFFF == 0


def test_plain_pictures_are_near_to_none() -> None:
    plain = [Image.new("RGB", (50, 40), (level, level, level)) for level in (0, 127, 128, 255, 255)]
    noisy = [jpeg(Image.new("RGB", (50, 40), "white"), quality) for quality in (20, 90)]
    groups = near_groups([signature(image) for image in (*plain, *noisy)])
    assert groups == [None] * 7


def gradient(start: tuple[int, ...], end: tuple[int, ...]) -> Image.Image:
    steps = np.linspace(start, end, 100).astype(np.uint8)
    return Image.fromarray(np.tile(steps, (60, 1, 1)))


def test_gradients_of_other_strength_or_colour_are_different_although_their_hashes_agree() -> None:
    images = [
        gradient((0, 0, 0), (255, 255, 255)),
        gradient((0, 0, 0), (255, 0, 0)),
        gradient((0, 0, 0), (0, 255, 0)),
        gradient((100, 100, 100), (140, 140, 140)),
        gradient((255, 255, 255), (0, 0, 0)),
    ]
    signatures = [signature(image) for image in images]
    assert len({one.dhash for one in signatures[:4]}) == 1
    assert near_groups(signatures) == [None] * 5
    assert near_groups([signatures[1], signature(jpeg(images[1], 40))]) == [0, 0]


def drawing(seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        pen.line([(rng.randrange(40, 216), rng.randrange(40, 216)) for _ in range(3)], fill="black", width=6)
    return image


def test_drawings_on_white_are_told_apart() -> None:
    drawings = [drawing(seed) for seed in range(200)]
    signatures = [signature(image) for image in drawings]
    hashes = np.array([one.dhash for one in signatures], dtype=np.uint64)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR_DISTANCE
    assert near.sum() - 200 > 100  # by their hashes alone many would be equal
    assert near_groups(signatures) == [None] * 200
    assert near_groups([signatures[0], signatures[1], signature(jpeg(drawings[0], 40))]) == [0, None, 0]


def test_groups_are_the_connected_pairs_of_a_comparison_of_all_with_all() -> None:
    rng = random.Random(0)
    thumbnails = [bytes(rng.randrange(256) for _ in range(192)) for _ in range(6)]
    centres = [rng.getrandbits(64) for _ in range(40)]
    signatures = []
    for _ in range(400):
        dhash = rng.choice(centres)
        for bit in rng.sample(range(64), rng.randrange(9)):
            dhash ^= 1 << bit
        signatures.append(Signature(dhash, rng.choice(thumbnails)))

    group = list(range(400))
    for a in range(400):
        for b in range(a):
            one, other = signatures[a], signatures[b]
            if (one.dhash ^ other.dhash).bit_count() <= NEAR_DISTANCE and one.thumbnail == other.thumbnail:
                old, new = group[a], group[b]
                group = [new if item == old else item for item in group]
    wanted = {frozenset(i for i in range(400) if group[i] == label) for label in set(group)}
    found = near_groups(signatures)
    assert {frozenset(i for i in range(400) if found[i] == label) for label in set(found) - {None}} == {
        members for members in wanted if len(members) > 1
    }
    assert all(found[i] is None for members in wanted if len(members) == 1 for i in members)


def test_ten_bits_are_near_wherever_they_stand_and_eleven_are_not() -> None:
    rng = random.Random(0)
    thumbnail = bytes(rng.randrange(256) for _ in range(192))
    for _ in range(300):
        dhash = rng.getrandbits(64)
        other = further = dhash
        for number, bit in enumerate(rng.sample(range(64), NEAR_DISTANCE + 1)):
            further ^= 1 << bit
            other ^= (1 << bit) * (number < NEAR_DISTANCE)
        assert near_groups([Signature(dhash, thumbnail), Signature(other, thumbnail)]) == [0, 0]
        assert near_groups([Signature(dhash, thumbnail), Signature(further, thumbnail)]) == [None, None]


@pytest.mark.parametrize("band", range(NEAR_DISTANCE + 1))
def test_hashes_that_agree_in_one_band_only_are_found(band: int) -> None:
    starts = [round(64 * number / (NEAR_DISTANCE + 1)) for number in range(NEAR_DISTANCE + 1)]
    other = sum(1 << start for start in starts if start != starts[band])
    thumbnail = bytes(range(192))
    assert near_groups([Signature(0, thumbnail), Signature(other, thumbnail)]) == [0, 0]


def test_groups_are_numbered_in_the_order_of_their_first_picture() -> None:
    one, two, three = (signature(scene(seed)) for seed in range(3))
    assert near_groups([three, two, one, two, three]) == [0, 1, None, 1, 0]
    assert near_groups([]) == []


def test_many_pictures_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 10_000, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (10_000, 192), dtype=np.uint8)
    signatures = [Signature(int(one), two.tobytes()) for one, two in zip(hashes, thumbnails, strict=True)]
    start = time.process_time()
    assert set(near_groups(signatures)) == {None}
    assert time.process_time() - start < 5


def test_many_pictures_that_all_look_alike_take_seconds() -> None:
    rng = random.Random(0)
    thumbnail = bytes(rng.randrange(256) for _ in range(192))
    signatures = [Signature(1 << rng.randrange(64), thumbnail) for _ in range(1500)]
    start = time.process_time()
    assert set(near_groups(signatures)) == {0}
    assert time.process_time() - start < 5


def test_copies_of_real_photos_are_found_and_no_two_photos_taken_for_one(data_root: Path) -> None:
    names = [
        *sorted(data_root.glob("flickr8k/Images/*.jpg"))[::4],
        *sorted(data_root.glob("flickr8k/Images_224/*.jpg"))[::6],
        *sorted(data_root.glob("flickr30k/flickr30k_images/*.jpg"))[::4],
    ]
    photos = [Image.open(name).convert("RGB") for name in names]
    signatures = [signature(photo) for photo in photos]
    assert len(photos) > 500
    assert near_groups(signatures) == [None] * len(photos)
    for copy in COPIES.values():
        copies = [signature(copy(photo)) for photo in photos[::8]]
        found = [near_groups([a, b])[0] is not None for a, b in zip(signatures[::8], copies, strict=True)]
        assert sum(found) >= 0.97 * len(found)

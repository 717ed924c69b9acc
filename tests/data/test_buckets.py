"""Buckets are symmetric and of about one area; a placement covers its bucket and says what it cuts off."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.core.config import validate
from limner.core.errors import ConfigError
from limner.data.buckets import (
    CROP_GRID,
    ImageConfig,
    Placement,
    always_seen,
    bucket_sizes,
    covering_size,
    enlargement,
    nearest_bucket,
    place,
)

sides = st.integers(min_value=1, max_value=30_000)
sizes = st.tuples(sides, sides)
configs = st.builds(
    lambda step, times, aspect: ImageConfig(resolution=step * times, bucket_step=step, max_aspect=aspect),
    st.sampled_from([8, 16, 32, 64]),
    st.integers(min_value=1, max_value=20),
    st.floats(min_value=1, max_value=16),
)


def middle(size: tuple[int, int], bucket: tuple[int, int]) -> Placement:
    return place(size, bucket, crop="center", flip=False, rng=random.Random(0))


# -------------------------------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resolution": 500}, "resolution 500 is not a multiple of bucket_step 64. Set resolution to 512"),
        ({"resolution": 480}, "Set resolution to 512, or bucket_step to 32, or buckets to false"),
        ({"resolution": 512, "bucket_step": 12}, "bucket_step 12 is not a multiple of 8"),
        ({"background": "white"}, "'white' is no colour. Write it as '#rrggbb'"),
        ({"background": "#fff"}, "is no colour"),
        ({"max_aspect": 0.5}, "max_aspect"),
        ({"max_aspect": float("nan")}, "max_aspect"),
        ({"max_pixels": 10**9}, "max_pixels"),
        ({"crop": "centre"}, "Did you mean 'center'?"),
        ({"bad_files": "skip"}, "bad_files"),
        ({"resolutoin": 512}, "Did you mean 'resolution'?"),
    ],
)
def test_a_wrong_choice_is_named_with_the_remedy(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(ImageConfig, values, where="recipe.yaml")
    assert words in str(caught.value)


def test_without_buckets_any_resolution_will_do_and_everything_is_square() -> None:
    assert bucket_sizes(ImageConfig(resolution=500, buckets=False)) == ((500, 500),)


def test_the_background_is_read_as_three_numbers() -> None:
    assert ImageConfig(background="#FF8000").background_rgb == (255, 128, 0)
    assert ImageConfig(background="#FF8000") == ImageConfig(background="#ff8000")


# ------------------------------------------------------------------------------------------------------- buckets
def test_the_buckets_of_1024_are_those_that_sdxl_was_trained_on() -> None:
    table = {(1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216), (1344, 768), (768, 1344)}
    assert table <= set(bucket_sizes(ImageConfig(resolution=1024)))


@given(configs)
def test_buckets_are_multiples_of_the_step_of_the_area_of_the_square_and_symmetric(config: ImageConfig) -> None:
    buckets = bucket_sizes(config)
    assert (config.resolution, config.resolution) in buckets
    assert len(set(buckets)) == len(buckets)
    for width, height in buckets:
        assert width % config.bucket_step == height % config.bucket_step == 0
        assert width * height <= config.resolution**2
        assert (width + config.bucket_step) * height > config.resolution**2
        assert max(width, height) <= config.max_aspect * min(width, height)
        assert (height, width) in buckets


def test_no_fitting_shape_is_missing() -> None:
    config = ImageConfig(resolution=128, bucket_step=16, max_aspect=3)
    steps = range(16, 1024, 16)
    fitting = {(w, h) for w in steps for h in steps if w * h <= 128**2 and max(w, h) <= 3 * min(w, h)}
    full = {(w, h) for w, h in fitting if (w + 16) * h > 128**2 and w * (h + 16) > 128**2}
    assert set(bucket_sizes(config)) == full


@given(sizes, configs)
def test_a_picture_goes_to_the_nearest_aspect_and_a_turned_one_to_the_turned_bucket(
    size: tuple[int, int], config: ImageConfig
) -> None:
    buckets = bucket_sizes(config)
    width, height = nearest_bucket(size, buckets)
    best = min(abs(math.log(size[0] / size[1]) - math.log(w / h)) for w, h in buckets)
    assert abs(math.log(size[0] / size[1]) - math.log(width / height)) == pytest.approx(best, abs=1e-12)
    assert nearest_bucket(size[::-1], buckets) == (height, width)
    assert nearest_bucket(size, buckets[::-1]) == (width, height)


def test_of_two_equally_near_buckets_the_one_closer_to_the_square_is_taken() -> None:
    assert nearest_bucket((2, 1), ((64, 64), (128, 32))) == (64, 64)
    assert nearest_bucket((1, 2), ((64, 64), (32, 128))) == (64, 64)


# ---------------------------------------------------------------------------------------------------- placements
@given(sizes, configs, st.sampled_from(["center", "random"]), st.booleans(), st.integers(0, 1000))
def test_a_crop_lies_inside_covers_the_bucket_and_distorts_by_less_than_a_pixel(
    size: tuple[int, int], config: ImageConfig, crop: Any, flip: bool, seed: int
) -> None:
    bucket = nearest_bucket(size, bucket_sizes(config))
    placement = place(size, bucket, crop=crop, flip=flip, rng=random.Random(seed))
    left, top, width, height = placement.crop
    assert (width, height) == bucket
    assert 0 <= left <= placement.resize[0] - width
    assert 0 <= top <= placement.resize[1] - height
    scale = enlargement(size, bucket)
    assert abs(placement.resize[0] - size[0] * scale) < 1
    assert abs(placement.resize[1] - size[1] * scale) < 1
    assert width == placement.resize[0] or height == placement.resize[1]
    assert 0 <= placement.cut_off < 1


def test_the_middle_is_the_middle() -> None:
    placement = middle((200, 100), (64, 64))
    assert placement == Placement(resize=(128, 64), crop=(32, 0, 64, 64), flip=False)
    assert placement.cut_off == 0.5
    assert middle((203, 100), (64, 64)).crop[:2] == (33, 0)


def test_a_picture_smaller_than_its_bucket_is_enlarged_and_that_is_told() -> None:
    assert enlargement((100, 100), (512, 512)) == 5.12
    assert enlargement((1024, 1024), (512, 512)) == 0.5
    assert covering_size((100, 50), (512, 512)) == (1024, 512)


def test_random_crops_reach_both_ends_and_lie_on_a_grid() -> None:
    offsets = {
        place((200, 100), (64, 64), crop="random", flip=False, rng=random.Random(seed)).crop[0] for seed in range(500)
    }
    assert offsets == set(range(0, 65, CROP_GRID))
    assert {place((101, 100), (64, 64), crop="random", flip=False, rng=random.Random(s)).crop for s in range(50)} == {
        (0, 0, 64, 64)
    }


def test_a_slack_that_is_no_multiple_of_the_grid_is_shared_between_both_ends() -> None:
    lefts = {place((84, 64), (64, 64), crop="random", flip=False, rng=random.Random(s)).crop[0] for s in range(100)}
    assert lefts == {2, 10, 18}


def test_half_of_the_visits_are_flipped_and_flips_move_no_crop() -> None:
    straight = [place((200, 100), (64, 64), crop="random", flip=False, rng=random.Random(s)) for s in range(400)]
    flipped = [place((200, 100), (64, 64), crop="random", flip=True, rng=random.Random(s)) for s in range(400)]
    assert [one.crop for one in straight] == [one.crop for one in flipped]
    assert not any(one.flip for one in straight)
    assert 150 < sum(one.flip for one in flipped) < 250


def test_random_crops_move_no_flip() -> None:
    centred = [place((200, 100), (64, 64), crop="center", flip=True, rng=random.Random(s)).flip for s in range(50)]
    moved = [place((200, 100), (64, 64), crop="random", flip=True, rng=random.Random(s)).flip for s in range(50)]
    assert centred == moved


@given(
    st.tuples(st.integers(40, 300), st.integers(40, 300)),
    st.sampled_from([(32, 32), (48, 24), (24, 40)]),
    st.sampled_from(["center", "random"]),
)
def test_what_every_visit_sees_is_the_common_part_of_all_crops(
    size: tuple[int, int], bucket: tuple[int, int], crop: Any
) -> None:
    boxes = [place(size, bucket, crop=crop, flip=False, rng=random.Random(seed)).crop for seed in range(300)]
    left, top = max(box[0] for box in boxes), max(box[1] for box in boxes)
    right, bottom = min(box[0] + box[2] for box in boxes), min(box[1] + box[3] for box in boxes)
    assert always_seen(size, bucket, crop) == (left, top, max(0, right - left), max(0, bottom - top))

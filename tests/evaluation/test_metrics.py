"""Zero-shot, linear probe and retrieval on a small dual encoder: against plain loops, and what they must not mind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from limner.core.errors import UserError
from limner.core.rng import tensor_stream
from limner.evaluation.features import embed_captions, embed_pictures, pool_pictures
from limner.evaluation.linear_probe import LinearProbe, fit, held_out_fifth
from limner.evaluation.measurement import compare, from_dict
from limner.evaluation.retrieval import Retrieval
from limner.evaluation.zero_shot import ZeroShot, ensemble
from limner.models.clip import Clip, ClipModel
from tests.tiny import save_tiny_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue_sky": (40, 60, 220)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    return Clip(path=str(save_tiny_clip(tmp_path_factory.mktemp("clip") / "model"))).load()


def draw(folder: Path, *, count: int, seed: int, captions: bool = False) -> Path:
    """Writes a folder of noisy pictures for each colour."""
    rng = numpy.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-25, 26, (40, 32, 3))
            pixels = numpy.clip(numpy.array(colour) + noise, 0, 255).astype(numpy.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
            if captions:
                words = [f"a {name} circle {number}", f"the {name} square"]
                (folder / name / f"{number}.txt").write_text("\n".join(words))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("pictures"), count=4, seed=0)


def zero_shot(path: Path, **changes: object) -> ZeroShot:
    dataset = {"kind": "folder", "path": path, "uncaptioned": "empty"}
    return ZeroShot.model_validate({"dataset": dataset, **changes})


def probe(path: Path, train: Path, **changes: object) -> LinearProbe:
    sets = [{"kind": "folder", "path": one, "uncaptioned": "empty"} for one in (path, train)]
    return LinearProbe.model_validate({"dataset": sets[0], "train": sets[1], **changes})


def retrieval(path: Path, **changes: object) -> Retrieval:
    dataset = {"kind": "folder", "path": path, "caption_lines": "each"}
    return Retrieval.model_validate({"dataset": dataset, **changes})


# ------------------------------------------------------------------------------------------------------------ features
def test_a_picture_is_prepared_as_transformers_does(model: ClipModel) -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (75, 50, 3), dtype=numpy.uint8)
    picture = Image.fromarray(pixels)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_normalize=False
    )
    expected = torch.as_tensor(numpy.asarray(processor(picture)["pixel_values"][0])) * 2 - 1
    torch.testing.assert_close(model.prepare(picture), expected.float(), rtol=0, atol=1e-5)


def test_pooled_features_are_what_the_projection_reads(model: ClipModel, pictures: Path) -> None:
    shown = zero_shot(pictures).survey().pictures
    pooled, embedded = pool_pictures(model, shown), embed_pictures(model, shown)
    again = functional.normalize(model.network.visual_projection(pooled), dim=-1)
    torch.testing.assert_close(again.detach(), embedded)
    assert not model.network.visual_projection._forward_pre_hooks


# ----------------------------------------------------------------------------------------------------------- zero shot
def test_zero_shot_is_that_of_a_plain_loop(model: ClipModel, pictures: Path) -> None:
    templates = ("a photo of {article} {label}", "the {label} painting", "{label}")
    metric = zero_shot(pictures, templates=templates)
    measured = metric.measure(model)
    centres = {}
    for name in sorted(COLOURS):
        word = name.replace("_", " ")
        texts = [f"a photo of a {word}", f"the {word} painting", word]
        units = [model.embed_prompts([text])[0].detach() for text in texts]
        mean = sum(units) / 3
        centres[name] = mean / mean.norm()
    right = []
    for shown in metric.survey().pictures:
        image = model.embed_images(model.prepare(Image.open(pictures / shown.id))[None])[0].detach()
        guess = max(centres, key=lambda name: float(image @ centres[name]))
        right.append(float(guess == shown.label))
    assert measured.numbers[0].outcomes == tuple(right)
    assert measured.numbers[0].value == pytest.approx(sum(right) / 12)
    assert len(measured.numbers) == 1  # three classes have no top-5
    confusion = measured.details["confusion"]
    assert [rank == 1 for rank in measured.raw["ranks"]] == [bool(one) for one in right]
    assert sum(map(sum, confusion)) == 12
    assert sum(confusion[place][place] for place in range(3)) == sum(right)
    assert measured.details["per_class"]["red"]["pictures"] == 4


def test_an_ensemble_is_not_the_embedding_of_the_first_template(model: ClipModel) -> None:
    both = ensemble(model, [["a dog", "a cat"], ["red"]])
    one = embed_captions(model, ["a dog", "red"])
    assert not torch.allclose(both[0], one[0], atol=1e-4)
    torch.testing.assert_close(both[1], one[1])
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))


def test_a_class_whose_prompts_are_equal_to_anothers_is_refused(model: ClipModel, pictures: Path) -> None:
    with pytest.raises(UserError, match="two classes are called 'red'"):
        zero_shot(pictures, class_names={"green": "red"}).measure(model)
    with pytest.raises(UserError, match="no class 'grene'"):
        zero_shot(pictures, class_names={"grene": "leaf"}).survey()
    with pytest.raises(ValidationError, match=r"lacks \{label\}"):
        zero_shot(pictures, templates=["a photo"])


def test_pictures_without_folders_have_no_class(pictures: Path) -> None:
    with pytest.raises(UserError, match="has no label"):
        zero_shot(pictures / "red").survey()


def test_cifar10_brings_labels_and_templates(model: ClipModel, tmp_path: Path) -> None:
    for number, name in enumerate(("airplane", "bird", "cat", "deer", "dog", "frog")):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (40 * number, 90, 10)).save(tmp_path / "test" / name / "0.png")
    dataset = {"kind": "cifar10", "path": tmp_path, "split": "test", "templates": ["{label}", "one {label}"]}
    measured = ZeroShot.model_validate({"dataset": dataset}).measure(model)
    assert measured.metric == "zero_shot_cifar10"
    assert measured.details["prompts"]["bird"] == ["bird", "one bird"]
    assert [number.name for number in measured.numbers] == ["top-1 accuracy", "top-5 accuracy"]
    assert measured.details["classes"] == ["airplane", "bird", "cat", "deer", "dog", "frog"]


# -------------------------------------------------------------------------------------------------------- linear probe
def test_a_linear_probe_tells_colours_apart_that_names_do_not(model: ClipModel, pictures: Path, tmp_path: Path) -> None:
    train = draw(tmp_path / "train", count=6, seed=1)
    measured = probe(pictures, train).measure(model)
    assert measured.numbers[0].value == 1.0
    assert measured.details["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert set(measured.details["held_out_accuracy"]) == {"0.01", "0.001", "0.0001", "1e-05", "1e-06", "1e-07", "1e-08"}


def test_the_fit_is_where_the_gradient_written_by_hand_is_zero() -> None:
    rng = tensor_stream(0, 0, "probe")
    features = torch.randn(90, 5, generator=rng)
    labels = torch.randint(0, 3, (90,), generator=rng).tolist()
    weights, slope = fit(features, labels, 3, 0.1)
    x = numpy.concatenate([features.double().numpy(), numpy.ones((90, 1))], axis=1)
    w = weights.double().numpy()
    scores = numpy.exp(x @ w.T)
    shares = scores / scores.sum(axis=1, keepdims=True)
    gradient = (shares - numpy.eye(3)[labels]).T @ x / 90
    gradient[:, :-1] += 0.1 * w[:, :-1]
    assert numpy.abs(gradient).max() < 1e-5
    assert slope < 1e-5
    unregularised, _ = fit(features, labels, 3, 1e-8)
    assert unregularised.norm() > 1.2 * weights.norm()


def test_the_fit_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = tensor_stream(1, 0, "probe")
    features = torch.randn(60, 4, generator=rng)
    labels = torch.randint(0, 3, (60,), generator=rng).tolist()
    weights, _ = fit(features, labels, 3, 0.05)
    other = linear.LogisticRegression(C=1 / (0.05 * 60), max_iter=10_000, tol=1e-10).fit(features.numpy(), labels)
    numpy.testing.assert_allclose(weights[:, :-1].numpy(), other.coef_, atol=1e-3)


def test_a_fifth_is_held_out_by_content_and_seed() -> None:
    hashes = [f"{number:064x}" for number in range(50)]
    chosen = {one for one, out in zip(hashes, held_out_fifth(hashes, 0), strict=True) if out}
    assert len(chosen) == 10
    backwards = hashes[::-1]
    assert {one for one, out in zip(backwards, held_out_fifth(backwards, 0), strict=True) if out} == chosen
    assert {one for one, out in zip(hashes, held_out_fifth(hashes, 1), strict=True) if out} != chosen


def test_a_probe_is_not_fitted_to_what_it_measures(pictures: Path) -> None:
    with pytest.raises(UserError, match="12 pictures of dataset are in train too"):
        probe(pictures, pictures).survey()


# ----------------------------------------------------------------------------------------------------------- retrieval
def test_retrieval_is_that_of_a_plain_loop(model: ClipModel, tmp_path: Path) -> None:
    metric = retrieval(draw(tmp_path / "captioned", count=4, seed=2, captions=True))
    measured = metric.measure(model)
    shown = metric.survey().pictures
    images = embed_pictures(model, shown)
    queries = [(number, caption) for number, one in enumerate(shown) for caption in one.captions]
    texts = [model.embed_prompts([caption])[0].detach() for _, caption in queries]
    for most in (1, 5, 10):
        by_text = []
        for own, words in zip(queries, texts, strict=True):
            scores = images @ words
            alike = {n for n, one in enumerate(shown) if own[1] in one.captions}
            best = max(float(scores[n]) for n in alike)
            rank = 1 + sum(float(scores[n]) >= best for n in range(len(shown)) if n not in alike)
            by_text.append(float(rank <= most))
        by_image = []
        for one, image in zip(shown, images, strict=True):
            scores = [(float(image @ words), caption in one.captions) for (_, caption), words in zip(queries, texts)]  # noqa: B905
            best = max(score for score, right in scores if right)
            rank = 1 + sum(score >= best for score, right in scores if not right)
            by_image.append(float(rank <= most))
        values = {number.name: number for number in measured.numbers}
        assert values[f"text to image R@{most}"].value == pytest.approx(sum(by_text) / len(by_text))
        assert values[f"image to text R@{most}"].outcomes == tuple(by_image)
    assert "3 captions stand at several pictures" in measured.notes[-1]
    low, high = measured.numbers[0].low, measured.numbers[0].high
    assert low < measured.numbers[0].value < high


def test_copies_of_a_picture_are_one(model: ClipModel, tmp_path: Path) -> None:
    folder = draw(tmp_path / "captioned", count=4, seed=2, captions=True)
    (folder / "red" / "copy.png").write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "red" / "copy.txt").write_text("another red circle")
    measured = retrieval(folder).measure(model)
    assert measured.pictures == 12
    assert "1 pictures are copies" in measured.notes[0]


def test_numbers_that_cannot_fail_are_left_out(model: ClipModel, tmp_path: Path) -> None:
    measured = retrieval(draw(tmp_path / "captioned", count=2, seed=2, captions=True)).measure(model)
    assert {number.name.rpartition("@")[2] for number in measured.numbers[1:]} == {"1", "5"}


def test_an_empty_caption_is_no_query(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures", count=2, seed=0)
    dataset = {"kind": "folder", "path": folder, "uncaptioned": "empty"}
    with pytest.raises(UserError, match="empty caption"):
        Retrieval.model_validate({"dataset": dataset}).survey()


# ---------------------------------------------------------------------------------------------------------------- both
def test_other_names_of_the_same_pictures_change_no_number(model: ClipModel, tmp_path: Path) -> None:
    one = draw(tmp_path / "one", count=4, seed=2, captions=True)
    other = tmp_path / "other"
    for path in one.rglob("*.*"):
        place = other / path.parent.name / f"{9 - int(path.stem)}{path.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    for metric in (retrieval, lambda path: zero_shot(path, dataset={"kind": "folder", "path": path})):
        first, second = (metric(path).measure(model).numbers for path in (one, other))
        assert [(n.name, n.value, n.low) for n in first] == [(n.name, n.value, n.low) for n in second]
        assert sorted(first[0].outcomes) == sorted(second[0].outcomes)


def test_a_measurement_survives_json_and_pairs_only_with_the_same_pictures(model: ClipModel, tmp_path: Path) -> None:
    sets = [draw(tmp_path / str(seed), count=2, seed=seed) for seed in range(2)]
    one, other = (zero_shot(path).measure(model) for path in sets)
    again = from_dict(json.loads(json.dumps(one.as_dict())))
    assert again == one
    same = compare(one, again)
    assert [number.change.value for number in same.numbers] == [0]
    assert same.numbers[0].change.within_noise
    with pytest.raises(ValueError, match="not measured on the same pictures"):
        compare(one, other)


def test_measuring_leaves_no_trace(model: ClipModel, pictures: Path) -> None:
    model.train_mode(("vision_model",))
    before = torch.get_rng_state()
    zero_shot(pictures).measure(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.network.vision_model.training
    model.train_mode(())


def test_a_damaged_model_gives_no_number(pictures: Path, tmp_path: Path) -> None:
    broken = Clip(path=str(save_tiny_clip(tmp_path / "model"))).load()
    broken.network.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        zero_shot(pictures).measure(broken)


def test_a_missing_folder_is_told_with_the_metrics_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metric 'names', dataset\.path: .*does not exist"):
        zero_shot(tmp_path / "absent", name="names").survey()

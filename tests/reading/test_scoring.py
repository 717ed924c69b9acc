"""limner score: swapped captions are found, copies are fair, the numbers are those of a plain loop."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from limner.core.errors import UserError
from limner.reading.scoring import score, sentence
from tests.reading.conftest import COLOURS, caption_of, paint
from tests.reading.test_embedding import reference


def test_swapped_captions_are_the_worst_and_each_is_sent_to_its_picture(clip: Path, captioned: Path) -> None:
    fair = score(captioned, model=str(clip))
    assert [pair.rank for pair in fair.pairs] == [1, 1, 1, 1]
    assert not any(pair.fits_better for pair in fair.pairs)
    (captioned / "red.txt").write_text(caption_of("blue"))
    (captioned / "blue.txt").write_text(caption_of("red"))
    result = score(captioned, model=str(clip))
    assert {pair.id: pair.fits_better for pair in result.pairs[:2]} == {"red.png": "blue.png", "blue.png": "red.png"}
    assert {pair.id: pair.better_caption for pair in result.pairs[:2]} == {
        "red.png": caption_of("red"),
        "blue.png": caption_of("blue"),
    }
    assert all(pair.rank > 1 for pair in result.pairs[:2])
    assert [pair.rank for pair in result.pairs[2:]] == [1, 1]
    assert result.mean < fair.mean
    assert "much better" in sentence(result.pairs[0])


def test_numbers_are_those_of_a_plain_loop(clip: Path, captioned: Path) -> None:
    images, texts = reference(clip, captioned)  # by name: blue green red yellow; by colour: red green blue yellow
    names, colours = sorted(COLOURS), list(COLOURS)
    cosine = {
        (name, colour): float(images[i] @ texts[j]) for i, name in enumerate(names) for j, colour in enumerate(colours)
    }
    result = score(captioned, model=str(clip))
    for pair in result.pairs:
        own = pair.id.removesuffix(".png")
        assert pair.score == pytest.approx(100 * max(0, cosine[own, own]), abs=1e-3)
        assert pair.rank == 1 + sum(cosine[own, colour] > cosine[own, own] for colour in colours if colour != own)
        assert pair.captions == 4
    wrong = [100 * max(0, value) for (name, colour), value in cosine.items() if name != colour]
    assert result.mean_of_wrong_pairs == pytest.approx(statistics.mean(wrong), abs=1e-3)
    assert result.spread == pytest.approx(statistics.pstdev(wrong), abs=1e-3)
    assert result.mean == pytest.approx(statistics.mean(pair.score for pair in result.pairs))
    assert result.interval is not None
    assert result.interval[0] <= result.mean <= result.interval[1]


def test_copies_of_pictures_and_captions_change_no_number(clip: Path, captioned: Path) -> None:
    before = score(captioned, model=str(clip))
    (captioned / "copy.png").write_bytes((captioned / "red.png").read_bytes())
    (captioned / "copy.txt").write_text("A RED  square")  # the tokenizer reads it like the other
    after = score(captioned, model=str(clip))
    assert (after.mean, after.interval) == (before.mean, before.interval)
    assert after.mean_of_wrong_pairs == pytest.approx(before.mean_of_wrong_pairs)
    assert (after.pictures, after.captions) == (4, 4)
    assert sorted(pair.rank for pair in after.pairs) == [1, 1, 1, 1]


def test_another_caption_of_the_same_picture_is_no_competitor(clip: Path, captioned: Path) -> None:
    rows = [{"file_name": f"{colour}.png", "text": caption_of(colour)} for colour in COLOURS]
    rows.append({"file_name": "red.png", "text": "the red"})
    (captioned / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for colour in COLOURS:
        (captioned / f"{colour}.txt").unlink()
    images, texts = reference(clip, captioned)
    foreign = [float(images[2] @ texts[number]) for number, colour in enumerate(COLOURS) if colour != "red"]
    pairs = [pair for pair in score(captioned, model=str(clip)).pairs if pair.id == "red.png"]
    assert {pair.caption for pair in pairs} == {"the red", caption_of("red")}
    assert pairs[0].score < pairs[1].score
    for pair in pairs:
        assert pair.captions == 4
        assert pair.rank == 1 + sum(100 * cosine > pair.score for cosine in foreign)


def test_one_caption_for_all_says_that_ranks_say_nothing(clip: Path, captioned: Path) -> None:
    for colour in COLOURS:
        (captioned / f"{colour}.txt").write_text("a red square")
    result = score(captioned, model=str(clip))
    assert result.mean_of_wrong_pairs is None
    assert {pair.captions for pair in result.pairs} == {1}
    assert any("say nothing" in value for _, value in result.rows())


def test_pictures_that_cannot_be_scored_are_named(clip: Path, captioned: Path) -> None:
    paint(captioned / "bare.png", "red", shade=9)
    (captioned / "green.png").write_bytes(b"broken")
    result = score(captioned, model=str(clip))
    assert [id for id, _ in result.unreadable] == ["green.png"]
    assert len(result.pairs) == 3
    for colour in COLOURS:
        (captioned / f"{colour}.txt").unlink()
    with pytest.raises(UserError, match="no captions that are recognised"):
        score(captioned, model=str(clip))


def test_a_recipe_names_the_data_and_the_page_holds_the_worst(clip: Path, captioned: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"out: {tmp_path / 'run'}\nmodel: {{kind: sd1, path: none}}\nmethod: {{kind: lora}}\ntrain: {{steps: 1}}\n"
        f"dataset: {{kind: folder, path: nowhere}}\ncache: {{folder: {tmp_path / 'own'}}}\n"
    )
    (captioned / "red.txt").write_text("<script>alert(1)</script>")
    page = tmp_path / "page.html"
    result = score(recipe, [f"dataset.path={captioned}"], model=str(clip), page=page, worst=2)
    assert len(result.pairs) == 4
    assert (tmp_path / "own" / "tensors").is_dir()
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "<script" not in text
    with pytest.raises(UserError, match="is a folder"):
        score(captioned, ["dataset.path=x"], model=str(clip))

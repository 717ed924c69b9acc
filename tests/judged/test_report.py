"""The report tells what was measured, and hides nothing that is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from limner.builtin.scoring import Share
from limner.builtin.world import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES
from limner.builtin_report import main
from limner.evaluation.measurement import Measurement, share
from limner.judged.measuring import BARS, Measured
from limner.judged.report import BEGIN, END, PAGE, SHEET, as_markdown, reached, write_report

ROOT = Path(__file__).resolve().parent.parent.parent


def rows_of(page: str) -> dict[str, list[str]]:
    """Returns the cells of each row of the first table of a page, by the first cell."""
    block = page[page.index(BEGIN) : page.index(END)]
    table = re.search(r"^\|.*?\n(?!\|)", block, flags=re.M | re.S)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().strip().splitlines()]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_page_shows_the_measured_numbers_beside_their_bars(measured: Measured, tmp_path: Path) -> None:
    page, sheet = write_report(measured, tmp_path)
    assert (page, sheet) == (tmp_path / PAGE, tmp_path / SHEET)
    rows = rows_of(page.read_text(encoding="utf-8"))
    assert list(rows) == [bar.name for bar in BARS]
    assert rows["background"] == ["95%", "0.0%", "0.0% to 49.0%", "4", "no"]
    assert rows["style"][0] == "none"
    text = page.read_text(encoding="utf-8")
    assert "| background | 100.0% | 0.0% | -100.0 |" in text
    assert "This is a trial: the bars are for 1,000 captions." in text
    assert f"{measured.decibels:.1f} dB" in text
    assert f"{measured.seconds:.2f} s" in text
    assert "--count 4 --seed 3 --steps 2 --guidance 3" in text


def test_a_report_written_twice_is_the_same_and_keeps_the_text_around_it(measured: Measured, tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text(f"before\n\n{BEGIN}\nold numbers\n{END}\n\nafter\n", encoding="utf-8")
    files = write_report(measured, tmp_path)
    first = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_report(measured, tmp_path)] == first
    text = first[0].decode()
    assert text.startswith(f"before\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old numbers" not in text


def test_a_whole_measurement_is_no_trial_and_what_was_not_asked_is_said(measured: Measured, tmp_path: Path) -> None:
    nothing = replace(measured.generated, _asked=measured.generated._asked.copy())
    del nothing._asked["both"]
    page, _ = write_report(replace(measured, count=1000, generated=nothing), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "trial" not in text
    assert rows_of(text)["two differing things, each in its colour, nothing else"] == ["85%", "not asked", "", "0", ""]


def test_what_the_dual_encoder_finds_stands_beside_its_bar(measured: Measured) -> None:
    assert "dual encoder" not in as_markdown(measured)
    pictures = tuple(f"{number}" for number in range(20))
    numbers = tuple(
        share(name, [1.0] * right + [0.0] * (20 - right))
        for name, right in (("R@1, mean of both ways", 19), ("image to text R@1", 18), ("text to image R@5", 20))
    )
    found = Measurement("pictures", "retrieval", guard=False, of="", content="", ids=pictures, numbers=numbers)
    text = as_markdown(replace(measured, retrieval=found))
    assert "on 20 held-out pictures" in text
    assert "| R@1, mean of both ways | 90% | 95.0% | 76.4% to 99.1% |" in text
    assert "| image to text R@1 | 90% | 90.0% |" in text
    assert "R@5" not in text


def test_captions_that_were_cut_are_told(measured: Measured, tmp_path: Path) -> None:
    assert "captions are longer" not in as_markdown(measured)
    page, _ = write_report(replace(measured, cut_captions=2), tmp_path)
    assert "2 captions are longer than the model reads" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}", f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_page_without_its_markers_is_refused_before_the_work(tmp_path: Path, text: str) -> None:
    (tmp_path / PAGE).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"builtin\.md: does not hold"):
        main([str(tmp_path / "no model"), "--out", str(tmp_path)])
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (Share(990, 1000), "yes"),
        (Share(950, 1000), "yes, but so narrowly that it may be chance"),
        (Share(949, 1000), "no, but so narrowly that it may be chance"),
        (Share(900, 1000), "no"),
    ],
)
def test_a_bar_is_reached_by_the_share_and_chance_is_said(share: Share, words: str) -> None:
    assert reached(0.95, share) == words
    assert reached(None, share) == "no bar"


def test_the_page_of_the_repository_has_the_bars_that_are_measured() -> None:
    rows = rows_of((ROOT / "docs" / PAGE).read_text(encoding="utf-8"))
    bars = {bar.name: "none" if bar.least is None else f"{bar.least:.0%}" for bar in BARS}
    assert {name: cells[0] for name, cells in rows.items()} == bars


def test_the_page_of_the_repository_counts_the_world_as_it_is() -> None:
    text = " ".join((ROOT / "docs" / PAGE).read_text(encoding="utf-8").split())
    words = {3: "three", 5: "five", 8: "eight", 10: "ten"}
    counts = {"kinds": len(KINDS), "colours": len(COLOURS), "sizes": len(SIZES), "styles": len(STYLES)}
    counts["backgrounds"] = len(BACKGROUNDS)
    for noun, number in counts.items():
        assert f"{words.get(number, number)} {noun}" in text

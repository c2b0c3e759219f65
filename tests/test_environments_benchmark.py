"""The environments' benchmark: its choice of candidates, and its report on recorded rows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.environments.choice import Pull, ordered
from benchmarks.environments.report import aims, by_way, sections
from benchmarks.environments.rows import Row, Rows


def pulls() -> list[Pull]:
    return [
        Pull(f"o__{name}-{year}{number}", f"o/{name}", f"{year}-03-01T00:00:00Z", "b", "h", "m")
        for name, n_a_year in (("big", 9), ("small", 1))
        for year in range(2016, 2027)
        for number in range(n_a_year)
    ]


def test_the_choice_is_the_same_whatever_the_order_and_a_smaller_one_is_part_of_it() -> None:
    chosen = ordered(pulls(), "seed")
    assert ordered(reversed(pulls()), "seed") == chosen
    assert ordered(pulls(), "other")[:8] != chosen[:8]
    assert {pull.year for pull in chosen} == set(range(2018, 2027))
    assert Counter(pull.repository for pull in chosen[:10]) == {"o/big": 5, "o/small": 5}
    assert len({pull.year // 2 for pull in chosen[:10:2]}) == 5  # each repository goes through all its periods first


def rows() -> list[Row]:
    """Two candidates: the product builds both, P by uv neither finds a fix in the second nor A builds it."""
    one, two = "o__big-1", "o__small-2"
    built = Row(one, "", is_built=True, n_fail_to_pass=2, python="3.9")
    return [
        replace(built, way="A", total_s=30.0, unique_bytes=90_000_000),
        Row(two, "A", step="build_failed", total_s=500.0),
        replace(built, way="P by uv", total_s=20.0),
        replace(built, way="P by uv", instance_id=two, n_fail_to_pass=0, verdict="tests_pass_before"),
        replace(built, way="namespace cold", total_s=6.0),
        replace(built, way="namespace warm", total_s=1.5),
        replace(built, way="namespace warm", instance_id=two, total_s=1.7),
        replace(built, way="namespace next", total_s=3.0, store_bytes=9_000_000),
        replace(built, way="namespace next", instance_id=two, store_bytes=20_000_000),
        Row(two, "namespace cold", step="fault", detail="the registry is away"),
    ]


def test_a_ratio_is_of_what_both_built_and_an_aim_without_rows_is_not_met() -> None:
    found = {aim.text: aim for aim in aims(by_way(rows()))}
    assert (found["A / namespace warm, seconds"].value, found["A / namespace warm, seconds"].is_met) == (20.0, True)
    assert (found["A / namespace cold, seconds"].value, found["A / namespace cold, seconds"].is_met) == (5.0, False)
    assert (found["A / docker warm, seconds"].value, found["A / docker warm, seconds"].is_met) == (None, False)
    assert found["MB on disk an instance, namespace"].value == pytest.approx(10.0)
    assert found["environments built, %"].value == 100.0
    assert found["candidates with a FAIL_TO_PASS, product / P"].value == 2.0


def test_the_report_names_what_has_no_fix_to_show_and_says_which_aims_are_not_met() -> None:
    failed = Row("o__small-3", "namespace next", step="resolve", detail="no such\nrelease", python="3.8")
    text = "\n".join(sections(by_way([*rows(), failed]), enough=1))
    assert "* o__small-3, Python 3.8: resolve: no such release" in text
    assert "| A / namespace cold, seconds | ≥ 6 | 5.0 | 1 | **no** |" in text
    assert "| A / docker warm, seconds | ≥ 8 | not measured | 0 | too few to say |" in text
    assert "| P by uv | 2 (100 %) | 1 (50 %) | 1 (50 %) |" in text


def test_a_half_written_row_is_no_row_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    kept = Rows(path)
    kept.add(Row("a", "A"))
    with path.open("a") as file:
        file.write('{"instance_id": "b", "wa')
    kept.add(Row("c", "P", detail="two\nlines"))
    assert list(kept) == [Row("a", "A"), Row("c", "P", detail="two\nlines")]

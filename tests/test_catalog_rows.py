"""The comparison that tests of deaths end with can fail."""

from tests.catalog_rows import differences


def test_a_row_more_and_a_row_less_are_told_of_every_table() -> None:
    wanted = {"job": ["a", "b", "b"], "issue": ["c"]}
    assert differences({"job": ["b", "a", "b"], "issue": ["c"]}, wanted) == []
    told = differences({"job": ["a", "b"], "issue": ["c", "d"]}, wanted)
    assert told == ["job, missing: b", "issue, not wanted: d"]

"""Benchmark lists that are whole or stop the run, and what counts as a benchmark's instance."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from swefactory.benchmark_lists import SHIPPED, BenchmarkList, Row, index_instances, load_lists, write_list
from swefactory.decontamination import InstanceFacts, Match, MatchKind, check, patch_digest, signature
from swefactory.errors import UsageError

SHA = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
ISSUE = "The parser fails on numbers with underscores although the language itself reads them since version three six"
ISSUE += " and every other tool of ours does so as well, see the attached program, which prints a traceback and ends."
PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-old_value = compute_one(text)\n"
PATCH += "+new_value = compute_other(text, strict=False)\n"
MOVED = PATCH.replace("a.py", "b.py")
INSTANCE = {
    "instance_id": "acme__tool-421", "repo": "acme/tool", "base_commit": SHA, "patch": PATCH,
    "problem_statement": ISSUE, "FAIL_TO_PASS": "[]",
}  # fmt: skip
STRANGER = InstanceFacts("other/thing", 7, "f" * 40, patch_digest(PATCH.replace("text", "words")), "")


def made(path: Path, *instances: dict[str, object], name: str = "mine", **header: object) -> Path:
    source = path / "instances.jsonl"
    source.write_text("".join(f"{json.dumps(instance)}\n" for instance in instances))
    out = path / f"{name}.jsonl"
    write_list(out, name, index_instances(source, name), **header)
    return out


@pytest.fixture
def lists(tmp_path: Path) -> tuple[BenchmarkList, ...]:
    return BenchmarkList.load([made(tmp_path, INSTANCE)])


# ---------------------------------------------------------------- the delivered lists


def test_the_delivered_lists_have_as_many_rows_as_published() -> None:
    counts = {known.id.name: (known.id.n_rows, known.n_published) for known in load_lists()}
    assert counts == {
        "swe-bench-lite": (323, 323),  # test 300 and dev 23
        "swe-bench-verified": (500, 500),
        "swe-bench-dev": (225, 225),
    }


@pytest.mark.parametrize("known", load_lists(), ids=lambda known: known.id.name)
def test_delivered_rows_are_consistent(known: BenchmarkList) -> None:
    for row in known.rows:
        assert row.benchmark == known.id.name
        assert row.instance_id == f"{row.repo.replace('/', '__')}-{row.pull_number}"
    if known.id.name != "swe-bench-dev":
        assert all(re.fullmatch("[0-9a-f]{40}", row.base_commit) for row in known.rows)


def test_lists_agree_where_they_hold_the_same_instance() -> None:
    lite, verified, dev = (
        {row.instance_id: row for row in known.rows}
        for name in ("swe-bench-lite", "swe-bench-verified", "swe-bench-dev")
        for known in load_lists()
        if known.id.name == name
    )
    assert (len(lite.keys() & verified.keys()), len(lite.keys() & dev.keys())) == (93, 23)
    for other in (verified, dev):
        for instance_id in lite.keys() & other.keys():
            mine, theirs = lite[instance_id], other[instance_id]
            assert replace_name(mine) == replace_name(theirs)


def replace_name(row: Row) -> Row:
    return row.model_copy(update={"benchmark": ""})


def test_the_dev_split_is_listed_whole_by_repository() -> None:
    dev = next(known for known in load_lists() if known.id.name == "swe-bench-dev")
    assert Counter(row.repo for row in dev.rows) == {
        "marshmallow-code/marshmallow": 9, "pvlib/pvlib-python": 63, "pydicom/pydicom": 56, "pylint-dev/astroid": 31,
        "pyvista/pyvista": 16, "sqlfluff/sqlfluff": 50,
    }  # fmt: skip
    assert not any(known.incomplete_repositories for known in load_lists())
    assert Counter(bool(row.base_commit) for row in dev.rows) == {True: 202, False: 23}  # no guesses


def test_an_instance_of_the_dev_split_is_known_without_its_base_commit() -> None:
    dev = next(known for known in load_lists() if known.id.name == "swe-bench-dev")
    bare = next(row for row in dev.rows if not row.base_commit)
    verdict = check(replace(STRANGER, repository=bare.repo.upper(), number=bare.pull_number), [dev])
    assert [(match.kind, match.instance_id) for match in verdict.matched] == [
        (MatchKind.PULL_REQUEST, bare.instance_id)
    ]
    assert check(replace(STRANGER, repository=bare.repo), [dev]).is_clean


def test_where_instances_are_missing_the_whole_repository_counts(tmp_path: Path) -> None:
    (partial,) = BenchmarkList.load([made(tmp_path, INSTANCE, n_published=3, incomplete=["acme/tool"])])
    verdict = check(replace(STRANGER, repository="Acme/tool"), [partial])
    assert [match.kind for match in verdict.matched] == [MatchKind.REPOSITORY]
    assert "1 of 3" in str(verdict)
    assert check(STRANGER, [partial]).is_clean
    fork = replace(STRANGER, fork_root="Acme/tool")
    assert [match.kind for match in check(fork, [partial]).matched] == [MatchKind.REPOSITORY]


def test_no_two_different_delivered_issues_read_the_same() -> None:
    """The rate of false alarms on 720 real issues of the benchmarks' own repositories."""
    alarms = set()
    for known in load_lists():
        for row in known.rows:
            facts = replace(STRANGER, issue_signature=row.issue_signature)
            found = {match.instance_id for match in check(facts, load_lists()).matched} - {row.instance_id}
            alarms |= {tuple(sorted((row.instance_id, other))) for other in found}
    assert alarms == set()


# ---------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("facts", "kind", "detail"),
    [
        (replace(STRANGER, repository="Acme/Tool", number=421), MatchKind.PULL_REQUEST, ""),
        (replace(STRANGER, base_commit=SHA), MatchKind.BASE_COMMIT, "in another repository"),
        (
            replace(STRANGER, base_commit=SHA.upper(), fork_root="Acme/tool"),
            MatchKind.BASE_COMMIT,
            "in a fork of acme/tool",
        ),
        (replace(STRANGER, repository="acme/tool", base_commit=SHA), MatchKind.BASE_COMMIT, "in the same repository"),
        (
            replace(STRANGER, patch_digest=patch_digest(MOVED)),
            MatchKind.PATCH,
            "in another repository",
        ),
        (replace(STRANGER, issue_signature=signature(f"Bug\n{ISSUE}")), MatchKind.ISSUE_TEXT, "similarity "),
    ],
)
def test_one_likeness_is_enough(
    lists: tuple[BenchmarkList, ...], facts: InstanceFacts, kind: MatchKind, detail: str
) -> None:
    verdict = check(facts, lists)
    assert [replace(match, detail="") for match in verdict.matched] == [Match(kind, "mine", "acme__tool-421")]
    assert verdict.matched[0].detail.startswith(detail)
    assert not verdict.is_clean
    assert "acme__tool-421 of mine" in str(verdict)


@pytest.mark.parametrize(
    "facts",
    [
        STRANGER,
        replace(STRANGER, number=421),
        replace(STRANGER, repository="acme/tool"),
        replace(STRANGER, number=421, fork_root="acme/tool"),  # a fork counts its own pull requests
        replace(STRANGER, patch_digest="", base_commit=""),
        replace(STRANGER, issue_signature=signature(" ".join(ISSUE.split()[::-1]))),
    ],
)
def test_a_stranger_is_clean_and_the_lists_are_on_record(
    lists: tuple[BenchmarkList, ...], facts: InstanceFacts
) -> None:
    verdict = check(facts, lists)
    assert verdict.is_clean
    assert json.loads(json.dumps(verdict.as_json())) == {
        "version": 1,
        "matched": [],
        "lists": [{"name": "mine", "sha256": lists[0].id.sha256, "n_rows": 1}],
    }


def test_unknown_facts_of_a_row_match_nothing(tmp_path: Path) -> None:
    bare = {"instance_id": "acme__tool-421", "repo": "acme/tool"}
    known = BenchmarkList.load([made(tmp_path, bare)])
    assert check(replace(STRANGER, base_commit="", patch_digest="", issue_signature=""), known).is_clean
    assert check(replace(STRANGER, repository="acme/tool", number=421), known).matched[0].kind is MatchKind.PULL_REQUEST


# ---------------------------------------------------------------- failing closed


def test_a_verdict_without_lists_is_refused() -> None:
    with pytest.raises(UsageError, match="no benchmark list"):
        check(STRANGER, [])
    with pytest.raises(UsageError, match="no benchmark list"):
        BenchmarkList.load([])


BREAKS = {
    "empty": lambda text: "",
    "blank": lambda text: "\n\n",
    "no rows": lambda text: text.split("\n")[0] + "\n",
    "cut off": lambda text: text[: len(text) - 40],
    "a row lost": lambda text: "\n".join(text.split("\n")[:-2]) + "\n",
    "a row twice": lambda text: text + text.split("\n")[-2] + "\n",
    "no header": lambda text: "\n".join(text.split("\n")[1:]),
    "another version": lambda text: text.replace('"version": 1', '"version": 2'),
    "no JSON": lambda text: text.replace("{", "[", 1),
    "a short commit": lambda text: text.replace(SHA, SHA[:39]),
    "no repository": lambda text: text.replace("acme/tool", "acme"),
    "a broken signature": lambda text: text.replace("minhash1:", "minhash1:AAAA"),
    "an unknown field": lambda text: text.replace('"base_commit"', '"base_comit"'),
    "a number as text": lambda text: text.replace('"pull_number": 421', '"pull_number": "421"'),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_list_that_is_not_whole_stops_the_run(tmp_path: Path, how: str) -> None:
    path = made(tmp_path, INSTANCE, INSTANCE | {"instance_id": "acme__tool-422"})
    text = path.read_text()
    broken = BREAKS[how](text)
    assert broken != text
    path.write_text(broken)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        BenchmarkList.load([path])


@pytest.mark.parametrize("kind", ["missing", "folder", "no UTF-8"])
def test_a_list_that_cannot_be_read_stops_the_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "list.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "no UTF-8":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"list\.jsonl cannot be used: .*; nothing is mined without it"):
        load_lists(f"{made(tmp_path, INSTANCE)}:{path}")


def test_more_lists_are_added_and_replace_delivered_ones_by_name(tmp_path: Path) -> None:
    mine, dev = made(tmp_path, INSTANCE), made(tmp_path, INSTANCE, name="swe-bench-dev")
    assert [known.id.name for known in load_lists(f"{mine}:{dev}")] == ["mine", *SHIPPED]
    assert [row.instance_id for row in load_lists(f"{mine}:{dev}")[1].rows] == ["acme__tool-421"]
    (tmp_path / "again").mkdir()
    with pytest.raises(UsageError, match="two benchmark lists are called 'mine'"):
        load_lists(f"{mine}:{made(tmp_path / 'again', INSTANCE)}")


def test_a_benchmark_that_cannot_be_indexed_is_refused_by_line(tmp_path: Path) -> None:
    for broken in ({"repo": "acme/tool"}, INSTANCE | {"repo": "acme"}, INSTANCE | {"instance_id": "acme__tool"}, [1]):
        (tmp_path / "b.jsonl").write_text(f"{json.dumps(INSTANCE)}\n{json.dumps(broken)}\n")
        with pytest.raises(UsageError, match=r"b\.jsonl, line 2, is no instance"):
            index_instances(tmp_path / "b.jsonl", "mine")
    with pytest.raises(UsageError, match="cannot be read"):
        index_instances(tmp_path / "absent.jsonl", "mine")
    with pytest.raises(UsageError, match="cannot be written"):
        write_list(tmp_path / "none.jsonl", "mine", ())

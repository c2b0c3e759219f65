"""The sample history: the same ids every time, and every pull request really has the fate it was written for.

Runs its tests for real, before and after each pull request, with the packages of its own day.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import uv

from db.enums import Outcome, RejectReason
from swefactory.checkouts import run_git
from swefactory.demo.history import DemoHistory, DemoPullRequest, build_history
from swefactory.grading import RunSummary, judge
from tests.fake_environments import need_registry

N_RUNS = 3  # as Settings.n_validation_runs has it
WITHOUT_TESTS = {"docs_only", "no_linked_issue", "no_test_change"}  # told from the files and texts alone


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> DemoHistory:
    return build_history(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SWEFACTORY_TEST_UV_CACHE") or tmp_path_factory.mktemp("uv"))
    need_registry(folder)
    return folder


def refs(bare: Path) -> str:
    return run_git(bare, "for-each-ref", "--format=%(objectname) %(refname)").decode()


def environment(folder: Path, cache: Path, *, as_of: str | None) -> Path:
    """A virtual environment with what the sample asks for, as of a day or of today; its interpreter."""
    common = ["--quiet", "--cache-dir", str(cache), "--no-python-downloads"]
    python = folder / "bin" / "python"
    dated = ["--exclude-newer", as_of] if as_of else []
    for command in (
        ["venv", "--python", sys.executable, str(folder)],
        ["pip", "install", "--compile-bytecode", "--python", str(python), *dated, "marshmallow>=3.18", "pytest>=7"],
    ):
        argv = [uv.find_uv_bin(), *command, *common]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr
    return python


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path, history: DemoHistory) -> Path:
    """One environment for all: the history is short enough that nothing it needs was released meanwhile."""
    day = (max(p.merged_at for p in history.pull_requests)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return environment(tmp_path_factory.mktemp("dated") / "env", uv_cache, as_of=day)


def export(bare: Path, commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = run_git(bare, "archive", "--format=tar", commit)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True, timeout=60)
    return folder


def run_tests(python: Path, tree: Path, *paths: str) -> tuple[RunSummary, str]:
    """One run of the tests at `paths`, with pytest's own report as the witness."""
    report = tree.parent / f"{tree.name}.xml"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *paths]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    environ = {**clean, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=120, check=False)
    if ran.returncode > 1:  # interrupted while collecting
        return RunSummary({}, collection_errors=(f"pytest ended with {ran.returncode}",)), ran.stdout
    return RunSummary(outcomes(report)), ran.stdout


def outcomes(report: Path) -> Mapping[str, Outcome]:
    words = {"failure": Outcome.FAILED, "error": Outcome.ERROR, "skipped": Outcome.SKIPPED}
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        how = next((words[child.tag] for child in case if child.tag in words), Outcome.PASSED)
        found[f"{case.get('classname')}::{case.get('name')}"] = how
    return found


def test_two_builds_have_the_same_commit_ids(
    history: DemoHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the user's git configuration, identity, umask or time zone are others."""
    config = tmp_path / "gitconfig"
    config.write_text(
        "[core]\nautocrlf = true\n[commit]\ngpgSign = true\n[merge]\nff = only\n[user]\nname = Somebody\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "not-a-repository"))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        again = build_history(tmp_path / "again")
    finally:
        os.umask(before)
    monkeypatch.undo()
    assert refs(again.bare) == refs(history.bare)
    assert again.pull_requests == history.pull_requests


def test_building_again_in_the_same_place_leaves_the_same_repository(tmp_path: Path) -> None:
    first = build_history(tmp_path)
    before = refs(first.bare)
    second = build_history(tmp_path)
    assert second == first
    assert refs(second.bare) == before
    assert {path.name for path in tmp_path.iterdir()} == {first.bare.name}


def test_the_history_tells_of_every_fate(history: DemoHistory) -> None:
    fates = [pull_request.fate for pull_request in history.pull_requests]
    assert fates.count("validated") >= 3
    assert {"no_linked_issue", "docs_only", "tests_pass_before", "collection_error", "flaky_fail_to_pass"} <= {*fates}
    assert {*fates} - {"validated"} <= {reason.value for reason in RejectReason}


def test_every_pull_request_can_be_fetched_and_its_diff_applies_to_its_base(history: DemoHistory) -> None:
    for pull_request in history.pull_requests:
        head = run_git(history.bare, "rev-parse", f"refs/pull/{pull_request.number}/head").decode().strip()
        assert head == pull_request.head_commit
        base = run_git(history.bare, "merge-base", pull_request.base_commit, head).decode().strip()
        assert base == pull_request.base_commit
        merged = run_git(history.bare, "diff", f"{base}..{pull_request.merge_commit}")
        assert merged == run_git(history.bare, "diff", f"{base}..{head}")


def test_main_names_the_pull_request_and_the_issue_in_every_merge(history: DemoHistory) -> None:
    """What the source that reads git history, without an API, has to go by."""
    for pull_request in history.pull_requests:
        message = run_git(history.bare, "show", "-s", "--format=%B", pull_request.merge_commit).decode()
        assert f"#{pull_request.number}" in message
        assert pull_request.issue is None or f"#{pull_request.issue.number}" in message


def test_what_needs_no_run_is_told_by_files_and_texts(history: DemoHistory) -> None:
    by_fate = {pull_request.fate: pull_request for pull_request in history.pull_requests}
    assert not any(path.endswith(".py") for path in by_fate["docs_only"].files)
    assert not any(path.startswith("tests/") for path in by_fate["no_test_change"].files)
    assert by_fate["no_linked_issue"].issue is None


def test_hints_are_left_for_both_sides_of_the_first_commit(history: DemoHistory) -> None:
    """So that a candidate stage which takes every comment, or none, is seen."""
    sides = set()
    for pull_request in history.pull_requests:
        when = run_git(history.bare, "show", "-s", "--format=%at", pull_request.head_commit).decode()
        for comment in pull_request.issue.comments if pull_request.issue else ():
            sides.add(comment.created_at.timestamp() < int(when))
    assert sides == {True, False}


RUN = [
    pytest.param(number, fate, id=f"{number}-{fate}")
    for number, fate in ((2, "validated"), (7, "validated"), (10, "validated"), (12, "tests_pass_before"),
                         (14, "collection_error"), (16, "flaky_fail_to_pass"), (18, "validated"))
]  # fmt: skip


def test_every_pull_request_that_must_be_run_is_run_below(history: DemoHistory) -> None:
    told = {(p.number, p.fate) for p in history.pull_requests if p.fate not in WITHOUT_TESTS}
    assert told == {(param.values[0], param.values[1]) for param in RUN}


@pytest.mark.parametrize(("number", "fate"), RUN)
def test_its_tests_give_a_pull_request_the_fate_it_was_written_for(
    history: DemoHistory, python: Path, tmp_path: Path, number: int, fate: str
) -> None:
    pull_request = next(p for p in history.pull_requests if p.number == number)
    paths = [path for path in pull_request.files if path.startswith("tests/")]
    before_tree, after_tree = trees(history, pull_request, tmp_path)
    flaky = fate == "flaky_fail_to_pass"
    n_runs = N_RUNS if flaky else 1
    before = [run_tests(python, before_tree, *paths)[0] for _ in range(n_runs)]
    after = [run_tests(python, after_tree, *paths)[0] for _ in range(n_runs)]
    report = judge(before, after)
    assert (report.reason.value if report.reason else "validated") == fate
    if flaky:  # nothing is fixed for good, so no way of grading could keep it but by luck
        assert {"test_jitter_spreads_the_load" in test_id for test_id in report.flaky} == {True}
        assert {"test_jitter_spreads_the_load" in test_id for test_id in report.fail_to_pass} <= {True}


def test_a_parametrised_test_is_among_what_is_fixed(history: DemoHistory, python: Path, tmp_path: Path) -> None:
    pull_request = next(p for p in history.pull_requests if p.number == 10)
    before, after = trees(history, pull_request, tmp_path)
    report = judge([run_tests(python, before, "tests")[0]], [run_tests(python, after, "tests")[0]])
    assert any("[" in test_id for test_id in report.fail_to_pass)
    assert report.pass_to_pass


def test_with_todays_packages_its_tests_do_not_even_import(
    history: DemoHistory, uv_cache: Path, tmp_path: Path
) -> None:
    """Why it can be built only as of its commits' dates."""
    tree = export(history.bare, history.pull_requests[0].base_commit, tmp_path / "tree")
    today = environment(tmp_path / "env", uv_cache, as_of=None)
    summary, output = run_tests(today, tree, "tests")
    assert summary.collection_errors
    assert "from marshmallow.utils import" in output
    assert "ImportError" in output


def trees(history: DemoHistory, pull_request: DemoPullRequest, folder: Path) -> tuple[Path, Path]:
    """The base with the pull request's tests, and the same with all of it."""
    before = export(history.bare, pull_request.base_commit, folder / "before")
    after = export(history.bare, pull_request.head_commit, folder / "after")
    for path in pull_request.files:
        if path.startswith("tests/"):
            (before / path).write_bytes((after / path).read_bytes())
    return before, after

"""A lock as of a date, its repairs, and the digest of an environment."""

# ruff: noqa: E501  (tables of file contents read best unwrapped)

import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.recipes.lock import bound_of, digest_of, package_names, resolve, spec_of
from swefactory.recipes.python_choice import RELEASES
from swefactory.recipes.repairs import ALL, FAITHFUL, Request, changes, next_request
from swefactory.sandbox_protocols import CommandResult, RunUv, UvRun
from tests.fake_environments import HERE, host_uv, need_registry


def recipe(*requirements: str, at: str = "2024-05-01", name: str = "x", requires: tuple[str, ...] = ()) -> Recipe:
    return Recipe(
        python_version=HERE,
        requirements=requirements,
        constraints=(),
        system_packages=(),
        test_command=("-m", "pytest"),
        environment_variables={},
        layout=ProjectLayout(name, "1", requires=requires),
        as_of=datetime.fromisoformat(at).replace(tzinfo=UTC),
    )


PYTHONS = {HERE: sys.executable}


@pytest.fixture(scope="module")
def run_uv(tmp_path_factory: pytest.TempPathFactory) -> RunUv:
    """uv with a cache for this file; SWEFACTORY_TEST_UV_CACHE names a kept one."""
    folder = Path(os.environ.get("SWEFACTORY_TEST_UV_CACHE") or tmp_path_factory.mktemp("uv"))
    need_registry(folder)
    return host_uv(folder, PYTHONS)


def versions(text: str) -> dict[str, str]:
    pins = (line.rstrip("\\ ").split("==") for line in text.splitlines() if "==" in line and not line.startswith(" "))
    return dict(pins)


def test_a_lock_holds_what_existed_then_with_hashes_and_no_address(run_uv: RunUv) -> None:
    locked = resolve(recipe("pytest"), run_uv=run_uv, timeout_s=120)
    found = versions(locked.text)
    assert (found["pytest"], found["pluggy"]) == ("8.2.0", "1.5.0")
    assert locked.n_packages == len(found) == len(package_names(locked.text))
    assert locked.text.count("--hash=sha256:") >= locked.n_packages
    assert "://" not in locked.text
    assert locked.as_of == datetime(2024, 5, 3, tzinfo=UTC)
    assert locked.repairs == ()
    again = resolve(recipe("pytest", at="2024-05-01T13:00"), run_uv=run_uv, timeout_s=120)
    assert again.text == locked.text


def test_the_project_itself_is_never_in_its_lock_but_its_requirements_are(run_uv: RunUv) -> None:
    own = recipe("pytest", "iniconfig<2", name="Pluggy", requires=("iniconfig<2",))
    locked = resolve(own, run_uv=run_uv, timeout_s=120)
    assert "pluggy" not in package_names(locked.text)
    assert versions(locked.text)["iniconfig"].startswith("1.")


def test_a_pin_published_after_the_date_is_let_in_for_that_package_alone(run_uv: RunUv) -> None:
    locked = resolve(recipe("iniconfig==2.0.0", "pluggy", at="2022-06-01"), run_uv=run_uv, timeout_s=120)
    assert versions(locked.text) == {"iniconfig": "2.0.0", "pluggy": "1.0.0"}
    assert locked.repairs == ("lift_date",)


def test_pins_of_tests_that_clash_are_relaxed_and_those_of_the_project_are_not(run_uv: RunUv) -> None:
    clashing = recipe("pytest==8.2.0", "pluggy==1.4.0", "iniconfig>=2", requires=("pluggy==1.4.0",))
    locked = resolve(clashing, run_uv=run_uv, timeout_s=120)
    assert versions(locked.text)["pluggy"] == "1.4.0"
    assert locked.repairs == ("relax_pins",)


def test_old_pytest_gets_a_dependency_that_was_uploaded_again(run_uv: RunUv) -> None:
    locked = resolve(recipe("pytest", "pluggy<1", at="2019-05-01"), run_uv=run_uv, timeout_s=120)
    assert versions(locked.text)["pytest"] == "4.4.1"
    assert "allow_sdist" in locked.repairs
    later = max("2019-06-01", str(RELEASES[HERE]))  # build tools must know this Python
    assert locked.text.startswith(f"# exclude-newer: {later}T00:00:00Z\n")


def test_what_cannot_be_resolved_is_a_verdict_with_the_resolvers_words(run_uv: RunUv) -> None:
    impossible = recipe("pluggy>=90", requires=("pluggy>=90",))
    with pytest.raises(Rejected, match="pluggy") as caught:
        resolve(impossible, run_uv=run_uv, timeout_s=120)
    assert caught.value.reason is RejectReason.DEPENDENCIES_UNRESOLVABLE


def test_an_unreachable_registry_is_later_and_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(Transient, match="registry"):
        resolve(recipe("pytest"), run_uv=host_uv(tmp_path, PYTHONS), timeout_s=120)


PIN = "a==1 \\\n    --hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    "line",
    [
        "--index-url=http://elsewhere/simple", "-e /", "b @ http://elsewhere/b.whl", "b==1 @ file:///b", "../b.whl",
        "# exclude-newer: 2999-01-01T00:00:00Z", "b==1\r-r /etc/passwd", "b==1 ; a \u2028-r x", "-r /etc/passwd",
    ],
)  # fmt: skip
def test_only_pins_and_hashes_become_a_lock(line: str) -> None:
    def forged(built: bool) -> RunUv:
        written = f"{PIN}\n{line}\n".encode()
        return lambda *_, **__: UvRun(CommandResult(0, b"", 0.1), written, built)

    with pytest.raises(Rejected, match="belongs in none"):
        resolve(recipe("a"), run_uv=forged(built=True), timeout_s=120)
    with pytest.raises(InfrastructureError, match="wrote"):
        resolve(recipe("a"), run_uv=forged(built=False), timeout_s=120)


@pytest.mark.parametrize("line", ["b==1!2.0+local ; python_version < '3.11' and sys_platform == 'win32'", ""])
def test_every_line_that_uv_writes_may_be_in_a_lock(line: str) -> None:
    written = f"{PIN}\n{line}\n".encode()
    locked = resolve(
        recipe("a"), run_uv=lambda *_, **__: UvRun(CommandResult(0, b"", 0.1), written, False), timeout_s=120
    )
    assert locked.text == written.decode()


def test_a_resolver_that_takes_too_long_is_later_and_no_verdict() -> None:
    slow = UvRun(CommandResult(None, b"", 120.0, timed_out=True), b"", False)
    with pytest.raises(Transient, match="took longer than 120 s"):
        resolve(recipe("a"), run_uv=lambda *_, **__: slow, timeout_s=120)


FULL = b"error: Failed to write to the client cache\n  cause: failed to write to file `x`: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (CommandResult(2, FULL, 0.1), "No space left on device"),
        (CommandResult(137, b"", 0.1), "killed from outside"),
        (
            CommandResult(1, b"  x Failed to build `a`\n  The build backend was ended by signal: 9 (SIGKILL)", 0.1),
            "SIGKILL",
        ),
    ],
)
def test_a_killed_resolver_or_a_full_disk_is_no_verdict(ended: CommandResult, why: str) -> None:
    with pytest.raises(InfrastructureError, match=re.escape(why)):
        resolve(recipe("a"), run_uv=lambda *_, **__: UvRun(ended, None, False), timeout_s=120)


def test_the_digest_changes_with_each_part_and_not_with_the_order_of_system_packages() -> None:
    one = digest_of("3.9", "a==1\n", ("b", "a"))
    assert one.startswith("sha256:")
    assert one == digest_of("3.9", "a==1\n", ("a", "b", "a"))
    others = [
        digest_of("3.10", "a==1\n", ("b", "a")),
        digest_of("3.9", "a==2\n", ("b", "a")),
        digest_of("3.9", "a==1\n", ()),
    ]
    assert len({one, *others}) == 4


def test_two_instances_with_equal_locks_share_an_environment(run_uv: RunUv) -> None:
    first = resolve(recipe("pluggy", at="2024-05-01"), run_uv=run_uv, timeout_s=120)
    second = resolve(recipe("pluggy", at="2024-05-20", name="y"), run_uv=run_uv, timeout_s=120)
    assert spec_of(recipe("pluggy"), first) == spec_of(recipe("pluggy", name="y"), second)


def test_the_bound_is_two_days_after_the_commits_day_in_utc() -> None:
    late = datetime.fromisoformat("2024-05-01T23:30:00-05:00")
    assert bound_of(late) == datetime(2024, 5, 4, tzinfo=UTC)


# ---------------------------------------------------------------- the table of repairs, without a resolver

BASE = Request(("a==1", "b>=2", "black==22", "c"), ("a==1", "d<3"), requires=frozenset({"b>=2"}))


@pytest.mark.parametrize(
    ("log", "name", "changed"),
    [
        (
            "hint: `a` was filtered by `exclude-newer` to only include packages uploaded before X.\n The requested version,"
            " v1, was published at 2022-12-21T09:48:49.401Z. Consider",
            "lift_date",
            replace(BASE, lifted={"a": "2022-12-22T09:48:49.401000+00:00"}),
        ),
        ("error: Failed to build `black==22`", "drop_tool", replace(BASE, requirements=("a==1", "b>=2", "c"))),
        (
            "Failed to build `a==1`",
            "relax_build",
            replace(BASE, requirements=("a", "b>=2", "black==22", "c"), constraints=("d<3",)),
        ),
        ("Failed to build `c==0.1`", "relax_build", replace(BASE, wheels_only=frozenset({"c"}))),
        (
            "Because c was not found in the package registry",
            "drop_missing",
            replace(BASE, requirements=("a==1", "b>=2", "black==22")),
        ),
        (
            "Because there is no version of black==22 and you require",
            "drop_tool",
            replace(BASE, requirements=("a==1", "b>=2", "c")),
        ),
        (
            "No solution found: Because you require a==1 and e",
            "drop_lock",
            replace(BASE, constraints=("d<3",)),
        ),
    ],
)
def test_each_repair_answers_its_words_and_changes_one_thing(log: str, name: str, changed: Request) -> None:
    assert next_request(BASE, log) == (name, changed)


# What uv 0.13 says, word for word, when it is provoked.
REAL = {
    "lift_date": """error: No solution found when resolving dependencies
  cause: Because there is no version of iniconfig==2.0.0 and you require iniconfig==2.0.0, we can conclude that your requirements are unsatisfiable.

hint: `iniconfig` was filtered by `exclude-newer` to only include packages uploaded before 2022-06-01T00:00:00Z. The requested version, v2.0.0, was published at 2023-01-07T11:08:09.864Z. Consider using `exclude-newer-package` to override the cutoff for this package.""",
    "lift_unborn": """error: No solution found when resolving dependencies
  cause: Because there are no versions of hatch-vcs and you require hatch-vcs, we can conclude that your requirements are unsatisfiable.

hint: `hatch-vcs` was filtered by `exclude-newer` to only include packages uploaded before 2019-01-01T00:00:00Z. The latest version satisfying the requirement is v0.5.0, published at 2025-05-27T05:16:03.184Z. Consider using `exclude-newer-package` to override the cutoff for this package.""",
    "drop_missing": """error: No solution found when resolving dependencies
  cause: Because no-such-package-here was not found in the package registry and you require no-such-package-here, we can conclude that your requirements are unsatisfiable.""",
    "drop_tool": """error: No solution found when resolving dependencies
  cause: Because black==22.1.0 depends on click>=8.0.0 and you require black==22.1.0, we can conclude that you require click>=8.0.0.
         And because you require click==7.0, we can conclude that your requirements are unsatisfiable.""",
    "drop_unusable": """error: No solution found when resolving dependencies
  cause: Because all versions of twisted have a non-PEP 625-compliant source distribution filename and you require twisted, we can conclude that your requirements are unsatisfiable.""",
    "relax_pins": """error: No solution found when resolving dependencies
  cause: Because pytest>=7.1.2 depends on pluggy>=0.12,<2.0 and you require pytest==7.1.2, we can conclude that you require pluggy>=0.12,<2.0.
         And because you require pluggy==0.6.0, we can conclude that your requirements are unsatisfiable.""",
    "relax_build": """error: Failed to build `anyjson==0.3.3`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.get_requires_for_build_wheel` failed (exit status: 1)

         [stderr]
         error in anyjson setup command: use_2to3 is invalid.

hint: Build failures usually indicate a problem with the package or the build environment""",
}


@pytest.mark.parametrize(
    ("name", "requirements", "changed"),
    [
        ("lift_date", ("iniconfig==2.0.0",), "let in iniconfig up to 2023-01-08T11:08:09.864000+00:00"),
        ("lift_unborn", ("hatch-vcs",), "let in hatch-vcs up to 2025-05-28T05:16:03.184000+00:00"),
        ("drop_missing", ("no-such-package-here", "pytest"), "left out no-such-package-here"),
        ("drop_unusable", ("pytest", "twisted"), "left out twisted"),
        ("drop_tool", ("black==22.1.0", "click==7.0"), "left out black==22.1.0"),
        (
            "relax_pins",
            ("pluggy==0.6.0", "pytest==7.1.2"),
            "asked for pluggy, pytest; instead of pluggy==0.6.0, pytest==7.1.2",
        ),
        ("relax_build", ("anyjson==0.3.3",), "asked for anyjson; instead of anyjson==0.3.3"),
    ],
)
def test_each_repair_answers_what_the_resolver_really_says(
    name: str, requirements: tuple[str, ...], changed: str
) -> None:
    request = Request(requirements, ())
    found = next_request(request, REAL[name])
    assert found is not None
    assert (found[0], changes(request, found[1])) == (name, changed)


def test_faithful_repairs_loosen_nothing() -> None:
    request = Request(("pluggy==0.6.0", "pytest==7.1.2", "anyjson==0.3.3", "hatch-vcs"), ())
    for name in ("relax_pins", "relax_build", "lift_unborn"):
        assert next_request(request, REAL[name], FAITHFUL) is None
    assert {repair.name for repair in ALL} == {*REAL, "drop_lock", "relax_bounds"}


def test_pins_go_before_bounds_and_the_projects_own_requirements_never() -> None:
    log = "No solution found: Because you require a==1 and e"
    names = []
    request = Request(("a==1", "b>=2", "c~=3.0"), ("a==1",), requires=frozenset({"b>=2"}))
    while step := next_request(request, log):
        names.append(step[0])
        request = step[1]
    assert names == ["drop_lock", "relax_pins", "relax_bounds"]
    assert request.requirements == ("a", "b>=2", "c")


def test_words_that_no_repair_knows_end_the_tries() -> None:
    assert next_request(BASE, "something else went wrong") is None
    exhausted = Request(("b>=2", "c"), (), requires=frozenset({"b>=2"}))
    assert next_request(exhausted, "No solution found: because of c and b") is None

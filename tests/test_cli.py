"""The command line as a person meets it: run as a process, judged by what it prints and its exit code."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from swefactory.cli import main


def run(home: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`swefactory ARGS` with only these settings."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("SWEFACTORY_")}
    env |= {"SWEFACTORY_HOME": str(home), "SWEFACTORY_GITHUB_URL": "http://127.0.0.1:9", **environment}
    command = [sys.executable, "-m", "swefactory.cli.main", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd=home.parent)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def commands(group: TyperGroup, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *above, name)
        else:
            yield (*above, name)


def test_every_command_has_help_with_an_example() -> None:
    group = get_command(main.app)
    assert isinstance(group, TyperGroup)
    found = list(commands(group))
    assert {("repo", "add"), ("images", "bootstrap"), ("demo",)} <= set(found)
    for command in found:
        ran = CliRunner().invoke(main.app, [*command, "--help"])
        assert ran.exit_code == 0, ran.output
        assert "Example" in ran.output, f"{command} shows no example"


def test_help_is_shown_by_the_program_itself(home: Path) -> None:
    ran = run(home, "repo", "add", "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Example" in ran.stdout


def test_a_repository_is_queued_once_and_listed(home: Path) -> None:
    assert run(home, "repo", "add", "pallets/click", "--limit", "5").returncode == 0
    assert "under watch already" in run(home, "repo", "add", "pallets/click", "--limit", "5").stdout
    listed = json.loads(run(home, "repo", "list", "--json").stdout)
    assert [(row["name"], row["limit"]) for row in listed] == [("pallets/click", 5)]


@pytest.mark.parametrize("name", ["click", "pallets/click/issues", "https://example.org/pallets/click", "a b/c", "/x"])
def test_a_malformed_name_is_refused_and_nothing_is_queued(home: Path, name: str) -> None:
    ran = run(home, "repo", "add", "acme/fine", name)
    assert ran.returncode == 2
    assert "write owner/name" in ran.stderr
    assert json.loads(run(home, "repo", "list", "--json").stdout) == []


def test_an_unknown_instance_is_one_sentence(home: Path) -> None:
    ran = run(home, "instance", "show", "acme__tool-1")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "swefactory instance list" in ran.stderr


def test_rollouts_before_any_validated_instance_are_refused(home: Path) -> None:
    ran = run(home, "rollout", "add", "--agent", "oracle")
    assert ran.returncode == 2
    assert "no task instance is validated yet" in ran.stderr


def test_openhands_without_a_model_is_refused(home: Path) -> None:
    ran = run(home, "rollout", "add", "--agent", "openhands")
    assert ran.returncode == 2
    assert "--model" in ran.stderr


def test_a_held_stage_does_nothing_until_it_is_let_go(home: Path) -> None:
    run(home, "repo", "add", "acme/tool")
    assert run(home, "stage", "hold", "crawl", "--reason", "moving").returncode == 0
    listed = json.loads(run(home, "stage", "list", "--json").stdout)
    assert {row["stage"]: row["reason"] for row in listed if row["held"] == "yes"} == {"crawl": "moving"}
    ran = run(home, "run")
    assert ran.returncode == 3
    assert "1 job waits in a stage that is held" in ran.stderr
    assert "goes on" in run(home, "stage", "resume", "crawl").stdout
    assert "was not held" in run(home, "stage", "resume", "crawl").stdout


def test_a_query_that_is_not_there_lists_those_that_are(home: Path) -> None:
    ran = run(home, "query", "nonsense")
    assert ran.returncode == 2
    assert "funnel" in ran.stderr


def test_the_first_named_queries_are_there_and_run(home: Path) -> None:
    for name in ("funnel", "rejections", "instances", "jobs", "rollouts"):
        ran = run(home, "query", name, "--json")
        assert ran.returncode == 0, ran.stderr
        json.loads(ran.stdout)


def test_a_newer_catalog_is_refused_untouched(home: Path) -> None:
    assert run(home, "db", "upgrade").returncode == 0
    with sqlite3.connect(home / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    ran = run(home, "status")
    assert ran.returncode == 3
    assert "newer" in ran.stderr
    with sqlite3.connect(home / "catalog.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999_from_the_future",)


def test_an_older_catalog_says_how_to_upgrade(home: Path) -> None:
    assert run(home, "db", "upgrade").returncode == 0
    with sqlite3.connect(home / "catalog.db") as connection:
        connection.execute("DELETE FROM alembic_version")
    ran = run(home, "status")
    assert ran.returncode == 3
    assert "swefactory db upgrade" in ran.stderr


def test_a_catalog_that_is_no_database_is_one_sentence(home: Path) -> None:
    home.mkdir()
    (home / "catalog.db").write_text("this is a letter to my aunt, not a database\n" * 100)
    ran = run(home, "status")
    assert ran.returncode == 3
    assert "catalog.db" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_database_that_does_not_answer_hides_the_password(home: Path) -> None:
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/swefactory"
    ran = run(home, "status", SWEFACTORY_DATABASE_URL=url)
    assert ran.returncode == 3
    assert "127.0.0.1" in ran.stderr
    assert "hunter2" not in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(("name", "value"), [("SWEFACTORY_SANDBOX", "chroot"), ("SWEFACTORY_GITHUB_URL", "nonsense")])
def test_a_setting_that_makes_no_sense_is_named(home: Path, name: str, value: str) -> None:
    ran = run(home, "status", **{name: value})
    assert ran.returncode == 2
    assert name in ran.stderr


def test_a_read_only_catalog_is_one_sentence(home: Path, tmp_path: Path) -> None:
    assert run(home, "db", "upgrade").returncode == 0
    if os.geteuid() == 0:  # root writes through permissions: a read-only mount says no to everyone
        mount = f"mount --bind {home} {home} && mount -o remount,ro,bind {home} && exec "
        command = mount + f"{sys.executable} -m swefactory.cli.main repo add acme/tool"
        ran = subprocess.run(
            ["unshare", "-m", "sh", "-c", command],
            env={**os.environ, "SWEFACTORY_HOME": str(home)},
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        if "mount:" in ran.stderr or "unshare" in ran.stderr:
            pytest.skip(f"no private mount can be made here: {ran.stderr.strip()}")
    else:
        for path in home.rglob("catalog.db*"):
            path.chmod(0o444)
        home.chmod(0o555)
        ran = run(home, "repo", "add", "acme/tool")
        home.chmod(0o755)
    assert ran.returncode == 3, ran.stderr
    assert "read-only" in ran.stderr or "write" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_exports_of_an_empty_catalog_are_empty_files_with_a_digest(home: Path, tmp_path: Path) -> None:
    for kind in ("swebench", "trajectories"):
        ran = run(home, "export", kind, "--out", str(tmp_path / "out"))
        assert ran.returncode == 0, ran.stderr
        assert "0 rows" in ran.stdout
        assert (tmp_path / "out" / kind / f"{kind}.jsonl").read_bytes() == b""


def test_an_export_into_a_file_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    ran = run(home, "export", "swebench", "--out", str(tmp_path / "out"))
    assert ran.returncode == 3
    assert "nothing there was changed" in ran.stderr
    assert (tmp_path / "out").read_text() == "in the way"


def test_doctor_lists_the_parts_as_json(home: Path) -> None:
    ran = run(home, "doctor", "--json")
    parts = {row["part"]: row["verdict"] for row in json.loads(ran.stdout)}
    assert {"catalog", "git", "uv", "sandbox namespace", "sandbox docker", "disk"} <= parts.keys()
    assert ran.returncode == (3 if "missing" in parts.values() else 0)


def test_jobs_are_cancelled_and_retried(home: Path) -> None:
    run(home, "repo", "add", "acme/tool")
    assert "1 jobs cancelled" in run(home, "job", "cancel", "1").stdout
    assert "1 jobs re-opened" in run(home, "job", "retry", "1").stdout
    assert "0 jobs re-opened" in run(home, "job", "retry", "--dead").stdout
    assert run(home, "job", "retry").returncode == 2


def test_a_benchmark_is_indexed_and_then_in_force(home: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "mine.jsonl", tmp_path / "list.jsonl"
    source.write_text(json.dumps({"instance_id": "acme__tool-1", "repo": "acme/tool", "base_commit": "a" * 40}) + "\n")
    made = run(home, "benchmark", "index", str(source), "--name", "mine", "--out", str(out))
    assert (made.returncode, "1 instances of mine" in made.stdout) == (0, True), made.stderr
    listed = json.loads(run(home, "benchmark", "list", "--json", SWEFACTORY_BENCHMARKS=str(out)).stdout)
    assert {row["name"]: row["n_rows"] for row in listed}["mine"] == 1
    out.write_text(out.read_text()[:-20])
    broken = run(home, "benchmark", "list", SWEFACTORY_BENCHMARKS=str(out))
    assert (broken.returncode, broken.stdout) == (2, "")
    assert f"the benchmark list {out} cannot be used" in broken.stderr


def test_revalidating_wants_to_know_which_and_when_something_is_due(home: Path) -> None:
    for arguments, said in (
        ([], "say which"), (["a__b-1", "--all"], "say which"), (["--due"], "SWEFACTORY_REVALIDATE_DAYS"),
        (["a__b-1"], "no task instance"),
    ):  # fmt: skip
        ran = run(home, "instance", "revalidate", *arguments)
        assert ran.returncode == 2
        assert said in ran.stderr
    due = run(home, "instance", "revalidate", "--due", SWEFACTORY_REVALIDATE_DAYS="30")
    assert (due.returncode, due.stdout) == (0, "0 validations queued\n")

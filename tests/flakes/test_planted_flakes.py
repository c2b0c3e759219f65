"""Planted tests that depend on order, time, network, hash seed and chance: one validation names each, and keeps the
instance. What no run could see is said in the certificate."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import InstanceStatus, RunState
from db.models import TestVerdict, Validation
from swefactory.evaluation import EvaluationSpec, evaluate
from swefactory.grading import RunSummary
from swefactory.instance_runs import stored
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec, Limits
from swefactory.sandboxes.groups import make_group
from swefactory.stability import CLOCK_SHIFT_S, stability, verdicts
from swefactory.validation_runs import online, probe_online, summaries, summary_of
from tests.attacks.hostile_patches import LOCK
from tests.fake_sandbox import HERE, host_services, write_tree
from tests.instance_rows import add_instance
from tests.sandbox_contract import locked_environment, spec_of
from tests.test_stage_validation import BASE, FIXED, NEW_TEST, validate_once

PLANTED = """
import os, socket, time
seen = []
def test_first(): seen.append(1)
def test_order(): assert seen
def test_clock(): assert time.time() < NOW + 86400
def test_zone(): assert time.strftime("%z") != "+1400"
def test_network(): socket.getaddrinfo("nowhere.invalid", 80)
def test_seed(): assert os.environ["PYTHONHASHSEED"] != "2"
def test_chance():
    with open(COUNTER, "a+") as file:
        file.write("x")
        file.flush()
        assert file.tell() % 4 != 1
"""


def test_each_planted_flake_is_named_and_the_instance_stays(catalog: Engine, tmp_path: Path) -> None:
    services = host_services(tmp_path / "home", test_timeout_s=60)
    code = NEW_TEST + PLANTED.replace("COUNTER", repr(str(tmp_path / "counter"))).replace("NOW", str(time.time()))
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests={"tests/test_calc.py": code})
    instance, _ = validate_once(catalog, services, instance_id)
    assert instance.status is InstanceStatus.VALIDATED, instance.reject_detail
    assert instance.fail_to_pass == ["tests/test_calc.py::test_add"]
    assert instance.pass_to_pass == ["tests/test_calc.py::test_first", "tests/test_calc.py::test_zero"]
    with session(catalog) as db:
        found = {row.test_id.rpartition("::test_")[2]: row for row in db.exec(select(TestVerdict))}
        certificate = db.exec(select(Validation)).one().certificate
    named = {name: row.before.value for name, row in found.items()}
    assert named == {
        "add": "stable_fail", "zero": "stable_pass", "first": "stable_pass", "order": "order_dependent",
        "zone": "time_dependent", "clock": "time_dependent", "network": "network_dependent", "seed": "flaky",
        "chance": "flaky",
    }  # fmt: skip
    assert (found["network"].change, found["add"].change) == ("fail_to_fail", "fail_to_pass")
    assert certificate["unstable"]["order_dependent"] == 1
    assert not any("another time" in text for text in certificate["left_out"])
    assert all(row.flip_rate_upper < 1 for row in found.values())


TIMES = """
import datetime, os, subprocess, sys, threading, time
def elapsed(wait):
    began = time.monotonic()
    wait()
    return time.monotonic() - began
def test_clock(): assert datetime.datetime.now().timestamp() < NOW + 86400
def test_clock_of_a_program(): assert int(subprocess.check_output(["date", "+%s"])) < NOW + 86400
def test_sleeps_and_locks_wait_as_long_as_they_should():
    event, lock = threading.Event(), threading.Semaphore(0)
    waits = [lambda: time.sleep(0.2), lambda: event.wait(0.2), lambda: lock.acquire(timeout=0.2)]
    assert all(0.15 < elapsed(wait) < 30 for wait in waits)
def test_a_program_that_hangs_is_given_up():
    try: subprocess.run(["sleep", "60"], timeout=0.2)
    except subprocess.TimeoutExpired: return
    assert False
def test_a_file_written_now_is_as_old_as_now(tmp_path):
    (tmp_path / "new").write_text("x")
    found = [(tmp_path / "new").stat(), *(entry.stat() for entry in os.scandir(tmp_path))]
    assert all(-30 < time.time() - stat.st_mtime < 30 for stat in found)
def test_a_time_given_to_a_file_is_read_back(tmp_path):
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (0, 1.5))
    assert ((tmp_path / "old").stat().st_atime, (tmp_path / "old").stat().st_mtime) == (0, 1.5)
"""


def test_at_another_time_only_what_depends_on_the_time_differs_in_both_sandboxes(
    either_backend: Any, tmp_path: Path
) -> None:
    environment = spec_of(LOCK, locked_environment(either_backend).python_version)
    code = TIMES.replace("NOW", str(time.time()))
    tree = write_tree(tmp_path / "tree", {"tests/test_it.py": code})
    spec = EvaluationSpec(environment, tree, ProjectLayout("calc", "1"), (), ("tests/test_it.py",), 120)
    services = host_services(tmp_path / "home", either_backend)
    results = [evaluate(services, replace(spec, is_shifted=is_shifted)) for is_shifted in (False, True)]
    assert [result.detail for result in results] == ["", ""]
    assert results[1].measured["clock_shift_s"] == pytest.approx(CLOCK_SHIFT_S, abs=120)
    runs = [
        RunSummary({found.test_id: found.outcome for found in result.outcomes}, conditions=result.conditions)
        for result in results
    ]
    named = {test_id.rpartition("::")[2]: stability(test_id, runs).value for test_id in runs[0].outcomes}
    assert named == {
        "test_clock": "time_dependent", "test_clock_of_a_program": "time_dependent",
        "test_sleeps_and_locks_wait_as_long_as_they_should": "stable_pass",
        "test_a_program_that_hangs_is_given_up": "stable_pass",
        "test_a_file_written_now_is_as_old_as_now": "stable_pass",
        "test_a_time_given_to_a_file_is_read_back": "stable_pass",
    }  # fmt: skip


def test_little_cpu_and_another_zone_hold_inside_a_real_sandbox(namespace_backend: Any, tmp_path: Path) -> None:
    """A quota that nobody enforces would be measured as a whole CPU, and then names nothing."""
    environment: EnvironmentSpec = spec_of(LOCK, locked_environment(namespace_backend).python_version)
    tree = write_tree(tmp_path / "tree", {"tests/test_it.py": "def test_it(): pass\n"})
    spec = EvaluationSpec(
        environment, tree, ProjectLayout("calc", "1"), (), ("tests/test_it.py",), 120, is_slow=True, is_shifted=True
    )
    result = evaluate(host_services(tmp_path / "home", namespace_backend), spec)
    assert result.measured.get("utc_offset") == "+1400", (result.status, result.detail, result.log)
    assert result.conditions.is_shifted
    group = make_group("swefactory-probe", Limits())
    if group is None:
        pytest.skip("no control group can be made here, so no quota holds")
    group.remove()
    assert float(result.measured["cpu_share"]) <= 0.75
    assert result.conditions.is_slow


NEEDS_A_NETWORK = """
def test_plain(): pass
def test_out():
    with open("/proc/net/route") as table: assert "tap0" in table.read()
def test_never(): assert 0
"""


def test_one_run_with_a_network_names_what_fails_only_without_and_proves_nothing(
    namespace_backend: Any, tmp_path: Path
) -> None:
    """The failure's text says nothing of a network: only the probe can tell."""
    if why := namespace_backend.no_network():
        pytest.skip(f"no sandbox can be opened online here: {why}")
    environment = spec_of(LOCK, locked_environment(namespace_backend).python_version)
    tree = write_tree(tmp_path / "tree", {"tests/test_it.py": NEEDS_A_NETWORK})
    spec = EvaluationSpec(environment, tree, ProjectLayout("calc", "1"), (), ("tests/test_it.py",), 120)
    services = host_services(tmp_path / "home", namespace_backend)
    runs = [stored(services, RunState.AFTER, evaluate(services, spec))]
    offline = summary_of(runs[0].result)
    assert probe_online(services, spec, (), runs) is None
    assert (runs[1].result.measured["network"], "network" in runs[0].result.measured) == ("out", False)
    assert summaries(runs, RunState.AFTER) == [offline]
    named = {v.test_id.rpartition("_")[2]: v.after.value for v in verdicts([offline], [offline], online(runs))}
    assert named == {"plain": "stable_pass", "out": "network_dependent", "never": "stable_fail"}


def test_where_no_run_has_a_network_the_reason_is_told(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"tests/test_it.py": "def test_it(): assert 0\n"})
    spec = EvaluationSpec(HERE, tree, ProjectLayout("calc", "1"), (), ("tests/test_it.py",), 60)
    services = host_services(tmp_path / "home")
    runs = [stored(services, RunState.AFTER, evaluate(services, spec))]
    assert probe_online(services, spec, (), runs) == "it is a fake, and gives none"
    switched_off = host_services(tmp_path / "home", network_probe=False)
    assert probe_online(switched_off, spec, (), runs) == "it is switched off"
    assert probe_online(services, spec, (), []) == "no test fails without one"
    assert (len(runs), online(runs)) == (1, None)

"""Planted tests that depend on order, time, network, hash seed and chance: one validation names each, and keeps the
instance. What no run could see is said in the certificate."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.models import InstanceStatus, TestVerdict, Validation
from swefactory.evaluation import EvaluationSpec, evaluate
from swefactory.protocols import EnvironmentSpec, Limits, ProjectLayout
from swefactory.sandboxes.groups import make_group
from tests.attacks.hostile_patches import LOCK
from tests.fake_sandbox import host_services, write_tree
from tests.instance_rows import add_instance
from tests.sandbox_contract import locked_environment, spec_of
from tests.test_stage_validation import BASE, FIXED, NEW_TEST, validate_once

PLANTED = """
import os, socket, time
seen = []
def test_first(): seen.append(1)
def test_order(): assert seen
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
    code = NEW_TEST + PLANTED.replace("COUNTER", repr(str(tmp_path / "counter")))
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
        "zone": "time_dependent", "network": "network_dependent", "seed": "flaky", "chance": "flaky",
    }  # fmt: skip
    assert (found["network"].change, found["add"].change) == ("fail_to_fail", "fail_to_pass")
    assert certificate["unstable"]["order_dependent"] == 1
    assert all(row.flip_rate_upper < 1 for row in found.values())


def test_little_cpu_and_another_zone_hold_inside_a_real_sandbox(namespace_backend: Any, tmp_path: Path) -> None:
    """A quota that nobody enforces would be measured as a whole CPU, and then names nothing."""
    environment: EnvironmentSpec = spec_of(LOCK, locked_environment(namespace_backend).python_version)
    tree = write_tree(tmp_path / "tree", {"tests/test_it.py": "def test_it(): pass\n"})
    spec = EvaluationSpec(
        environment, tree, ProjectLayout("calc", "1"), (), ("tests/test_it.py",), 120, is_slow=True, is_shifted=True
    )
    result = evaluate(host_services(tmp_path / "home", namespace_backend), spec)
    assert result.measured["utc_offset"] == "+1400"
    assert result.conditions.is_shifted
    group = make_group("swefactory-probe", Limits())
    if group is None:
        pytest.skip("no control group can be made here, so no quota holds")
    group.remove()
    assert float(result.measured["cpu_share"]) <= 0.75
    assert result.conditions.is_slow

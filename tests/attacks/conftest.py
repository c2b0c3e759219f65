"""One small instance in each of the two sandboxes, for every attack on its grading."""

from typing import Any

import pytest

from swefactory.instance_runs import EvaluatedInstance
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.stage import Services
from tests.attacks.gradings import attacked
from tests.attacks.hostile_patches import BASE, FAIL_TO_PASS, GOOD, LOCK, PASS_TO_PASS, TEST_PATCH
from tests.fake_sandbox import diff_of, host_services, write_tree
from tests.sandbox_contract import spec_of


@pytest.fixture(scope="module")
def backend(either_backend: Any) -> Any:
    return either_backend


@pytest.fixture(scope="module")
def services(backend: Any, tmp_path_factory: pytest.TempPathFactory) -> Services:
    return host_services(tmp_path_factory.mktemp("attacks"), backend, test_timeout_s=60)


@pytest.fixture(scope="module")
def environment(backend: Any) -> EnvironmentSpec:
    offered = backend.pythons()
    version = next((v for v in ("3.12", "3.11", "3.13", "3.10", "3.9") if v in offered), None)
    if version is None:
        pytest.skip(f"no Python of 3.9 to 3.13 here, only {', '.join(offered) or 'none'}")
    return spec_of(LOCK, version)


@pytest.fixture(scope="module")
def instance(
    services: Services, environment: EnvironmentSpec, tmp_path_factory: pytest.TempPathFactory
) -> EvaluatedInstance:
    upstream = write_tree(tmp_path_factory.mktemp("upstream") / "calc", BASE)
    return attacked(
        services, environment, upstream,
        patch=diff_of(BASE, {**BASE, **GOOD}), test_patch=TEST_PATCH, test_files=("tests/test_calc.py",),
        fail_to_pass=FAIL_TO_PASS, pass_to_pass=PASS_TO_PASS,
    )  # fmt: skip

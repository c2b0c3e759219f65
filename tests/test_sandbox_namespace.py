"""The namespace sandbox passes the contract; and what is its own."""

from pathlib import Path

import pytest

from swefactory.protocols import EnvironmentSpec
from swefactory.sandboxes.namespace import NamespaceBackend
from tests.sandbox_contract import SandboxContract, locked_environment


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> NamespaceBackend:
    made = NamespaceBackend(tmp_path_factory.mktemp("namespace"), extra_interpreter_folders=(), build_timeout_s=300)
    if why := made.probe():
        pytest.skip(f"no namespace sandbox here: {why}")
    return made


@pytest.fixture(scope="module")
def environment(backend: NamespaceBackend) -> EnvironmentSpec:
    return locked_environment(backend)


class TestNamespaceSandbox(SandboxContract):
    pass


def test_nothing_is_left_of_closed_sandboxes(backend: NamespaceBackend) -> None:
    folder = Path(backend._cache) / "sandboxes"
    assert [path.name for path in folder.glob("*~*")] == []

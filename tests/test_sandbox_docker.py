"""The docker sandbox passes the contract; and what is its own: flags, images, labels, leftovers."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swefactory.errors import SandboxUnavailable
from swefactory.image_files import load_pins
from swefactory.protocols import CHECKOUT_DIR, EnvironmentSpec, Limits, SandboxSpec
from swefactory.sandboxes.bootstrap import bootstrap_images
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_container import create_parameters, host_config
from tests.sandbox_contract import PYTHON, ROOMY, SandboxContract, locked_environment, printed, python

PLANTED = "sk-TEST-planted-in-the-host"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, docker_engine: Any) -> Iterator[DockerBackend]:
    made = DockerBackend(tmp_path_factory.mktemp("docker"), build_timeout_s=600)
    if made.probe():
        bootstrap_images(made, versions=[])
    assert made.probe() is None
    yield made
    for image in made.engine.api.images(filters={"label": f"swefactory.home={made.home}"}):
        made.engine.api.remove_image(image["Id"], force=True)


@pytest.fixture(scope="module")
def environment(backend: DockerBackend) -> EnvironmentSpec:
    return locked_environment(backend)


class TestDockerSandbox(SandboxContract):
    pass

"""The programs that read our exports, each as it comes from the package registry, in an environment of its own.

Environments are made once and kept (SWEFACTORY_TEST_DOWNLOADS, else ~/.cache/swefactory-tests).
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import uv

from tests.conftest import _absent

# What is asked for in each environment. TRL's own list names torch for its trainers, which are not what reads files.
_ASKED = {
    "swebench": ["swebench==5.0.2"],
    "harbor": ["harbor==0.26.0"],
    "datasets": ["datasets==5.2.0"],
    "trl": ["datasets==5.2.0", "jinja2", "tokenizers", "huggingface-hub", "safetensors", "regex", "pyyaml", "typer"],
}
_ALONE = {"trl": ["trl==1.16.0", "transformers==5.24.0"]}  # without what they ask for

_OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HARBOR_TELEMETRY": "0"}


def python_of(name: str) -> Path:
    """The interpreter of a consumer's environment, made once and kept."""
    kept = Path(os.environ.get("SWEFACTORY_TEST_DOWNLOADS") or Path.home() / ".cache" / "swefactory-tests")
    asked = [*_ASKED[name], *_ALONE.get(name, ())]
    versions = "-".join(each.split("==")[1] for each in asked if "==" in each)
    folder = kept / "consumers" / f"{name}-{versions}-py{sys.version_info.major}{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        _install(name, [uv.find_uv_bin(), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(python)]
        _install(name, [*install, *_ASKED[name]])
        if name in _ALONE:
            _install(name, [*install, "--no-deps", *_ALONE[name]])
        (folder / "whole").touch()
    return python


def _install(name: str, command: Sequence[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if ran.returncode:
        _absent(name, f"the package registry does not give it: {(ran.stderr.strip().splitlines() or ['?'])[-1]}")


def started(name: str, arguments: Sequence[object], home: Path, **more: str) -> subprocess.Popen[str]:
    """A program of the environment `name`, by its file's name, in `home`; told to ask nothing of the internet."""
    folder = python_of(name).parent
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(home), **_OFFLINE, **_docker(), **more}
    command = [str(folder / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.Popen(
        command, env=env, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def printed(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What it printed until it ended with 0."""
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"{process.args} did not end within {timeout_s:.0f} s: {process.communicate()[0][-3000:]}")
    assert process.returncode == 0, f"{process.args} ended with {process.returncode}: {said[-5000:]}"
    return said


def _docker() -> Mapping[str, str]:
    """Where the engine is."""
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}

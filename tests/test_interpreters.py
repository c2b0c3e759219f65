"""Finding interpreters: each one named itself, shims and broken ones are left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swefactory.sandboxes.interpreters import find_interpreters


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH, no pyenv and no interpreter of uv's."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def pretend(path: Path, version: str, prefix: str) -> None:
    numbers = ", ".join(version.split("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho \'[[{numbers}], "{prefix}", "{prefix}", "cpython"]\'\n')
    path.chmod(0o755)


def test_the_interpreter_of_a_virtual_environment_is_the_one_beneath(bare: Path) -> None:
    found = find_interpreters([str(Path(sys.executable).parent)])
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found[version].prefix == Path(sys.base_prefix)
    said = subprocess.check_output([found[version].path, "-c", "import sys; print(sys.version_info[1])"])
    assert int(said) == sys.version_info[1]


def test_the_newest_patch_release_of_pyenvs_versions_is_taken(bare: Path) -> None:
    for version in ("9.1.3", "9.1.10", "9.2.0"):
        prefix = bare / "pyenv" / "versions" / version
        pretend(prefix / "bin" / f"python{version.rpartition('.')[0]}", version, str(prefix))
    found = find_interpreters()
    assert found["9.1"].full_version == (9, 1, 10)
    assert found["9.1"].path == bare / "pyenv" / "versions" / "9.1.10" / "bin" / "python9.1"
    assert list(found)[-2:] == ["9.1", "9.2"]


def test_shims_broken_programs_and_other_files_are_left_out(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(bare / "shims" / "python9.5", "9.5.0", str(bare))
    pretend(bare / "bin" / "python9.6-config", "9.6.0", str(bare))
    (bare / "bin" / "python9.7").write_text("#!/bin/sh\nexit 1\n")
    (bare / "bin" / "python9.7").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(bare / "shims"), str(bare / "bin")]))
    assert [version for version in find_interpreters() if version.startswith("9.")] == []

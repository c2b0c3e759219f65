"""Source distributions that attack whoever resolves them: where their code runs, nothing is read, changed or kept."""

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.enums import RejectReason
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.recipes.lock import package_names, resolve
from swefactory.sandbox_protocols import SandboxBackend
from swefactory.sandboxes.interpreters import find_interpreters
from swefactory.sandboxes.resolution import BUILDS, Resolutions
from swefactory.wiring import make_sandboxes
from tests.test_recipe_lock import recipe

PLANTED = "sk-TEST-planted-on-the-host"

# Tries everything; then says by a dependency that it ran to its end, and by a failure what it could do.
ATTACK = """
import glob, os, subprocess, sys
done = []
def attempt(name, act):
    try:
        if act():
            done.append(name)
    except (OSError, subprocess.SubprocessError):
        pass

def environments():
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if PLANTED in open(path, errors="replace").read():
                return True
        except OSError:
            pass

def write(path):
    open(path, "w").write("POISON")
    return True

attempt("read a file of the host", lambda: PLANTED in open(HOST_FILE).read())
attempt("see our sources", lambda: os.path.exists(OURS))
attempt("read the worker's environment", environments)
attempt("have it in our own", lambda: PLANTED in str(os.environ))
attempt("read shadow", lambda: open("/etc/shadow").read())
attempt("be root", lambda: os.getuid() == 0)
attempt("become root", lambda: os.setuid(0) is None)
for place in ("/usr", "/etc", "/", "/opt", LINKS):
    attempt("write to " + place, lambda: write(place + "/poison"))
# Inside, a private folder of that name may be there, as the one above LINKS: the host's own is looked at afterwards.
attempt("", lambda: write(os.path.dirname(HOST_FILE) + "/poison") and False)
for place in glob.glob("/opt/cache/**/", recursive=True) + glob.glob("/cache/**/", recursive=True):
    attempt("", lambda: write(place + "/poison") and False)
"""
BACKEND = """
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    import os
    {attack}
    os.mkdir(folder + "/hostile-1.dist-info")
    open(folder + "/hostile-1.dist-info/METADATA", "w").write(
        "Metadata-Version: 2.1\\nName: hostile\\nVersion: 1\\nRequires-Dist: witness\\n")
    return "hostile-1.dist-info"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("nobody asks for a wheel")
"""


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that uv looks into for packages; no registry is asked."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    source_distribution(folder, "witness", {}, "dynamic = []\n")
    return folder


@pytest.fixture
def host_file(tmp_path: Path) -> Iterator[Path]:
    """A file and a process's environment that hold a secret."""
    path = tmp_path / "secret"
    path.write_text(PLANTED)
    path.chmod(0o644)
    with subprocess.Popen(["sleep", "300"], env={**os.environ, "TOKEN": PLANTED}) as process:
        yield path
        process.kill()


def source_distribution(folder: Path, name: str, files: dict[str, str], project: str) -> None:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1"\n{project}',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        **files,
    }
    with tarfile.open(folder / f"{name}-1.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-1/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def hostile(folder: Path, attack: str) -> None:
    indented = attack.replace("\n", "\n    ")
    backend = BACKEND.replace("{attack}", indented)
    source_distribution(folder, "hostile", {"backend.py": backend}, 'dynamic = ["dependencies"]\n')


def wanting(backend: SandboxBackend, *requirements: str) -> Recipe:
    version = next(version for version in ("3.12", "3.13", "3.11", "3.10") if version in backend.pythons())
    wanted = recipe(*requirements)
    return replace(wanted, python_version=version, layout=ProjectLayout("x", "1"))


def test_build_code_of_a_resolved_package_reads_and_writes_nothing_of_the_host(
    backend: SandboxBackend, links: Path, host_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEFACTORY_GITHUB_TOKEN", PLANTED)
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", PLANTED)
    names = f"PLANTED, HOST_FILE, OURS, LINKS = {PLANTED!r}, {str(host_file)!r}, {__file__!r}, {str(links)!r}\n"
    hostile(links, names + ATTACK + "if done: raise SystemExit('it could ' + ', '.join(done))\n")
    locked = resolve(wanting(backend, "hostile"), run_uv=backend.run_uv, timeout_s=300)
    assert package_names(locked.text) == ("hostile", "witness")  # it ran, to its end
    assert not list(host_file.parent.rglob("poison"))


def test_nothing_is_built_beside_the_cache_that_runs_share(backend: SandboxBackend, links: Path) -> None:
    hostile(links, "pass")
    for name, built in (("witness", False), ("hostile", True), ("hostile", True)):
        run = backend.run_uv(
            ["pip", "compile", "in", "--output-file", "out", "--no-header", "--no-annotate", "--quiet"],
            files={"in": f"{name}\n"}, writes="out", python_version=wanting(backend).python_version, timeout_s=300,
        )  # fmt: skip
        assert run.written in (b"witness==1\n", b"hostile==1\nwitness==1\n")
        assert run.built is built


def test_what_a_build_does_to_its_cache_is_gone_with_it(namespace_backend: Any, links: Path, tmp_path: Path) -> None:
    hostile(links, ATTACK.partition('attempt("read a')[0] + ATTACK[ATTACK.index("for place in glob") :])
    home = Settings(home=tmp_path / "home", sandbox="namespace")
    backend = make_sandboxes(home)
    resolve(wanting(backend, "hostile"), run_uv=backend.run_uv, timeout_s=300)
    assert list((home.cache_dir / "uv").glob("*-v*"))
    assert not [path for path in home.cache_dir.rglob("*") if path.name == "poison"]
    assert list((home.cache_dir / "resolver" / ".parts").iterdir()) == []


@pytest.mark.parametrize(
    "attack",
    [
        "import os; place = [p for p in PLACES if os.path.isdir(p)][0]; os.symlink(HOST_FILE, place + '/lock.txt')",
        "import os; place = [p for p in PLACES if os.path.isdir(p)][0]; os.mkdir(place + '/lock.txt')",
        "import os; place = [p for p in PLACES if os.path.isdir(p)][0]; os.symlink('elsewhere', place + '/lock.txt')",
        "raise SystemExit('no compiler today')",
    ],
    ids=["link to the host", "folder", "link", "failure"],
)
def test_a_build_that_spoils_the_lock_is_a_verdict(
    backend: SandboxBackend, links: Path, host_file: Path, attack: str
) -> None:
    hostile(links, f"HOST_FILE, PLACES = {str(host_file)!r}, ['/opt/work', '/work']\n{attack}")
    with pytest.raises(Rejected) as caught:
        resolve(wanting(backend, "hostile"), run_uv=backend.run_uv, timeout_s=300)
    assert caught.value.reason is RejectReason.DEPENDENCIES_UNRESOLVABLE
    assert PLANTED not in str(caught.value)


def test_a_lock_that_a_build_forged_is_a_verdict(backend: SandboxBackend, links: Path) -> None:
    forging = """
import os, subprocess, sys
place = [p for p in ("/opt/work", "/work") if os.path.isdir(p)][0]
code = "import os, time\\nwhile True: open('lock.txt', 'w').write('evil @ http://elsewhere/evil.whl\\\\n')"
# It outlives the build and writes as long as uv runs.
subprocess.Popen([sys.executable, "-c", code], cwd=place, start_new_session=True,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
    hostile(links, forging)
    with contextlib.suppress(Rejected):
        locked = resolve(wanting(backend, "hostile"), run_uv=backend.run_uv, timeout_s=300)
        assert "://" not in locked.text


def test_a_uv_that_builds_elsewhere_is_noticed_and_shares_no_cache(
    namespace_backend: Any, links: Path, tmp_path: Path
) -> None:
    version = wanting(namespace_backend).python_version
    interpreter = find_interpreters([])[version]
    for name, built in (("builds-of-another-uv", True), (BUILDS, False)):
        run = Resolutions(tmp_path / name, tmp_path / name / "uv", name).run(
            ["pip", "compile", "in", "--output-file", "out", "--no-header", "--no-annotate", "--quiet"],
            files={"in": "witness\n"}, writes="out", interpreter=interpreter, timeout_s=120,
        )  # fmt: skip
        assert (run.written, run.built) == (b"witness==1\n", built)

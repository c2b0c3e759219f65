"""Builds the extension modules of a checkout. One property: the checkout stays the only copy of the project's sources.

The project's own build code runs in an ordinary sandbox: no network, no secret, and for its environment the build
requirements, locked and shared like any other. What comes out is the compiled modules alone, which are laid over a copy
of the same sources; see images/build_extensions.py. Modules built once are kept, see kept_extensions.py.
"""

import hashlib
import io
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected
from swefactory.image_files import image_file
from swefactory.machine_faults import fault_of
from swefactory.sandbox_protocols import CHECKOUT_DIR, PYTHON, EnvironmentSpec, Limits, SandboxBackend, SandboxSpec
from swefactory.sandboxes.kept_extensions import KeptExtensions

_TAR = "/opt/results/extensions.tar"
_TAR_BYTES = 512 * 2**20
_TAIL_BYTES = 4000
# Of the rest of a checkout, what a build reads: sources in Python can be its code, but rarely change what is compiled.
_COMPILED = (
    ".c",
    ".cc",
    ".cpp",
    ".cxx",
    ".h",
    ".hh",
    ".hpp",
    ".inc",
    ".pyx",
    ".pxd",
    ".pxi",
    ".pyf",
    ".f",
    ".f90",
    ".s",
)
_BUILD_FILES = (
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "meson.build",
    "meson_options.txt",
    "CMakeLists.txt",
    "build.py",
)


@dataclass(frozen=True)
class Extensions:
    """Compiled modules, by their place in the checkout. `log` is empty when they had been built before."""

    files: Mapping[str, bytes]
    log: str = ""

    def lay_over(self, checkout: Path) -> None:
        """Writes the modules into a copy of the sources they were built from; never through a link."""
        for path, content in sorted(self.files.items()):
            target = checkout / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(checkout.resolve()):
                raise ExtensionsFailed(f"the build put {path} behind a link that leaves the checkout", self.log)
            target.unlink(missing_ok=True)
            target.write_bytes(content)
            target.chmod(0o755)


class ExtensionsFailed(Rejected):
    """The sources do not build here; `log` is all that the build said, the message its end."""

    def __init__(self, how: str, log: str) -> None:
        super().__init__(RejectReason.BUILD_FAILED, f"{how}\n{log[-_TAIL_BYTES:]}".strip())
        self.how, self.log = how, log


@dataclass(frozen=True)
class ExtensionBuild:
    """What to build: the tree, the environment of its build requirements, and variables such as a pretended version.
    `folder` is where the project is in the tree; the source roots are relative to the tree."""

    environment: EnvironmentSpec
    tree: Path
    source_roots: Sequence[str] = (".",)
    folder: str = "."
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 1800
    label: str = ""

    @property
    def key(self) -> str:
        """Of everything that can change what is built."""
        found = hashlib.sha256(f"swefactory extensions 1\n{self.environment.digest}\n".encode())
        found.update(image_file("build_extensions.py").read_bytes())
        found.update(repr((self.folder, tuple(self.source_roots), sorted(self.env.items()))).encode())
        for path in sorted(_inputs(self.tree)):
            content = (self.tree / path).read_bytes()
            found.update(f"\n{path}\n{len(content)}\n".encode(errors="surrogateescape") + content)
        return found.hexdigest()


def build_extensions(backend: SandboxBackend, build: ExtensionBuild, cache: Path) -> Extensions:
    """Raises ExtensionsFailed, and what opening a sandbox raises."""
    kept = KeptExtensions(cache)
    if (standing := kept.get(build.key)) is not None:
        return Extensions(_modules(standing, build.folder))
    tar, log = _built(backend, build)
    files = _modules(tar, build.folder)
    kept.put(build.key, tar)
    return Extensions(files, log)


def _built(backend: SandboxBackend, build: ExtensionBuild) -> tuple[bytes, str]:
    spec = SandboxSpec(build.environment, build.tree, limits=build.limits, label=build.label)
    with backend.open(spec) as sandbox:
        sandbox.write("/opt/results/build_extensions.py", image_file("build_extensions.py").read_bytes())
        roots = [posixpath.relpath(root, build.folder) for root in build.source_roots]
        argv = [PYTHON, "/opt/results/build_extensions.py", _TAR, *roots]
        cwd = posixpath.normpath(f"{CHECKOUT_DIR}/{build.folder}")
        result = sandbox.run(argv, timeout_s=build.timeout_s, env=build.env, cwd=cwd)
        log = result.output.decode(errors="replace").strip()
        if why := fault_of(result):
            raise InfrastructureError(f"the project's own build gave no answer: {why}")
        if result.exit_code != 0:
            how = "time ran out" if result.timed_out else f"it ended with {result.exit_code}"
            raise ExtensionsFailed(f"the project's own build failed: {how}", log)
        return sandbox.read(_TAR, _TAR_BYTES), log


def _modules(tar: bytes, folder: str) -> dict[str, bytes]:
    """The plain files of what a build in `folder` left, as of the root; it may have written anything there."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or path.is_absolute() or ".." in path.parts or path.suffix not in (".so", ".pyd"):
                    raise ExtensionsFailed(f"the build left {member.name!r:.200} in place of an extension module", "")
                files[str(PurePosixPath(folder) / path)] = content.read()
    except tarfile.TarError as error:
        raise ExtensionsFailed(f"the build left no readable modules: {error}", "") from error
    return files


def _inputs(tree: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in (".git", "build", "dist")]
        for name in names:
            path = Path(folder) / name
            if (name.lower().endswith(_COMPILED) or name in _BUILD_FILES) and path.is_file() and not path.is_symlink():
                yield path.relative_to(tree).as_posix()

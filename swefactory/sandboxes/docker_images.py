"""Makes the docker sandbox's images. One property: an image stands whole under its name or not at all.

    root file system ─► base (tools, the sandbox's user) ─► python:X.Y ─► env:<digest> (the lock's packages)

Each is made when it is first needed and carries `swefactory.made-from`, a hash of what it was made from: one whose
parent or template has changed is made again. The root file system alone is never made here: see bootstrap.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, SandboxUnavailable
from swefactory.image_files import ImagePins, image_file
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec, Materialised
from swefactory.sandboxes import system_packages
from swefactory.sandboxes.build_context import apt_options, lay_out
from swefactory.sandboxes.build_faults import log_text
from swefactory.sandboxes.docker_engine import Build, Engine, Image
from swefactory.sandboxes.docker_filling import DockerFilling
from swefactory.sandboxes.image_registry import ENVIRONMENT_LABEL, ImageRegistry
from swefactory.sandboxes.interpreters import Interpreter
from swefactory.sandboxes.kept_wheels import KeptWheels
from swefactory.sandboxes.python27 import check_served, is_described
from swefactory.sandboxes.relocation import copy_interpreter
from swefactory.sandboxes.wheel_filling import fill

MADE_FROM = "swefactory.made-from"
PYTHON_LABEL = "swefactory.python"


@dataclass(frozen=True)
class DockerImages:
    """Images of one engine. `base_image` empty: the pinned one; with "{version}" in it: an image for each Python."""

    engine: Engine
    pins: ImagePins
    folder: Path
    base_image: str
    timeout_s: float
    interpreters: Callable[[], Mapping[str, Interpreter]]
    environment_labels: Mapping[str, str]  # more labels for environments
    registry: ImageRegistry
    build_settings: Path | None = None  # what another machine laid out for builds, instead of this one's settings

    def environment(self, spec: EnvironmentSpec) -> Materialised:
        """See SandboxBackend.materialise."""
        started = time.monotonic()
        name, log = self.environment_name(spec), ""
        with self._locked(name):
            image = self.engine.image(name) or self.registry.pulled(name, spec.digest)
            built = image is None or not (self.registry.is_from_there(image) or self._is_current(image, spec))
            if built:
                log = self._build_environment(spec, name) + self.registry.said_of_build(name)
                image = self.engine.image(name)
        if image is None:
            raise InfrastructureError(f"the image {name} was built but is gone; is something pruning images?")
        unique, shared = self._sizes(image) if built else (0, 0)
        size = unique or max(1, image.size_bytes - self._size_below(spec))
        return Materialised(name, size, time.monotonic() - started, built, log, unique, shared)

    def stands(self, spec: EnvironmentSpec) -> bool:
        """Whether there is an image of that name; it may still have to be built anew."""
        return self.engine.image(self.environment_name(spec)) is not None

    def _is_current(self, image: Image, spec: EnvironmentSpec) -> bool:
        _, _, python = self.python(spec.python_version)
        return image.labels.get(MADE_FROM) == self._made_from(spec, python)

    def _made_from(self, spec: EnvironmentSpec, python: Image) -> str:
        templates = ["python-env.Dockerfile", "install.sh"]
        templates += ["python27/finish.sh"] if is_described(spec.python_version) else []
        return _hash(python.id, *map(_text, templates), spec.digest)

    def _sizes(self, image: Image) -> tuple[int, int]:
        """(unique, shared) bytes, as the engine counts its layers."""
        found = next((each for each in self.engine.usage()["Images"] if each["Id"] == image.id), None)
        if found is None:
            return 0, 0
        shared = max(0, int(found["SharedSize"]))
        return int(found["Size"]) - shared, shared

    def _size_below(self, spec: EnvironmentSpec) -> int:
        python = self.engine.image(f"{self.pins.python_image}:{spec.python_version}")
        return python.size_bytes if python else 0

    def environment_name(self, spec: EnvironmentSpec) -> str:
        """Of 24 hex digits, so that two environments never meet and the name is still readable."""
        return f"{self.pins.environment_image}:{spec.digest.removeprefix('sha256:')[:24]}"

    def python(self, version: str) -> tuple[str, str, Image]:
        """(image, interpreter's path in it, what it is). Raises Rejected(NO_INTERPRETER), SandboxUnavailable."""
        check_served(version)
        if "{version}" in self.base_image:
            name = self._named(self.pins.python_image, version, self.base_image)
            return (
                name,
                f"python{version}",
                self.prepared(self.base_image.format(version=version), name, {PYTHON_LABEL: version}),
            )
        name = f"{self.pins.python_image}:{version}"
        program = f"{self.pins.python_prefix}/{version}/bin/python{version}"
        found = self.interpreters().get(version)
        with self._locked(name):
            image = self.engine.image(name)
            if found is None:  # one that was made elsewhere and loaded serves as well
                if image is None:
                    raise Rejected(RejectReason.NO_INTERPRETER, self._no_interpreter(version))
                return name, program, image
            base_name, base = self.base()
            made_from = _hash(base.id, _text("python.Dockerfile"), *map(str, found.full_version))
            if image is None or image.labels.get(MADE_FROM) != made_from:
                image = self._build_python(name, found, base_name, {MADE_FROM: made_from, PYTHON_LABEL: version})
        return name, program, image

    def base(self) -> tuple[str, Image]:
        """The base with the sandbox's user. Raises SandboxUnavailable when there is none to start from."""
        if not self.base_image:
            image = self.engine.image(self.pins.base_image)
            if image is None:
                raise SandboxUnavailable(
                    f"there is no base image {self.pins.base_image} on this docker engine; make it once with: "
                    "swefactory images bootstrap"
                )
            return self.pins.base_image, image
        name = self._named(self.pins.base_image.partition(":")[0], "of", self.base_image)
        return name, self.prepared(self.base_image, name, {})

    def prepared(self, root: str, name: str, labels: Mapping[str, str]) -> Image:
        """`root` with tools, user and supervisor, as the image `name`. Pulls `root` when it is not here."""
        with self._locked(name):
            if self.engine.image(root) is None and (why := self.engine.pull(root, self.timeout_s)):
                advice = "load or tag it, set SWEFACTORY_DOCKER_BASE_IMAGE, or run: swefactory images bootstrap"
                raise SandboxUnavailable(f"the image {root} is not here and no registry gives it ({why}); {advice}")
            source = self.engine.image(root)
            made_from = _hash(
                source.id if source else "", _text("base.Dockerfile"), _text("supervise.c"), *self.pins.base_packages
            )
            image = self.engine.image(name)
            if image is not None and image.labels.get(MADE_FROM) == made_from:
                return image
            with self.context() as context:
                shutil.copyfile(image_file("supervise.c"), context / "supervise.c")
                arguments = {
                    "ROOT": root,
                    "PACKAGES": " ".join(self.pins.base_packages),
                    "APT_OPTIONS": apt_options(context),
                }
                return self.built(context, "base.Dockerfile", name, arguments, {**labels, MADE_FROM: made_from})

    def versions_here(self) -> dict[str, str]:
        """Pythons that stand as images: version -> the image's name."""
        with self.engine.faults("list its images"):
            found = self.engine.api.images(filters={"label": PYTHON_LABEL})
        return {each["Labels"][PYTHON_LABEL]: (each["RepoTags"] or [each["Id"]])[0] for each in found}

    def _build_environment(self, spec: EnvironmentSpec, name: str) -> str:
        python_name, program, python = self.python(spec.python_version)
        labels = {**self.environment_labels, MADE_FROM: self._made_from(spec, python), ENVIRONMENT_LABEL: spec.digest}
        if strange := [package for package in spec.system_packages if not system_packages.NAME.fullmatch(package)]:
            raise Rejected(
                RejectReason.BUILD_FAILED, f"environment {spec.digest}: no Debian package is called {strange[0]!r}"
            )
        arguments = {
            "PYTHON_IMAGE": python_name,
            "UV_IMAGE": self.uv(),
            "PYTHON": program,
            "SYSTEM_PACKAGES": " ".join(spec.system_packages),
        }

        def build(context: Path, install: str, output: Path | None) -> CommandResult:
            apt = apt_options(context) if spec.system_packages else ""
            made = {**arguments, "APT_OPTIONS": apt, "INSTALL": install}
            return self._build(context, "python-env.Dockerfile", name, made, labels, output)

        below = _hash(python.id, *spec.system_packages).removeprefix("sha256:")  # of what a wheel was linked with
        kept = KeptWheels(self.wheels_folder / below[:24])
        return fill(spec, kept, DockerFilling(spec, program, self.context, build))

    @property
    def wheels_folder(self) -> Path:
        """Below it, a folder of kept wheels for each image that they were built on."""
        return self.folder / "wheels"

    def _build_python(self, name: str, found: Interpreter, base_name: str, labels: Mapping[str, str]) -> Image:
        prefix = f"{self.pins.python_prefix}/{found.version}"
        with self.context() as context:
            copy_interpreter(found, context / "python", prefix)
            arguments = {"BASE": base_name, "PREFIX": prefix, "VERSION": found.version}
            return self.built(context, "python.Dockerfile", name, arguments, labels)

    def uv(self) -> str:
        """The image that holds uv's program alone; named by the program's version."""
        from importlib.metadata import version

        import uv

        name = f"swefactory/uv:{version('uv')}"
        with self._locked(name):
            if self.engine.image(name) is None:
                with tempfile.TemporaryDirectory(dir=self.work_folder()) as folder:
                    shutil.copy(uv.find_uv_bin(), Path(folder) / "uv")
                    self.built(Path(folder), "uv.Dockerfile", name, {}, {})
        return name

    def built(
        self, context: Path, template: str, name: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> Image:
        """Raises InfrastructureError when the template does not become that image."""
        result = self._build(context, template, name, arguments, labels)
        image = self.engine.image(name) if result.exit_code == 0 else None
        if image is None:
            why = "time ran out" if result.timed_out else log_text(result)[-2000:]
            raise InfrastructureError(f"docker could not build the image {name}: {why}; see {image_file(template)}")
        return image

    def _build(
        self,
        context: Path,
        template: str,
        name: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        output: Path | None = None,
    ) -> CommandResult:
        """The image `name`, or with `output` no image but a tar of the files."""
        secrets = {"index": context / "index.env", "uv": context / "uv.toml"}
        present = {key: path for key, path in secrets.items() if path.exists()}
        if output is not None:
            build = Build(context, image_file(template), "", arguments, {}, present, output)
            return self.engine.build(build, self.timeout_s)
        before = self.engine.image(name)
        build = Build(context, image_file(template), name, arguments, labels, present)
        result = self.engine.build(build, self.timeout_s)
        after = self.engine.image(name)
        if before is not None and after is not None and before.id != after.id:
            self.engine.remove_image(before.id)  # it has lost its name
        return result

    @contextlib.contextmanager
    def context(self) -> Iterator[Path]:
        """A folder to build in, with what builds need of this machine."""
        with tempfile.TemporaryDirectory(dir=self.work_folder()) as folder:
            self.lay_out(Path(folder))
            # Credentials must not travel to the engine with the context: they are handed over as secrets only.
            (Path(folder) / ".dockerignore").write_text("index.env\nuv.toml\n")
            yield Path(folder)

    def lay_out(self, context: Path) -> None:
        """See build_context.lay_out."""
        lay_out(context, self.pins.suite, self.build_settings)

    def work_folder(self) -> Path:
        (self.folder / "contexts").mkdir(parents=True, exist_ok=True)
        return self.folder / "contexts"

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One builder at a time for one image, among threads and processes; a crash lets go."""
        path = self.folder / "locks" / re.sub(r"\W", "-", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _named(image: str, tag: str, root: str) -> str:
        return f"{image}:{tag}-{hashlib.sha256(root.encode()).hexdigest()[:12]}"

    def _no_interpreter(self, version: str) -> str:
        have = ", ".join(sorted({*self.interpreters(), *self.versions_here()})) or "none"
        return (
            f"no Python {version} on this machine or as an image (found: {have}); install it, for instance with pyenv, "
            "or set SWEFACTORY_DOCKER_BASE_IMAGE=python:{version}-" + self.pins.suite
        )


def own_interpreters(found: Mapping[str, Interpreter]) -> dict[str, Interpreter]:
    """Those that can be copied into an image: the system's own is spread over /usr."""
    return {version: each for version, each in found.items() if not each.prefix.is_relative_to("/usr")}


def remove_stale_contexts(folder: Path, older_than_s: float = 24 * 3600) -> None:
    """Removes what crashed builds left, a day after."""
    for left in (folder / "contexts").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > older_than_s:
                shutil.rmtree(left, ignore_errors=True)


def _text(name: str) -> str:
    return image_file(name).read_text()


def _hash(*parts: str) -> str:
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()

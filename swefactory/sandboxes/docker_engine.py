"""The docker engine: its client, its images, its builds. One property: every fault of it is told as ours.

Containers and images go through the SDK; builds through the docker program, because the SDK knows the classic builder
only, which has no mounts and so could not keep the machine's settings out of an image.
"""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from swefactory.errors import InfrastructureError, SandboxUnavailable
from swefactory.sandbox_protocols import CommandResult
from swefactory.sandboxes.commands import run_command

if TYPE_CHECKING:
    from docker import DockerClient

API_TIMEOUT_S = 120
_LOG_BYTES = 2**20
LABEL = "swefactory"


@dataclass(frozen=True)
class Image:
    id: str
    labels: Mapping[str, str]
    size_bytes: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build:
    """One `docker build`. `secrets` are files that the steps see and no image keeps. With `output` no image is made:
    its files are written there, as a tar."""

    context: Path
    dockerfile: Path
    tag: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, Path]
    output: Path | None = None


class Engine:
    """The engine at `host`; empty: where the SDK looks by itself. Safe to share between threads and after a fork."""

    def __init__(self, host: str = "") -> None:
        self.host = host
        self._lock = threading.Lock()
        self._client: tuple[int, DockerClient] | None = None

    @property
    def client(self) -> "DockerClient":
        """Raises SandboxUnavailable when docker's SDK finds no engine."""
        import docker

        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                environment = {**os.environ, "DOCKER_HOST": self.host} if self.host else None
                try:
                    made = docker.DockerClient.from_env(
                        timeout=API_TIMEOUT_S, max_pool_size=32, environment=environment
                    )
                except docker.errors.DockerException as error:
                    raise SandboxUnavailable(self.unreachable(error)) from error
                self._client = (os.getpid(), made)
            return self._client[1]

    @property
    def api(self) -> Any:  # noqa: ANN401 - see below
        """The SDK's low-level client; its functions have no types."""
        return self.client.api

    def program(self) -> list[str]:
        """The docker program, told which engine."""
        return ["docker", *(["--host", self.host] if self.host else [])]

    @property
    def is_local(self) -> bool:
        """Whether the engine runs on this machine, as far as its address tells."""
        return str(self.api.base_url).startswith("http+docker://")

    def unreachable(self, error: object) -> str:
        where = self.host or os.environ.get("DOCKER_HOST") or "its usual socket"
        return f"the docker engine at {where} does not answer ({error}); start it, or set SWEFACTORY_SANDBOX=namespace"

    @contextlib.contextmanager
    def faults(self, doing: str) -> Iterator[None]:
        """Turns the SDK's errors into InfrastructureError: "docker could not DOING: why"."""
        import docker
        import requests

        try:
            yield
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            raise InfrastructureError(f"docker could not {doing}: {error}; see `docker info` and its log") from error

    def image(self, name: str) -> Image | None:
        """A local image; None when there is none of that name."""
        import docker

        with self.faults(f"look at the image {name}"):
            try:
                found: dict[str, Any] = self.api.inspect_image(name)
            except docker.errors.ImageNotFound:
                return None
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Image(found["Id"], labels, int(found["Size"]), tuple(found.get("RepoTags") or ()))

    def build(self, build: Build, timeout_s: float) -> CommandResult:
        """Runs to its end; the caller reads the result. The tag is set only by a build that succeeded."""
        argv = ["docker", "build", "--progress", "plain", "--file", str(build.dockerfile)]
        argv += ["--tag", build.tag] if build.output is None else ["--output", f"type=tar,dest={build.output}"]
        for option, values in (("--build-arg", build.arguments), ("--label", {LABEL: "1", **build.labels})):
            for name, value in sorted(values.items()):
                argv += [option, f"{name}={value}"]
        for name, path in sorted(build.secrets.items()):
            argv += ["--secret", f"id={name},src={path}"]
        env = {**os.environ, "DOCKER_BUILDKIT": "1", **({"DOCKER_HOST": self.host} if self.host else {})}
        return run_command([*argv, str(build.context)], timeout_s=timeout_s, output_bytes=_LOG_BYTES, env=env)

    def remove_image(self, image_id: str) -> None:
        """Removes an image that nothing names or uses any more; else leaves it to whoever uses it."""
        import docker

        with contextlib.suppress(docker.errors.APIError):
            self.api.remove_image(image_id)

    def pull(self, name: str, timeout_s: float) -> str | None:
        """None when it is here afterwards, else why not, in one line. Needs a registry that is reached."""
        env = {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})}
        result = run_command(["docker", "pull", "--quiet", name], timeout_s=timeout_s, output_bytes=_LOG_BYTES, env=env)
        if result.exit_code == 0:
            return None
        lines = result.output.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no registry answered in time"

    def push(self, name: str, timeout_s: float) -> str | None:
        """None when the registry holds it afterwards, else why not, in one line."""
        env = {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})}
        result = run_command(["docker", "push", "--quiet", name], timeout_s=timeout_s, output_bytes=_LOG_BYTES, env=env)
        if result.exit_code == 0:
            return None
        lines = result.output.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the registry did not answer in time"

    def share(self, name: str, there: str, timeout_s: float) -> str | None:
        """Pushes the image `name` as `there`, a registry's name; None when it holds it afterwards, else why not."""
        image = self.image(name)
        repository, _, tag = there.rpartition(":")
        with self.faults(f"name the image {name}"):
            self.api.tag(name, repository, tag)
        why = self.push(there, timeout_s)
        if image is None or there not in image.tags:
            self.remove_image(there)  # the name alone; one with it would pass for pulled
        return why

    def usage(self) -> dict[str, Any]:
        """What `docker system df` says: images with what they share, build caches."""
        with self.faults("measure its images"):
            told: dict[str, Any] = self.client.df()
            return told

    def import_root(self, folder: Path | None, tar: Path | None, name: str, timeout_s: float) -> None:
        """Makes an image of a root file system, a folder or a tar file. Raises InfrastructureError."""
        env = {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})}
        argv = ["docker", "import", "--change", f"LABEL {LABEL}=1"]
        if tar is not None:
            self._checked([*argv, str(tar), name], env, timeout_s)
            return
        assert folder is not None
        packing = [
            "tar",
            "-C",
            str(folder),
            "--one-file-system",
            "--exclude=./proc/*",
            "--exclude=./sys/*",
            "-cf",
            "-",
            ".",
        ]
        with subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packed:
            self._checked([*argv, "-", name], env, timeout_s, stdin=packed.stdout)
            if packed.wait(60):
                raise InfrastructureError(
                    f"cannot pack the root file system {folder}: tar ended with {packed.returncode}"
                )

    @staticmethod
    def _checked(
        argv: list[str], env: Mapping[str, str], timeout_s: float, stdin: IO[bytes] | int | None = subprocess.DEVNULL
    ) -> None:
        try:
            done = subprocess.run(argv, check=False, stdin=stdin, capture_output=True, timeout=timeout_s, env=dict(env))
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InfrastructureError(f"{' '.join(argv[:2])} did not end well: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise InfrastructureError(f"{' '.join(argv[:2])} failed: {said}; is the file a tar of a root file system?")
